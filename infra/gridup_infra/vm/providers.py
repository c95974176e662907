"""The dynamic providers that all machines share. Pulumi's engine calls them to change resources."""

from __future__ import annotations

from dataclasses import replace

from pulumi.dynamic import CreateResult, DiffResult, ReadResult, UpdateResult

from gridup_infra.errors import GridupError
from gridup_infra.progress import report
from gridup_infra.targets.dynamic import (
    DRIFT,
    Properties,
    Provider,
    normalize_numbers,
    translate_errors,
)
from gridup_infra.vm import console, first_boot_wait, keys
from gridup_infra.vm.release_client import connect
from gridup_infra.vm.ssh import (
    AuthenticationError,
    HostKeyError,
    SshEndpoint,
    SshUnreachableError,
    ssh_session,
)

CONNECT_TIMEOUT = 120.0
"""Time limit to log in to a machine that is already a container host."""

LOOK_SECONDS = 15.0
"""Time limit for a refresh to log in. It is short: a machine that is off must not delay the refresh."""

DELETE_TIMEOUT = 5.0
"""Time limit for a delete to log in. The machine may be gone already, and is deleted next in any case."""


class ManagementKeyProvider(Provider):
    """Provider of the management key. Creates a new pair each time the stack's secrets are replaced."""

    computed = ("private_key", "public_key", "former_key", "turned")

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(
            lambda: CreateResult(props["stack_id"], {**normalize_numbers(props), **self._new(props)})
        )

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            # Only a later rotation makes a new pair: a deploy with no or an earlier rotation changes nothing.
            if str(news.get("rotated") or "") > str(olds.get("turned") or ""):
                return UpdateResult({**normalize_numbers(news), **self._new(news, olds["public_key"])})
            return UpdateResult({**normalize_numbers(news), **self.carry_over_computed(olds)})

        return translate_errors(update)

    @staticmethod
    def _new(props: Properties, former: str = "") -> Properties:
        private, public = keys.new_key()
        turned = str(props.get("rotated") or "")
        return {"private_key": private, "public_key": public, "former_key": former, "turned": turned}


class ContainerHostProvider(Provider):
    """Provider of a container host: waits for a machine's first boot, and pins its host key at first contact.

    Where the cloud shows the machine's console, the host key is also compared with those printed there.
    """

    computed = ("host_key",)
    # Only a new machine's console is read, so a change of this input needs no update.
    ignored = frozenset({"console"})
    sure = frozenset({"private_key"})
    shaped = frozenset({"machine"})

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            found = _meet(props, "")
            if props.get("console") and not props.get("asked_key"):
                name = str(props["name"])
                read = console.reader(normalize_numbers(props["console"]), props["stack_id"], name)
                console.compare(
                    name, found, props["address"], read, lambda text: report("container-host", text)
                )
            return CreateResult(props["machine"], {**normalize_numbers(props), "host_key": found})

        return translate_errors(create)

    def diff(self, _id: str, olds: Properties, news: Properties) -> DiffResult:
        changed = self.changed(olds, news)
        # A new machine has a new host key, so replace the resource: its key can't match the pinned one.
        return DiffResult(changes=bool(changed), replaces=[key for key in changed if key == "machine"])

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            # Until the node is updated, the machine may only accept the former key.
            key = _taken(olds, {**news, "host_key": olds["host_key"]})
            found = _meet({**news, "private_key": key}, olds["host_key"])
            return UpdateResult({**normalize_numbers(news), "host_key": found})

        return translate_errors(update)


def _meet(props: Properties, pinned: str) -> str:
    """Wait until a machine is a container host. Returns its host key.

    The machine must show the host key of `--host-key` if given, else the pinned one.

    Args:
        pinned: the pinned host key; empty at first contact.
    """
    asked = str(props.get("asked_key") or "")
    try:
        return first_boot_wait.wait_for_host(
            _door(props, asked or pinned), lambda text: report("container-host", text)
        )
    except HostKeyError:
        if not asked:
            raise
        raise HostKeyError(
            f"The host key of {props['address']} is not the one given by --host-key: "
            "another machine answers at that address, or somebody is in between.",
            'If another key is right: --host-key "ssh-ed25519 …", or --host-key "" for what it showed first.',
        ) from None


class NodeProvider(Provider):
    """Provider of the node: its release on the machine."""

    computed = ("ca", "release", "built")
    sure = frozenset({"private_key"})
    shaped = frozenset({"machine", "plan"})

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["stack_id"], self._apply(props)))

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._apply(news, _taken(olds, news))))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            try:
                with connect(_door(props), timeout=LOOK_SECONDS) as releases:
                    seen = releases.look()
            except SshUnreachableError as error:
                return ReadResult(id_, {**props, DRIFT: [f"the machine can't be entered: {error.message}"]})
            problems = list(seen["problems"])
            if not problems and seen["release"] != props["release"]:
                problems = [f"the release is {seen['release'] or 'none'}, not {props['release']}"]
            return ReadResult(id_, {**props, DRIFT: problems})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        try:
            with connect(_door(props), timeout=DELETE_TIMEOUT) as releases:
                releases.down()
        except (GridupError, TimeoutError) as error:
            # Ignore the error: the node disappears with its machine, which may be gone already.
            report("node", f"left to its machine: {error}")

    def _apply(self, props: Properties, key: str = "") -> Properties:
        def say(text: str) -> None:
            report("node", text)

        door = _door(props)
        with connect(replace(door, key=key or door.key), timeout=CONNECT_TIMEOUT, say=say) as releases:
            added = props.get("packages") or ""
            seen = releases.apply(normalize_numbers(props["plan"]), props["version"], say, added)
        found = {"ca": seen["ca"] or props["trusted"], "release": seen["release"], "built": seen["built"]}
        return {**normalize_numbers(props), **found, DRIFT: []}


def _taken(olds: Properties, news: Properties) -> str:
    """Return the private key that the machine accepts.

    This is the new one; or the former one if the machine does not accept the new one yet. The update then
    installs the new one.
    """
    if olds["private_key"] != news["private_key"] and olds["machine"] == news["machine"]:
        try:
            with ssh_session(_door(news), timeout=CONNECT_TIMEOUT, retry_auth=False):
                pass
        except AuthenticationError:
            return str(olds["private_key"])
    return str(news["private_key"])


def _door(props: Properties, host_key: str | None = None) -> SshEndpoint:
    pinned = props["host_key"] if host_key is None else host_key
    door = SshEndpoint(props["address"], props["private_key"], pinned or "")
    door = replace(door, host=str(props.get("host") or ""), name=str(props.get("name") or ""))
    return replace(door, port=int(props["port"])) if props.get("port") else door
