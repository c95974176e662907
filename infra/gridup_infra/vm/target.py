"""The base class and helpers of targets whose node has its own machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from gridup_infra.build_env import BASE_IMAGE_VARIABLE
from gridup_infra.errors import ResourceError, UsageError
from gridup_infra.naming import typed
from gridup_infra.outputs import BEHIND, NOT_COMPLETED, PEOPLE, NodeOutputs
from gridup_infra.spec import DeploySpec, urn
from gridup_infra.targets.base import (
    ANSWER_SECONDS,
    LOG_LINES,
    PUBLIC_IP,
    Capability,
    NodeAccess,
    StackRef,
    Target,
    check_tag,
)
from gridup_infra.vm.keys import HOST_KEY_TYPE
from gridup_node.services import Audience, firewall_ports
from gridup_node.vm import user_data

INSPECT_TIMEOUT = 8.0
"""Time limit to inspect a machine that may not answer. It is short, because callers inspect repeatedly."""

_BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


class MachineTarget(Target):
    """Base of targets whose node has its own machine. Such a target must add `node.MACHINE` to its facts."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.POWER,
            Capability.KEEP_DATA,
            Capability.REGION,
            Capability.FIREWALL,
            Capability.CLOSED,
            Capability.DOMAIN_NAME,
            Capability.SSH_KEYS,
            Capability.ADMIN_SSH_KEYS,
            Capability.REBOOT,
            Capability.HOST_ONLY,
            Capability.PRIVATE,
            Capability.IMAGE,
            Capability.EGRESS,
            Capability.NEW_MACHINE,
            Capability.HOST_KEY,
        }
    )

    providers: ClassVar[tuple[str, ...]] = ("gridup_infra.vm.providers",)
    key_types: ClassVar[tuple[str, ...]] = ("ssh-ed25519", "ssh-rsa")
    """The key types that the machines of every cloud accept. With another type, the deploy would fail
    halfway, or the key would never give access."""

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        """Fill in the defaults that all clouds share; see `Target.resolve`.

        A cloud's target calls this first and adds its own defaults.
        """
        check_tag(spec)
        if spec.image and not _BY_DIGEST.fullmatch(spec.image):
            raise UsageError(
                f"--image {spec.image!r} has no digest, and what a tag means may change.",
                "Give it as NAME@sha256:DIGEST; `docker image inspect` tells it in RepoDigests.",
            )
        keys = tuple(_public_key("--ssh-key", line) for line in spec.ssh_keys)
        admins = tuple(_public_key("--admin-ssh-key", line) for line in spec.admin_ssh_keys)
        base = os.environ.get(BASE_IMAGE_VARIABLE) or spec.base_image
        host_key = _host_key(spec.host_key)
        if previous and previous.machine_revision != spec.machine_revision and previous.host_key == host_key:
            host_key = ""  # A new machine has a new host key.
        return replace(
            spec,
            domain_name=spec.domain_name.lower(),
            ssh_keys=keys,
            admin_ssh_keys=admins,
            base_image=base,
            host_key=host_key,
        )

    def warnings(self, spec: DeploySpec, current: NodeOutputs | None) -> tuple[str, ...]:
        from gridup_node.vm import people

        if current is None or PEOPLE in current.facts or not current.spec.ssh_keys:
            return ()
        return (
            f'the keys of --ssh-key now enter "{spec.name}" as {people.USER}, who may use neither sudo nor '
            "Docker; --admin-ssh-key lets one in as before.",
        )

    def answers(self, outputs: NodeOutputs) -> bool:
        import socket

        from gridup_infra.vm.node import IP

        if BEHIND in outputs.facts:
            return True  # Only a login through the machines in between could show it.
        try:
            with socket.create_connection((outputs.facts[IP], outputs.ports["ssh"]), ANSWER_SECONDS):
                return True
        except OSError:
            return False

    def restart_due(self, outputs: NodeOutputs) -> tuple[str, ...] | None:
        from gridup_infra.vm.access import VmAccess
        from gridup_node.vm import updates

        if Capability.REBOOT not in self.capabilities:
            return None
        try:
            with VmAccess(outputs, self.secret, INSPECT_TIMEOUT).session() as session:
                told = session.run(updates.DUE, timeout=INSPECT_TIMEOUT).stdout
        except (ResourceError, TimeoutError):
            return None
        return updates.parse(told)

    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        return ("the disk with the node's data, secrets and keys (--keep-data)",) if spec.keeps else ()

    def access(self, outputs: NodeOutputs) -> NodeAccess:
        from gridup_infra.vm.access import VmAccess

        return VmAccess(outputs, self.secret)

    def place(self, outputs: NodeOutputs) -> dict[str, str]:
        from gridup_infra.vm.node import IP, MACHINE

        spec, facts = outputs.spec, outputs.facts
        found = {
            PUBLIC_IP: "" if spec.private else facts.get(IP, ""),
            "region": spec.region,
            "instance": facts.get(MACHINE, ""),
            "size": spec.size,
        }
        return {key: text for key, text in found.items() if text}

    def terminal_failure(self, outputs: NodeOutputs) -> ResourceError | None:
        from gridup_infra.vm import first_boot_wait
        from gridup_infra.vm.access import VmAccess
        from gridup_infra.vm.release_client import ReleaseClient
        from gridup_infra.vm.ssh import HostKeyError

        access = VmAccess(outputs, self.secret, INSPECT_TIMEOUT)
        try:
            with access.session() as session:
                state = first_boot_wait.read_state(session)
                if state.failed:
                    return first_boot_wait.failure(state, first_boot_wait.read_tail(session))
                if not state.done or outputs.spec.no_node:
                    return None
                dead = ReleaseClient(session).look()["dead"]
        except HostKeyError as error:
            return error
        except (ResourceError, TimeoutError):
            return None  # The machine may answer the next time.
        if not dead:
            return None
        lines = access.logs([dead[0].split()[0]], lines=LOG_LINES, follow=False)
        hint = f"The whole log: {typed('logs', outputs.spec.name)}"
        return ResourceError(dead[0], hint, tuple(line for _, line in lines))

    def ready(self, outputs: NodeOutputs) -> bool:
        from gridup_infra.vm.access import VmAccess

        if not outputs.spec.no_node:
            return True  # The engine has already waited for the first boot and the node.
        try:
            return VmAccess(outputs, self.secret, INSPECT_TIMEOUT).boot_state().done
        except (ResourceError, TimeoutError):
            return False


