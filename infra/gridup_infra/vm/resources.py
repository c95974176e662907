"""The resources of a node on a machine, whichever cloud made that: ManagementKey, Host, Node.

Host is there as soon as the machine has become a container host; it is another one when the machine
is. Node is the bundle on it, and is changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from gridup_infra.errors import GridupError
from gridup_infra.outputs import MANAGEMENT_KEY
from gridup_infra.progress import tell
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.dynamic import (
    DRIFT,
    CloudProvider,
    Marked,
    Properties,
    Provider,
    changed_inputs,
    guarded,
    plain,
)
from gridup_infra.vm import booting, keys
from gridup_infra.vm.bundle import releasing
from gridup_infra.vm.plan import plan, version_of
from gridup_infra.vm.settings import Acme
from gridup_infra.vm.ssh import ClosedError, Door

MODULE = "gridup-vm"

ENTER_SECONDS = 120.0
"""For a machine that is a container host already."""

LOOK_SECONDS = 15.0
"""For a refresh to get in: a machine that is off must not hold it up."""

LEAVE_SECONDS = 5.0
"""For a delete to get in. The machine may be gone, and is about to go in any case."""


class ManagementKeyProvider(CloudProvider):
    """The key pair that the deployer enters with; the same for the stack's whole life."""

    tells = ("private_key", "public_key")

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            private, public = keys.new_key()
            return CreateResult(
                props["stack_id"], {**plain(props), "private_key": private, "public_key": public}
            )

        return guarded(create)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return UpdateResult({**plain(news), **self.kept(olds)})


class HostProvider(Provider):
    """A machine's first boot, waited for; its host key is pinned at first contact."""

    tells = ("host_key",)

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            found = booting.wait_for_host(_door(props, ""), lambda text: tell("host", text))
            return CreateResult(props["machine"], {**plain(props), "host_key": found})

        return guarded(create)

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        changed = [key for key in changed_inputs(olds, news) if key not in self.tells]
        # Another machine has another host key: what was pinned must not be asked of it.
        return DiffResult(changes=bool(changed), replaces=[key for key in changed if key == "machine"])

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            found = booting.wait_for_host(_door(news, olds["host_key"]), lambda text: tell("host", text))
            return UpdateResult({**plain(news), "host_key": found})

        return guarded(update)


class NodeProvider(Provider):
    """The node's bundle on its machine."""

    tells = ("ca", "release")

    def create(self, props: Properties) -> CreateResult:
        return guarded(lambda: CreateResult(props["stack_id"], self._apply(props)))

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        changed = [key for key in changed_inputs(olds, news) if key not in self.tells]
        return DiffResult(changes=bool(changed or olds.get(DRIFT)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return guarded(lambda: UpdateResult(self._apply(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            try:
                with releasing(_door(props), timeout=LOOK_SECONDS) as releases:
                    seen = releases.look()
            except ClosedError as error:
                return ReadResult(id_, {**props, DRIFT: [f"the machine can't be entered: {error.message}"]})
            problems = list(seen["problems"])
            if not problems and seen["release"] != props["release"]:
                problems = [f"the release is {seen['release'] or 'none'}, not {props['release']}"]
            return ReadResult(id_, {**props, DRIFT: problems})

        return guarded(read)

    def delete(self, _id: str, props: Properties) -> None:
        try:
            with releasing(_door(props), timeout=LEAVE_SECONDS) as releases:
                releases.down()
        except (GridupError, TimeoutError) as error:
            # It goes with its machine, which may be gone by now.
            tell("node", f"left to its machine: {error}")

    def _apply(self, props: Properties) -> Properties:
        def say(text: str) -> None:
            tell("node", text)

        with releasing(_door(props), timeout=ENTER_SECONDS, say=say) as releases:
            seen = releases.apply(plain(props["plan"]), props["version"], say)
        return {**plain(props), "ca": seen["ca"] or props["trusted"], "release": seen["release"], DRIFT: []}


def _door(props: Properties, host_key: str | None = None) -> Door:
    pinned = props["host_key"] if host_key is None else host_key
    door = Door(props["address"], props["private_key"], pinned or "")
    return replace(door, port=int(props["port"])) if props.get("port") else door


class ManagementKey(Marked, module=MODULE, name="ManagementKey"):
    """The deployer's key pair."""

    made_by = ManagementKeyProvider

    public_key: pulumi.Output[str]
    private_key: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["private_key"])
        super().__init__(name, props, pulumi.ResourceOptions.merge(opts, secret))


class Host(Marked, module=MODULE, name="Host"):
    """A machine that has become a container host."""

    made_by = HostProvider

    host_key: pulumi.Output[str]


class Node(Marked, module=MODULE, name="Node"):
    """The node on it."""

    made_by = NodeProvider

    ca: pulumi.Output[str]
    release: pulumi.Output[str]


def declare(
    spec: DeploySpec,
    key: ManagementKey,
    machine: pulumi.Output[str],
    address: pulumi.Output[str],
    after: Sequence[pulumi.Resource],
) -> pulumi.Output[dict[str, str]]:
    """Declare what makes a machine a node, and export the key that it is entered with.

    Args:
        machine: an id that is another for another machine, whatever its address.
        address: its IP address.
        after: what must be there before it can be entered: the machine, its network, its data disk.

    Returns:
        `host_key`, `ca` and `release`, for `node.node_outputs`; nothing with `--no-node`.
    """
    private = exported(key)
    if spec.no_node:
        return pulumi.Output.from_input({})
    common = {
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "machine": machine,
        "address": address,
        "private_key": private,
    }
    host = Host("host", common, pulumi.ResourceOptions(depends_on=[key, *after]))
    return declare_node(spec, common, key, host.host_key, [host, *after])


def exported(key: ManagementKey) -> pulumi.Output[str]:
    """The private half, which the stack exports as a secret."""
    private: pulumi.Output[str] = pulumi.Output.secret(cast("Any", key.private_key))
    pulumi.export(MANAGEMENT_KEY, private)
    return private


def declare_node(
    spec: DeploySpec,
    common: Properties,
    key: ManagementKey,
    host_key: pulumi.Output[str],
    after: Sequence[pulumi.Resource],
    *,
    shared: bool = False,
) -> pulumi.Output[dict[str, str]]:
    """Declare the node on a machine that is a container host.

    Args:
        common: `stack`, `stack_id`, `name`, `machine`, `address`, `private_key`, and `port` where its ssh has
            another than the service table's.
        shared: see `release.Plan`.

    Returns:
        As `declare`.
    """
    acme = Acme.of_environment()
    planned = pulumi.Output.all(common["address"], key.public_key).apply(
        partial(_plan, spec, acme, shared=shared)
    )
    node = Node(
        "node",
        {
            **common,
            "host_key": host_key,
            "plan": planned,
            "version": version_of(spec),
            "trusted": acme.ca if spec.domain_name else "",
        },
        pulumi.ResourceOptions(depends_on=list(after)),
    )
    found = pulumi.Output.all(host_key=host_key, ca=node.ca, release=node.release)
    return found.apply(_texts)


def _plan(spec: DeploySpec, acme: Acme, known: Sequence[str], *, shared: bool) -> dict[str, Any]:
    address, public_key = known
    return plan(spec, address, public_key, acme, shared=shared)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value or "") for name, value in values.items()}
