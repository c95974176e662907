"""The providers that all machines share: what Pulumi's engine calls to create, change and delete them."""

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
"""For a machine that is a container host already."""

LOOK_SECONDS = 15.0
"""For a refresh to get in: a machine that is off must not hold it up."""

DELETE_TIMEOUT = 5.0
"""For a delete to get in. The machine may be gone, and is about to go in any case."""


class ManagementKeyProvider(Provider):
    """The key pair that the deployer enters with; another one each time the stack's secrets are replaced."""

    computed = ("private_key", "public_key", "former_key", "turned")

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(
            lambda: CreateResult(props["stack_id"], {**normalize_numbers(props), **self._new(props)})
        )

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            # Later than the last one: a deploy that knows of none, or of an earlier one, changes nothing.
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
    """A machine's first boot, waited for; its host key is pinned at first contact, and compared with what the
    machine has printed on its console, where the cloud shows that."""

    computed = ("host_key",)
    # Where its console is read matters to a new machine alone.
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
        # Another machine has another host key: what was pinned must not be asked of it.
        return DiffResult(changes=bool(changed), replaces=[key for key in changed if key == "machine"])

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            # The node lets a new key in, after this.
            key = _taken(olds, {**news, "host_key": olds["host_key"]})
            found = _meet({**news, "private_key": key}, olds["host_key"])
            return UpdateResult({**normalize_numbers(news), "host_key": found})

        return translate_errors(update)


def _meet(props: Properties, pinned: str) -> str:
    """Wait for a machine that shows the key that was asked for, else the pinned one; the key it shows."""
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
    """The node's bundle on its machine."""

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
            # It goes with its machine, which may be gone by now.
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
    """The key that the machine takes: the new one, or the one of before, which lets the new one in."""
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