def partial_outputs(
    identity: StackRef,
    spec: DeploySpec,
    address: str,
    facts: Mapping[str, str],
    states: Mapping[str, Mapping[str, Any]],
    dns_name: str = "",
) -> NodeOutputs:
    """Return the result of `Target.partial_outputs` for a machine: ssh is its only access.

    Args:
        identity: the stack.
        spec: see `Target.partial_outputs`.
        address: the machine's IP address; empty while it has none.
        facts: the facts by which the cloud finds the machine.
        states: see `Target.partial_outputs`.
        dns_name: the name that the cloud gave to the address; empty if it gave none.
    """
    from gridup_infra.vm.node import HOST_KEY, HOST_RESOURCE, MACHINE, MODULE, node_outputs

    type_ = f"pulumi-python:dynamic/{MODULE}:ContainerHost"
    met = states.get(urn(identity.stack, type_, HOST_RESOURCE)) or {}
    # Use the host key only for the same machine: another one at the same address has another key.
    host_key = str(met.get("host_key") or "") if met.get("machine") == facts[MACHINE] else ""
    met_as = {HOST_KEY: host_key}
    whole = node_outputs(replace(spec, no_node=True), address, met_as, facts, dns_name=dns_name)
    return replace(
        whole,
        spec=spec,
        not_offered=dict.fromkeys(whole.not_offered, NOT_COMPLETED),
        facts={key: value for key, value in whole.facts.items() if value and key != PEOPLE},
    )


def data_disk(size: int) -> str:
    """Return a line that describes a node's data disk on a cloud; `size` in GB."""
    return f"an encrypted data disk of {size} GB: data, secrets, keys"


def describe_access(spec: DeploySpec) -> str:
    """Return a line for the summary: which networks a machine's firewall lets in, and to which ports."""
    who = {
        Audience.WEB: ", ".join(spec.web_cidr) or "everybody",
        Audience.STAFF: ", ".join(spec.allow_cidr) or "nobody",
    }
    ports = {
        audience: ", ".join(str(port) for port, its in firewall_ports() if its is audience)
        for audience in who
    }
    return "open to " + "; to ".join(f"{who[audience]}: {ports[audience]}" for audience in who)


def _public_key(flag: str, line: str) -> str:
    try:
        return user_data.public_key(line)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}.") from None


def _host_key(text: str) -> str:
    """Return the public host key as a line, without its comment; empty for an empty text.

    Raises:
        UsageError: the text is no public key, or not of the type that is pinned.
    """
    if not text.strip():
        return ""
    try:
        words = user_data.public_key(text).split()[:2]
    except ValueError as error:
        raise UsageError(f"--host-key: {error}.", _HOST_KEY_HINT) from None
    if words[0] != HOST_KEY_TYPE:
        raise UsageError(f"--host-key: a {words[0]} key; {HOST_KEY_TYPE} is pinned.", _HOST_KEY_HINT)
    return " ".join(words)


_HOST_KEY_HINT = "It is the first two words of /etc/ssh/ssh_host_ed25519_key.pub on the machine."
