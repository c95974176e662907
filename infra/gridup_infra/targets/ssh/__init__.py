"""The target `ssh`: a node on an existing machine, accessed by ssh."""

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
from gridup_infra.targets.base import Capability, DoctorCheck, Inspection, NodeAccess, Retained, StackRef
from gridup_infra.vm import node
from gridup_infra.vm.target import MachineTarget
from gridup_node import services

if TYPE_CHECKING:
    import pulumi


class SshTarget(MachineTarget):
    """An existing Debian or Ubuntu machine of the user."""

    name: ClassVar[str] = "ssh"
    title: ClassVar[str] = "a machine of yours"
    providers: ClassVar[tuple[str, ...]] = (*MachineTarget.providers, "gridup_infra.targets.ssh.providers")
    extra: ClassVar[str] = "ssh"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.HOST,
            Capability.HOST_KEY,
            Capability.KEY_FROM,
            Capability.FIREWALL,
            Capability.BIND,
            Capability.PORT,
            Capability.KEEP_DATA,
            Capability.DOMAIN_NAME,
            Capability.SSH_KEYS,
            Capability.ADMIN_SSH_KEYS,
            Capability.HOST_ONLY,
            Capability.IMAGE,
            Capability.EGRESS,
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
        spec = replace(spec, host=host)
        if node.is_fronted(spec) and not spec.host_names:
            raise UsageError(
                "--bind and --port are for a reverse proxy of yours that stands in front of the node.",
                "Say by which name it serves the node: --host-name lab.inst.example",
            )
        if node.is_fronted(spec) and spec.domain_name:
            raise UsageError(
                "--domain-name is for a node that gets its certificate itself, at the ports 80 and 443.",
                "Behind a reverse proxy of yours that is the proxy's: give --host-name alone.",
            )
        for row in services.machine_fronted():
            if spec.port == row.vm_port:
                raise UsageError(f"--port {spec.port}: there the node's {row.title} is.", "Name another one.")
        return spec

    def warnings(self, spec: DeploySpec, current: NodeOutputs | None) -> tuple[str, ...]:
        from gridup_infra.targets.ssh import machine_agent

        lines = super().warnings(spec, current)
        if current is None:
            # If the machine can't be inspected, the next step reports it.
            with contextlib.suppress(GridupError):
                lines += tuple(filter(None, [machine_agent.bypassed(spec)]))
        return lines

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        from gridup_infra.targets.ssh import machine_agent

        before = current.spec if current else None
        if before and (before.host, before.host_key) == (spec.host, spec.host_key):
            return  # Before each change, the program on the machine does these checks.
        moved = before is not None and before.host != spec.host
        machine_agent.look(spec, pinned=spec.host_key, must_be_ours=moved)

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        from gridup_infra.targets.ssh import resources

        return resources.build(spec)

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        from gridup_infra.targets.ssh.machine_agent import ports
        from gridup_infra.vm.node import doors
        from gridup_node.vm.machine import USER

        listening = ", ".join(map(str, ports(spec)))
        at = f"{spec.bind} of it" if spec.bind else "the machine"
        closed = tuple(
            f"of these open to {', '.join(who)} alone: {port}" for port, who in doors(spec).items()
        )
        return (
            f"on {spec.host or 'the machine'}: the user {USER} with sudo, and Docker where it has none",
            f"the node's containers, open to whoever reaches {at} at the ports {listening}",
            *closed,
        )

    def data(self, spec: DeploySpec) -> str:  # noqa: ARG002
        from gridup_node.vm.machine import MOUNT

        return f"the folder {MOUNT} on it: data, secrets, keys"

    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        from gridup_node.vm.machine import MOUNT

        machine = "all that was on the machine, and Docker's packages where Gridup installed them"
        data = f"the folder {MOUNT} with the node's data, secrets and keys (--keep-data)"
        return (data, machine) if spec.keeps else (machine,)

    def retained(self, spec: DeploySpec) -> Retained | None:
        from gridup_infra.targets.ssh import machine_agent

        return machine_agent.retained(spec)

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        from gridup_infra.targets.ssh import inspect

        return inspect.inspect(outputs, self.secret)

    def place(self, outputs: NodeOutputs) -> dict[str, str]:  # noqa: ARG002
        # Only the machine's owner knows its public address.
        return {}

    def access(self, outputs: NodeOutputs) -> NodeAccess:
        from gridup_infra.vm.access import VmAccess

        return VmAccess(outputs, self.secret, retry_auth=False)

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        from gridup_infra.targets.ssh import machine_agent

        # The management key is gone by now. If the user has no access of their own, the destroy has reported
        # that.
        with contextlib.suppress(GridupError):
            if machine_agent.holds(identity):
                return (f"what the node has on {identity.facts['host']}",)
        return ()

    def delete_all(self, identity: StackRef) -> None:
        from gridup_infra.targets.ssh import machine_agent

        machine_agent.leave(machine_agent.person_of(identity), machine_agent.told_of(identity))

    def doctor(self) -> Iterator[DoctorCheck]:
        if program := which("ssh"):
            yield DoctorCheck("ssh", True, f"{program}, for --cloud ssh")
        else:
            yield DoctorCheck("ssh", None, "OpenSSH's client is not installed; --cloud ssh needs it")
