"""What a node on a machine of its own is told, and exports. Pure."""

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
"""Of the resources in `vm.resources`; what a machine's first boot is waited for by, in the program."""

PROJECT = "gridup"
"""Compose's name for the node: there is one on a machine."""

SSH = "ssh"

MACHINE, IP, HOST_KEY, RELEASE, HOST = "machine", "ip", "host_key", "release", "host"
"""Keys of `NodeOutputs.facts`. The cloud gives the first: an id that is another for another machine.
The last is there of a machine that the person has named, see `ssh.SshEndpoint`."""

LONGEST_LABEL = 63


def host(spec: DeploySpec, public_key: str, disk: Sequence[str]) -> Host:
    """What the machine is told at its first boot: only what a change of may cost the machine.

    Args:
        public_key: the deployer's own. People's keys come with the node, which is changed in place.
        disk: where the data disk may be, see `Host.disk`.
    """
    hostname = spec.stack[:LONGEST_LABEL].strip("-")
    return Host(ssh_keys=(public_key,), disk=tuple(disk), name=spec.name, hostname=hostname)


def is_fronted(spec: DeploySpec) -> bool:
    """Whether a reverse proxy of the site's own stands in front of a machine's node."""
    return bool(spec.bind or spec.port)


def doors(spec: DeploySpec) -> dict[str, list[str]]:
    """The ports of a machine of the person's own that not everybody is to reach, each with who is (CIDR)."""
    allowed = {Audience.WEB: spec.web_cidr, Audience.STAFF: spec.allow_cidr}
    whose = dict(services.firewall_ports())
    ports = services.machine_doors(spec.port, fronted=is_fronted(spec))
    # The reverse proxy alone is found elsewhere than the table says.
    found = {str(port): list(allowed[whose.get(port, Audience.WEB)]) for port in ports}
    return {port: networks for port, networks in found.items() if networks}


def counted(spec: DeploySpec) -> dict[str, list[str]]:
    """The ports at which a machine counts the connections of one address, each with whose are not counted.

    Behind a reverse proxy of the site's own all have the same address, and it is that one's to count.
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
    """What the stack exports of a node on a machine.

    Args:
        address: the machine's IP address, or a name that leads to it.
        vm: the result of `resources.declare`; empty with `--no-node`.
        facts: what the target wants to find again; `MACHINE` must be among it.
        ssh_port: where its sshd is found elsewhere than the service table says; 0 for there.
        dns_name: that the cloud gave to the address; empty where it gave none.
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
        # The certificate is for the name, so that is what people must connect to.
        address=_name(named(spec, dns_name)) or address,
        ports=ports,
        tls=True,
        # The certificate that people see there is the site's own.
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
    """The spec with the name that the node has: a person's own, else the one that the cloud gave."""
    return replace(spec, domain_name=spec.domain_name or dns_name)


def tls(spec: DeploySpec, address: str, acme_url: str = "", acme_ca: str = "") -> Tls:
    """How the reverse proxy proves who it is.

    Args:
        acme_url, acme_ca: see `acme.AcmeConfig`.
    """
    if not spec.domain_name:
        return Tls(name=_name(spec) or address, more=spec.host_names)
    # Certificate authorities refuse an address that is only there for examples.
    email = "" if spec.admin_email == DEFAULT_ADMIN_EMAIL else spec.admin_email
    return Tls(name=spec.domain_name, acme=True, email=email, acme_url=acme_url, acme_ca=acme_ca)


def _name(spec: DeploySpec) -> str:
    """The name that people find a node by; empty where that is its address."""
    return spec.host_names[0] if is_fronted(spec) else spec.domain_name


def known(spec: DeploySpec, address: str, version: str, bundle: str, tls: Tls) -> dict[str, Any]:
    """What the node may know of itself."""
    outputs = node_outputs(spec, address, {}, {})
    return {**node_facts(outputs, version, bundle), "tls": tls.told()}
