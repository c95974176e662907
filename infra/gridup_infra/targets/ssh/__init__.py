"""The target `ssh`: a node on a machine that is there already, entered by ssh."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from gridup_infra.errors import GridupError, UsageError
from gridup_infra.openssh import Destination
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import which
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Capability, Finding, Identity, Inspection, WayIn
from gridup_infra.vm.target import MachineTarget

if TYPE_CHECKING:
    import pulumi

HOST_KEY_TYPE = "ssh-ed25519"


class SshTarget(MachineTarget):
    """A Debian or Ubuntu machine of the person's own."""

    name: ClassVar[str] = "ssh"
    title: ClassVar[str] = "a machine of yours"
    extra: ClassVar[str] = "ssh"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.HOST,
            Capability.KEEP_DATA,
            Capability.DOMAIN_NAME,
            Capability.SSH_KEYS,
            Capability.HOST_ONLY,
            Capability.IMAGE,
        }
    )
    key_types: ClassVar[tuple[str, ...]] = ()

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        spec = super().resolve(spec, previous)
        host = spec.host.strip()
        if not host:
            raise UsageError("Which machine?", "Name it: --host user@address, as your own ssh reaches it.")
        try:
            Destination.read(host)
        except ValueError as error:
            raise UsageError(
                f"--host {spec.host!r}: {error}.", "It has the form [user@]address[:port], IPv6 in brackets."
            ) from None
        return replace(spec, host=host, host_key=_host_key(spec.host_key))

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        from gridup_infra.targets.ssh import guests

        before = current.spec if current else None
        if before and (before.host, before.host_key) == (spec.host, spec.host_key):
            return  # Whatever a change meets, the machine's own program looks before it.
        moved = before is not None and before.host != spec.host
        guests.look(spec, pinned=spec.host_key, must_be_ours=moved)

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        from gridup_infra.targets.ssh import resources

        return resources.build(spec)

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        from gridup_infra.targets.ssh.guests import PORTS
        from gridup_node.vm.machine import MOUNT, USER

        ports = ", ".join(map(str, PORTS))
        return (
            f"on {spec.host or 'the machine'}: the user {USER} with sudo, and Docker where it has none",
            f"the node's containers, open to whoever reaches the machine at the ports {ports}",
            f"the folder {MOUNT}: data, secrets, keys",
        )

    def kept(self, spec: DeploySpec) -> tuple[str, ...]:
        from gridup_node.vm.machine import MOUNT

        machine = "all that was on the machine, and Docker's packages where Gridup installed them"
        data = f"the folder {MOUNT} with the node's data, secrets and keys (--keep-data)"
        return (data, machine) if spec.keep_data else (machine,)

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        from gridup_infra.targets.ssh import inspecting

        return inspecting.inspect(outputs, self.secret)

    def way_in(self, outputs: NodeOutputs) -> WayIn:
        from gridup_infra.vm.way_in import VmWayIn

        return VmWayIn(outputs, self.secret, until_let_in=False)

    def leftovers(self, identity: Identity) -> tuple[str, ...]:
        from gridup_infra.targets.ssh import guests

        # The node's own key is gone by then. A person who has no way in of their own was told by the destroy.
        with contextlib.suppress(GridupError):
            if guests.holds(identity):
                return (f"what the node has on {identity.facts['host']}",)
        return ()

    def sweep(self, identity: Identity) -> None:
        from gridup_infra.targets.ssh import guests

        guests.leave(guests.person_of(identity), identity.stack, identity.stack_id, identity.name)

    def doctor(self) -> Iterator[Finding]:
        if program := which("ssh"):
            yield Finding("ssh", True, f"{program}, for --cloud ssh")
        else:
            yield Finding("ssh", None, "OpenSSH's client is not installed; --cloud ssh needs it")


def _host_key(text: str) -> str:
    """The public host key as a line, without its comment.

    Raises:
        UsageError: it is none, or not of the type that is pinned.
    """
    from gridup_node.vm.user_data import public_key

    if not text.strip():
        return ""
    try:
        words = public_key(text).split()[:2]
    except ValueError as error:
        raise UsageError(f"--host-key: {error}.", _HOST_KEY_HINT) from None
    if words[0] != HOST_KEY_TYPE:
        raise UsageError(f"--host-key: a {words[0]} key; {HOST_KEY_TYPE} is pinned.", _HOST_KEY_HINT)
    return " ".join(words)


_HOST_KEY_HINT = "It is the first two words of /etc/ssh/ssh_host_ed25519_key.pub on the machine."
