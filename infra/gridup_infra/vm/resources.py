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
from gridup_infra.progress import report
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.dynamic import (
    DRIFT,
    SHAPE,
    OwnedResource,
    Properties,
    Provider,
    normalize_numbers,
    shape,
    translate_errors,
)
from gridup_infra.vm import console, first_boot_wait, keys
from gridup_infra.vm import node as machine_node
from gridup_infra.vm.acme import AcmeConfig
from gridup_infra.vm.node import HOST_RESOURCE, MODULE
from gridup_infra.vm.plan import plan, version_of
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

    tells = ("private_key", "public_key", "former_key", "turned")

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


class HostProvider(Provider):
    """A machine's first boot, waited for; its host key is pinned at first contact, and compared with what the
    machine has printed on its console, where the cloud shows that."""

    tells = ("host_key",)
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
                console.compare(name, found, props["address"], read, lambda text: report("host", text))
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
        return first_boot_wait.wait_for_host(_door(props, asked or pinned), lambda text: report("host", text))
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

    tells = ("ca", "release", "built")
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


class ManagementKey(OwnedResource, module=MODULE, name="ManagementKey"):
    """The deployer's key pair."""

    provider_class = ManagementKeyProvider

    public_key: pulumi.Output[str]
    private_key: pulumi.Output[str]
    former_key: pulumi.Output[str]

    def __init__(self, name: str, props: Properties, opts: pulumi.ResourceOptions | None = None) -> None:
        secret = pulumi.ResourceOptions(additional_secret_outputs=["private_key"])
        super().__init__(name, props, pulumi.ResourceOptions.merge(opts, secret))


class Host(OwnedResource, module=MODULE, name="Host"):
    """A machine that has become a container host."""

    provider_class = HostProvider

    host_key: pulumi.Output[str]


class Node(OwnedResource, module=MODULE, name="Node"):
    """The node on it."""

    provider_class = NodeProvider

    ca: pulumi.Output[str]
    release: pulumi.Output[str]
    built: pulumi.Output[str]


def declare(
    spec: DeploySpec,
    key: ManagementKey,
    machine: pulumi.Output[str],
    address: pulumi.Output[str],
    after: Sequence[pulumi.Resource],
    identity: pulumi.Output[str],
    console: Mapping[str, pulumi.Input[str]] | None = None,
    dns_name: pulumi.Input[str] = "",
) -> pulumi.Output[dict[str, str]]:
    """Declare what makes a machine a node, and export the key that it is entered with.

    Args:
        machine: an id that is another for another machine, whatever its address.
        address: its IP address.
        after: what must be there before it can be entered: the machine, its network, its data disk.
        identity: the engine's id of it, which a preview knows unless there will be another machine.
        console: what its cloud finds the machine by to tell what it printed; None where it can't.
        dns_name: that the cloud gave to the address; empty where it gave none.

    Returns:
        `host_key`, `ca`, `release` and `built`, for `node.node_outputs`; nothing with `--no-node`.
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
    # Only where there is one: those that are deployed have no such input.
    asked = {"asked_key": spec.host_key} if spec.host_key else {}
    shown = {"console": {"target": spec.target, **console}} if console else {}
    told = {**common, SHAPE: identity, **asked, **shown}
    host = Host(HOST_RESOURCE, told, pulumi.ResourceOptions(depends_on=[key, *after]))
    return declare_node(spec, common, key, host.host_key, [host, *after], identity, dns_name=dns_name)


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
    identity: pulumi.Output[str] | str = "",
    *,
    shared: bool = False,
    dns_name: pulumi.Input[str] = "",
) -> pulumi.Output[dict[str, str]]:
    """Declare the node on a machine that is a container host.

    Args:
        common: `stack`, `stack_id`, `name`, `machine`, `address`, `private_key`; of a machine that the person
            has named `host`, see `ssh.SshEndpoint`, and its `port`.
        identity: see `declare`.
        shared: see `release.Plan`.
        dns_name: as `declare` takes it.

    Returns:
        As `declare`.
    """
    acme = AcmeConfig.from_env()
    planned = pulumi.Output.all(common["address"], key.public_key, key.former_key, dns_name).apply(
        partial(_plan, spec, acme, shared=shared)
    )
    named = pulumi.Output.from_input(dns_name).apply(lambda name: machine_node.named(spec, name).domain_name)
    node = Node(
        "node",
        {
            **common,
            "host_key": host_key,
            "plan": planned,
            SHAPE: pulumi.Output.all(identity, plan(spec, "", "", acme, shared=shared)).apply(shape),
            "version": version_of(spec),
            "trusted": named.apply(lambda name: acme.ca if name else ""),
            # Only where there are some: those that are deployed have no such input.
            **({"packages": spec.packages_lock} if spec.packages_lock else {}),
        },
        pulumi.ResourceOptions(depends_on=list(after)),
    )
    found = pulumi.Output.all(host_key=host_key, ca=node.ca, release=node.release, built=node.built)
    return found.apply(_texts)


def _plan(spec: DeploySpec, acme: AcmeConfig, known: Sequence[str], *, shared: bool) -> dict[str, Any]:
    address, public_key, former, dns_name = known
    kept = former if spec.rotating else ""
    return plan(
        machine_node.named(spec, dns_name), address, public_key, acme, shared=shared, former_key=kept or ""
    )


def turned(spec: DeploySpec) -> Properties:
    """The input of a `ManagementKey` that makes another pair of it; none before the first time."""
    return {"rotated": spec.rotated} if spec.rotated else {}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value or "") for name, value in values.items()}
