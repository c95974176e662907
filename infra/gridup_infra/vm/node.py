"""What a node on a machine of its own is told, and exports. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DEFAULT_ADMIN_EMAIL, DeploySpec
from gridup_infra.telling import told_of
from gridup_node import services
from gridup_node.render import Tls
from gridup_node.services import FRONT
from gridup_node.vm.machine import USER
from gridup_node.vm.user_data import Host

PROJECT = "gridup"
"""Compose's name for the node: there is one on a machine."""

SSH = "ssh"

MACHINE, IP, HOST_KEY, RELEASE = "machine", "ip", "host_key", "release"
"""Keys of `NodeOutputs.facts`. The cloud gives the first: an id that is another for another machine."""

LONGEST_LABEL = 63


def host(spec: DeploySpec, public_key: str, disk: Sequence[str]) -> Host:
    """What the machine is told at its first boot: only what a change of may cost the machine.

    Args:
        public_key: the deployer's own. People's keys come with the node, which is changed in place.
        disk: where the data disk may be, see `Host.disk`.
    """
    hostname = spec.stack[:LONGEST_LABEL].strip("-")
    return Host(ssh_keys=(public_key,), disk=tuple(disk), name=spec.name, hostname=hostname)


def node_outputs(
    spec: DeploySpec,
    address: str,
    vm: Mapping[str, str],
    facts: Mapping[str, str],
    ssh_port: int = 0,
) -> NodeOutputs:
    """What the stack exports of a node on a machine.

    Args:
        address: the machine's IP address, or a name that leads to it.
        vm: the result of `resources.declare`; empty with `--no-node`.
        facts: what the target wants to find again; `MACHINE` must be among it.
        ssh_port: where its sshd is found elsewhere than the service table says; 0 for there.
    """
    ports = services.machine_ports() | ({SSH: ssh_port} if ssh_port else {})
    absent = [name for name in (*ports, *(row.name for row in services.probed())) if name not in (SSH, FRONT)]
    return NodeOutputs(
        spec=spec,
        # The certificate is for the name, so that is what people must connect to.
        address=spec.domain_name or address,
        ports=ports,
        tls=True,
        ca=vm.get("ca", ""),
        ssh_user=USER,
        not_offered=dict.fromkeys(absent, "--no-node") if spec.no_node else {},
        facts={
            **facts,
            IP: address,
            HOST_KEY: vm.get("host_key", ""),
            RELEASE: vm.get("release", ""),
        },
    )


def tls(spec: DeploySpec, address: str, acme_url: str = "", acme_ca: str = "") -> Tls:
    """How the front door proves who it is.

    Args:
        acme_url, acme_ca: see `settings.Acme`.
    """
    if not spec.domain_name:
        return Tls(name=address)
    # Certificate authorities refuse an address that is only there for examples.
    email = "" if spec.admin_email == DEFAULT_ADMIN_EMAIL else spec.admin_email
    return Tls(name=spec.domain_name, acme=True, email=email, acme_url=acme_url, acme_ca=acme_ca)


def known(spec: DeploySpec, address: str, version: str, bundle: str, tls: Tls) -> dict[str, Any]:
    """What the node may know of itself."""
    outputs = node_outputs(spec, address, {}, {})
    return {**told_of(outputs, version, bundle), "tls": tls.told()}
