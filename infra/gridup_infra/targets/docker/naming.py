"""What a Docker node is called, knows of itself, and exports. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gridup_infra.node_facts import asked_facts, node_facts
from gridup_infra.outputs import BUILT, NodeOutputs
from gridup_infra.spec import HTTPS, DeploySpec
from gridup_infra.targets import fronting
from gridup_infra.targets import ports as port_choice
from gridup_infra.targets.docker import images
from gridup_infra.targets.docker.client import address_of, is_local
from gridup_node import catalog, services
from gridup_node.containers import CA_FILE, Container, containers
from gridup_node.containers import networks as table_networks

USER = "gridup"
"""The image's own user, who runs all programs and logs in by ssh."""

NETWORKS = "networks"
"""The key in `NodeOutputs.facts` of the networks that each container was laid in, as JSON."""

SHARES = "shares"
"""The key of each container's share of the machine, as JSON."""


def name_prefix(spec: DeploySpec) -> str:
    """The beginning of all names of a node on its daemon: no other stack's, wherever it is deployed from."""
    return f"gridup-{spec.stack}-{spec.stack_id[:8]}"


def published(spec_ports: Mapping[str, int] | None = None) -> dict[str, int]:
    """The ports that people connect to, by service: the defaults, or those given."""
    every = spec_ports or services.ports()
    parts = containers({})
    names = [name for part in parts for name in (*[part.service] * part.published, *part.fronts)]
    return {name: every[name] for name in names}


def network_of(project: str, name: str) -> str:
    """What a network of the table is called on the daemon; that of the api was once the only one."""
    return project if name == services.backends()[0].name else f"{project}-{name}"


def networks(project: str) -> dict[str, bool]:
    """The node's networks on the daemon, each with whether it is closed; the first bears the node's ports."""
    made = {network_of(project, name): closed for name, closed in table_networks().items()}
    return {project: made[project], **made}


def address(spec: DeploySpec) -> str:
    """What people connect to: the address that the ports are bound to, seen from here.

    With https there is a certificate for no other one: a client that connects to an address names no server,
    and behind Docker's ports nobody sees which one it was.
    """
    if is_local(spec.host):
        return fronting.outward(spec) or port_choice.reachable(spec.bind)
    return address_of(spec.host) if spec.bind in fronting.EVERY else spec.bind


def joined(part: Container, project: str) -> list[str]:
    """The networks of a container on the daemon; it is made in the first."""
    return [network_of(project, name) for name in part.networks]


def outputs(
    spec: DeploySpec,
    ports: Mapping[str, int],
    *,
    volume: str = "",
    daemon: str = "",
    configs: Mapping[str, str] | None = None,
    built: str = "",
    ca: str = "",
) -> NodeOutputs:
    """What the stack exports of this node.

    Args:
        ca: the certificate of its own CA.
        configs: for each service the hash of what its container was made with.
        built: when the image was made; empty for one of a former Gridup, which did not ask.
    """
    image = image_of(spec)
    parts = containers({}, egress=spec.allow_egress)
    return NodeOutputs(
        spec=spec,
        address=address(spec),
        ports=dict(ports),
        tls=spec.scheme == HTTPS,
        ca=ca or "",
        ssh_user=USER,
        facts={
            "host": spec.host,
            "project": name_prefix(spec),
            "image": image["image"],
            "shared": image["shared"],
            "volume": volume,
            "daemon": daemon,
            "configs": json.dumps(dict(configs or {})),
            BUILT: built or "",
            SHARES: json.dumps({part.service: dict(part.share) for part in parts}),
            NETWORKS: json.dumps({part.service: joined(part, name_prefix(spec)) for part in parts}),
        },
    )


def known(
    spec: DeploySpec, ports: Mapping[str, int], version: str, bundle: str, names: Sequence[str] = ()
) -> dict[str, Any]:
    """What the node may know of itself. Its own ports are those within its network.

    Args:
        names: see `names_of`.
    """
    tls = fronting.tls(spec, address(spec), names)
    told = {**node_facts(outputs(spec, ports), version, bundle), **asked_facts(spec, names)}
    return {**told, "tls": tls.told()} if tls else told


def names_of(spec: DeploySpec) -> list[str]:
    """The names and addresses of the daemon's machine that people may use, where that is this one."""
    return fronting.names_of(spec, but=fronting.BRIDGES) if is_local(spec.host) else []


def inner_port(part: Container, spec: DeploySpec) -> int:
    """What a container's program listens on there, where people find it."""
    https = services.https_ports() if spec.scheme == HTTPS else {}
    return https.get(part.service, part.port) if part.service == services.PROXY else part.port


def ca_file(part: Container, spec: DeploySpec) -> dict[str, str]:
    """The inputs by which the node's own CA is read, of the container that makes it: the file, and when the
    node's secrets were replaced last, for then it is another one.
    """
    if part.service != services.PROXY or spec.scheme != HTTPS:
        return {}
    return {"ca_file": CA_FILE, **({"rotated": spec.rotated} if spec.rotated and not spec.rotating else {})}


def common(spec: DeploySpec) -> dict[str, Any]:
    """The inputs that all resources of a node share."""
    return {
        "host": spec.host,
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "project": name_prefix(spec),
    }


def image_of(spec: DeploySpec) -> dict[str, Any]:
    """The inputs of the node's image."""
    version = catalog.resolve(spec.tag)
    shared, _ = images.reference(version, spec.base_image, spec.rebuilt, spec.packages_lock)
    return {
        **common(spec),
        "image": f"{name_prefix(spec)}:{shared.partition(':')[2]}",
        "shared": shared,
        "version": version,
        "base_image": spec.base_image,
        **({"rebuilt": spec.rebuilt} if spec.rebuilt else {}),
        **({"packages": spec.packages_lock} if spec.packages_lock else {}),
    }


def laid_networks(outputs: NodeOutputs) -> list[str]:
    """The networks of a deployed node; those that an earlier version has laid have one."""
    where = _laid_networks(outputs)
    return sorted({outputs.facts["project"], *(name for names in where.values() for name in names)})


def _laid_networks(outputs: NodeOutputs) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(outputs.facts.get(NETWORKS, "{}"))
    return found


def laid(outputs: NodeOutputs) -> list[dict[str, Any]]:
    """What identifies each container of a deployed node, as defined, in the order of its start."""
    spec, facts = outputs.spec, outputs.facts
    table = {part.service: part for part in containers({})}
    where, shares = _laid_networks(outputs), json.loads(facts.get(SHARES, "{}"))
    every = []
    for service, config in json.loads(facts["configs"]).items():
        part = table.get(service)
        every.append(
            {
                **common(spec),
                "service": service,
                "networks": where.get(service, [facts["project"]]),
                "config": config,
                "share": shares.get(service),
                "published": outputs.ports.get(service, 0) if part and part.published else 0,
                "fronts": {name: outputs.ports[name] for name in part.fronts} if part else {},
                "bind": spec.bind,
                "stop_seconds": part.stop_seconds if part else 10,
            }
        )
    return every
