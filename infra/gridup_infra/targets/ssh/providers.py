"""The providers of the ssh target's resources, for an existing machine."""

from __future__ import annotations

import os

from pulumi.dynamic import CreateResult, ReadResult, UpdateResult

from gridup_infra.errors import GridupError, ResourceError
from gridup_infra.naming import typed
from gridup_infra.progress import report
from gridup_infra.targets.dynamic import (
    DRIFT,
    Properties,
    Provider,
    normalize_numbers,
    translate_errors,
)
from gridup_infra.targets.ssh import machine_agent
from gridup_infra.targets.ssh.user_ssh import verify_host
from gridup_infra.vm import node as machine_node
from gridup_infra.vm.ssh import AuthenticationError, SshEndpoint, SshUnreachableError, fingerprint
from gridup_node.vm import existing_host
from gridup_node.vm.machine import MOUNT, USER

CONNECT_TIMEOUT = 20.0
LOOK_SECONDS = 15.0
DELETE_TIMEOUT = 10.0
"""Limit for the login of a destroy: a machine that is off must not delay it."""

FORGET = "GRIDUP_FORGET_MACHINE"
"""The environment variable that a user sets to destroy a node whose machine is gone for good."""


class OwnerProvider(Provider):
    """Provider of Owner: pins the machine's host key.

    Its delete deletes everything of the stack on the machine.
    """

    computed = ("address", "port", "host_key", "behind")
    sure = frozenset({"private_key"})

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["stack_id"], self._meet(props)))

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            if any(olds.get(key) != news[key] for key in ("host", "asked_key")):
                # The same machine at another address has the same key; a reinstalled one has the given key.
                return UpdateResult(self._meet(news, "" if news["asked_key"] else olds["host_key"]))
            return UpdateResult(
                {
                    **normalize_numbers(news),
                    **self.carry_over_computed(olds),
                    "behind": olds.get("behind") or "",
                }
            )

        return translate_errors(update)

    def changed(self, olds: Properties, news: Properties) -> list[str]:
        # A state that an earlier version wrote has no `behind` (the jump hosts or the proxy command).
        return super().changed(olds, news) + ["behind"] * ("behind" not in olds)

    def delete(self, _id: str, props: Properties) -> None:
        translate_errors(lambda: _leave(props))

    def _meet(self, props: Properties, pinned: str = "") -> Properties:
        person = verify_host(props["host"], props["asked_key"] or pinned)
        if person.trusted_by_known_hosts:
            machine_agent.seen(
                person,
                existing_host.Request(props["stack"], props["stack_id"], props["name"], machine_node.PROJECT),
            )
        if person.first_contact:
            report("owner", f"pinned at first contact: {fingerprint(person.host_key)}")
        found = person.configured
        return {
            **normalize_numbers(props),
            "address": found.address,
            "port": found.port,
            "host_key": person.host_key,
            "behind": found.behind,
        }


class ContainerHostProvider(Provider):
    """Provider of ContainerHost."""

    computed = ("machine",)
    sure = frozenset({"private_key", "public_key"})

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            try:
                made = self._by_person(props)
            except GridupError:
                # A machine that an interrupted deploy made a container host accepts the management key.
                again = self._if_let_in(props)
                if again is None:
                    raise
                made = again
            return CreateResult(props["stack_id"], made)

        return translate_errors(create)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            # A machine that knows only the former management key gets the new one.
            former = {**news, "private_key": olds["private_key"]}
            made = self._if_let_in(news) or self._if_let_in(former) or self._by_person(news)
            return UpdateResult({**made, "private_key": news["private_key"]})

        return translate_errors(update)

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            try:
                with machine_agent.managed(_door(props), props["host"], LOOK_SECONDS) as way:
                    found = machine_agent.seen(way, _told(props))
            except SshUnreachableError as error:
                return ReadResult(id_, {**props, DRIFT: [error.message]})
            mark, state = found["mark"] or {}, found["state"] or {}
            there = mark.get("stack_id") == props["stack_id"] and state.get("state") == "done"
            return ReadResult(id_, {**props, DRIFT: [] if there else ["it is no container host any more"]})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        """Do nothing: Owner's delete deletes the container host."""

    def _by_person(self, props: Properties) -> Properties:
        return self._make(props, verify_host(props["host"], props["host_key"]))

    def _if_let_in(self, props: Properties) -> Properties | None:
        """Make the container host with the management key; return None if the machine does not accept it."""
        try:
            with machine_agent.managed(_door(props), props["host"], CONNECT_TIMEOUT) as way:
                return self._make(props, way)
        except AuthenticationError:
            return None

    def _make(self, props: Properties, way: machine_agent.RootRunner) -> Properties:
        found = machine_agent.make(way, _told(props), lambda text: report("container-host", text))
        return {**normalize_numbers(props), "machine": found["machine"], DRIFT: []}


def _told(props: Properties) -> existing_host.Request:
    return existing_host.Request(
        stack=props["stack"],
        stack_id=props["stack_id"],
        name=props["name"],
        project=machine_node.PROJECT,
        ports=tuple(int(port) for port in props["ports"]),
        public_key=props["public_key"],
        build=bool(props["build"]),
        key_from=tuple(props.get("key_from") or ()),
        **machine_agent.choice(props.get("adopt", ""), adopting=bool(props.get("adopting"))),
    )


def _leave(props: Properties) -> None:
    """Delete everything of the stack on the machine.

    Raises:
        ResourceError: the delete failed; the message says what is left and how to delete it.
    """

    def leave(way: machine_agent.RootRunner) -> None:
        asked = existing_host.Request(
            stack=props["stack"],
            stack_id=props["stack_id"],
            name=props["name"],
            project=machine_node.PROJECT,
            keep_data=bool(props["keep_data"]),
            admin_email=props.get("admin_email", ""),
            node_type=props.get("node_type", ""),
        )
        machine_agent.leave(way, asked, lambda text: report("owner", text))

    try:
        try:
            with machine_agent.managed(_door(props), props["host"], DELETE_TIMEOUT) as way:
                leave(way)
        except AuthenticationError:
            # The deploy was interrupted before it created the node's user, or that user was removed by hand.
            # The user's own ssh may still work.
            leave(verify_host(props["host"], props["host_key"]))
    except GridupError as error:
        containers = f"the containers {machine_node.PROJECT}-*"
        left = f"the user {USER}, {containers}, {MOUNT}, {existing_host.PLACE}, {existing_host.SUDOERS}"
        if os.environ.get(FORGET):
            report("owner", f"left on {props['host']}, if it still is: {left}")
            return
        raise ResourceError(
            f"What the node has on {props['host']} could not be deleted ({left}): {error.message}",
            "Run the same again when it answers. If it is gone for good: "
            f"{FORGET}=1 {typed('destroy', props['name'])}",
            error.details,
        ) from None


def _door(props: Properties) -> SshEndpoint:
    words = (props["address"], props["private_key"], props["host_key"])
    return SshEndpoint(*words, port=int(props["port"]), host=props["host"], name=props["name"])
