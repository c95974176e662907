"""The user-data, firewall ports, TLS settings, facts and outputs of a node on its own machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gridup_infra.node_facts import node_facts
from gridup_infra.outputs import BUILT, DNS_NAME, PEOPLE, NodeOutputs
from gridup_infra.spec import DEFAULT_ADMIN_EMAIL, DeploySpec
from gridup_node import services
from gridup_node.render import Tls
from gridup_node.services import PROXY, Audience
from gridup_node.vm import people
from gridup_node.vm.machine import USER
from gridup_node.vm.user_data import Host

MODULE, HOST_RESOURCE = "gridup-vm", "container-host"
"""The module of the resource types in `vm.resources`, and the name of the resource that waits for the first
boot."""

PROJECT = "gridup"
"""Compose's project name of the node. A machine has only one node."""

SSH = "ssh"

MACHINE, IP, HOST_KEY, RELEASE, HOST = "machine", "ip", "host_key", "release", "host"
"""Keys of `NodeOutputs.facts`. `MACHINE` is an id from the cloud; a new machine has a new id. `HOST` exists
only for a machine that the user named, see `ssh.SshEndpoint`."""

LONGEST_LABEL = 63


def host(spec: DeploySpec, public_key: str, disk: Sequence[str]) -> Host:
    """Return the inputs of the user-data. Keep them minimal: a change may replace the machine.

    Args:
        public_key: the public half of the management key. Users' keys come with the node, which is updated in
            place.
        disk: where the data disk may be, see `Host.disk`.
    """
    hostname = spec.stack[:LONGEST_LABEL].strip("-")
    return Host(ssh_keys=(public_key,), disk=tuple(disk), name=spec.name, hostname=hostname)


def is_fronted(spec: DeploySpec) -> bool:
    """Return whether the site's own reverse proxy is in front of a machine's node."""
    return bool(spec.bind or spec.port)


def doors(spec: DeploySpec) -> dict[str, list[str]]:
    """Return {port: networks (CIDR) that may reach it} for the restricted ports of the user's machine."""
    allowed = {Audience.WEB: spec.web_cidr, Audience.STAFF: spec.allow_cidr}
    whose = dict(services.firewall_ports())
    ports = services.machine_doors(spec.port, fronted=is_fronted(spec))
    # Only the reverse proxy can have another port than in the service table.
    found = {str(port): list(allowed[whose.get(port, Audience.WEB)]) for port in ports}
    return {port: networks for port, networks in found.items() if networks}


def counted(spec: DeploySpec) -> dict[str, list[str]]:
    """Return {port: networks (CIDR) exempt from counting} for the ports where a machine counts connections.

    The machine counts them by client address. Behind the site's own reverse proxy, all connections come from
    that proxy's address. Counting is then that proxy's task, and the result is empty.
    """
    if is_fronted(spec):
        return {}
    return {str(port): list(spec.trusted_proxies) for port in services.machine_doors()}


def node_outputs(
    spec: DeploySpec,
    address: str,
    vm: Mapping[str, str],
    facts: Mapping[str, str],
    ssh_port: int = 0,
    dns_name: str = "",
) -> NodeOutputs:
    """Return what the stack exports of a node on a machine.

    Args:
        address: the machine's IP address, or a name that resolves to it.
        vm: the result of `resources.declare`; empty with `--no-node`.
        facts: what the target needs later to find its resources; must contain `MACHINE`.
        ssh_port: the port of the machine's sshd; 0 for the port in the service table.
        dns_name: the name that the cloud gave to the address; empty if it gave none.
    """
    ports = services.machine_ports() | ({SSH: ssh_port} if ssh_port else {})
    absent: dict[str, str] = {}
    if spec.no_node:
        every = (*ports, *(row.name for row in services.probed()))
        absent = dict.fromkeys((name for name in every if name not in (SSH, PROXY)), "--no-node")
    elif is_fronted(spec):
        where = f"{spec.bind or 'the machine'}:"
        absent = {row.name: f"only at {where}{ports[row.name]}" for row in services.machine_fronted()}
    return NodeOutputs(
        spec=spec,
        # The certificate is for the name, so users must connect to the name.
        address=_name(named(spec, dns_name)) or address,
        ports=ports,
        tls=True,
        # Behind the site's own reverse proxy, users see the site's certificate.
        ca="" if is_fronted(spec) else vm.get("ca", ""),
        ssh_user=USER,
        not_offered=absent,
        facts={
            **facts,
            IP: address,
            HOST_KEY: vm.get("host_key", ""),
            RELEASE: vm.get("release", ""),
            BUILT: vm.get("built", ""),
            PEOPLE: people.USER,
            **({DNS_NAME: dns_name} if dns_name and not spec.domain_name else {}),
        },
    )


def named(spec: DeploySpec, dns_name: str) -> DeploySpec:
    """Return the spec with the node's domain name: the user's own, else the one that the cloud gave."""
    return replace(spec, domain_name=spec.domain_name or dns_name)


def tls(spec: DeploySpec, address: str, acme_url: str = "", acme_ca: str = "") -> Tls:
    """Return the reverse proxy's TLS settings: by ACME for a domain name, else by the node's own CA.

    Args:
        address: for the certificate of a node without a name.
        acme_url, acme_ca: see `acme.AcmeConfig`.
    """
    if not spec.domain_name:
        return Tls(name=_name(spec) or address, more=spec.host_names)
    # Certificate authorities refuse the default e-mail address, which is an example.
    email = "" if spec.admin_email == DEFAULT_ADMIN_EMAIL else spec.admin_email
    return Tls(name=spec.domain_name, acme=True, email=email, acme_url=acme_url, acme_ca=acme_ca)


def _name(spec: DeploySpec) -> str:
    """Return the name under which users reach a node; empty if they use its address."""
    return spec.host_names[0] if is_fronted(spec) else spec.domain_name


def known(spec: DeploySpec, address: str, version: str, bundle: str, tls: Tls) -> dict[str, Any]:
    """Return the facts that the node may read of itself."""
    outputs = node_outputs(spec, address, {}, {})
    return {**node_facts(outputs, version, bundle), "tls": tls.told()}
