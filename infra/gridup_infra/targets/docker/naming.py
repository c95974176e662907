"""The names, addresses, facts, inputs and outputs of a Docker node. Pure: calls no daemon."""

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
"""The user in the image that runs all programs and logs in by ssh."""

NETWORKS = "networks"
"""Key of `NodeOutputs.facts`: the networks that each container was created in, as JSON."""

SHARES = "shares"
"""Key of `NodeOutputs.facts`: each container's share of the machine, as JSON."""


def name_prefix(spec: DeploySpec) -> str:
    """Return the prefix of all names of a node on its daemon. No two stacks share one, on any deployer."""
    return f"gridup-{spec.stack}-{spec.stack_id[:8]}"


def published(spec_ports: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the published ports by service: the defaults, or those of `spec_ports`."""
    every = spec_ports or services.ports()
    parts = containers({})
    names = [name for part in parts for name in (*[part.service] * part.published, *part.fronts)]
    return {name: every[name] for name in names}


def network_of(project: str, name: str) -> str:
    """Return the daemon's name for a network of the service table.

    The api's network has the project's name alone, because in earlier versions it was the only network.
    """
    return project if name == services.backends()[0].name else f"{project}-{name}"


def networks(project: str) -> dict[str, bool]:
    """Return {network on the daemon: whether it is closed}. The first one's labels hold the node's ports."""
    made = {network_of(project, name): closed for name, closed in table_networks().items()}
    return {project: made[project], **made}


def address(spec: DeploySpec) -> str:
    """Return the address that clients connect to: the address that the ports are bound to, seen from here.

    With https, this is the only address with a certificate: a client that connects to an IP address sends no
    server name, and behind Docker's port mapping the reverse proxy can't see which address it used.
    """
    if is_local(spec.host):
        return fronting.outward(spec) or port_choice.reachable(spec.bind)
    return address_of(spec.host) if spec.bind in fronting.EVERY else spec.bind


def joined(part: Container, project: str) -> list[str]:
    """Return the daemon's names of a container's networks. The container is created in the first one."""
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
    """Return what the stack exports of this node.

    Args:
        ports: the published ports by service.
        volume: the name of the data volume.
        daemon: the daemon's id.
        configs: the hash of the container's inputs, by service.
        built: when the image was created; empty for an image of an earlier version, which did not record it.
        ca: the certificate (PEM) of the node's own CA; empty if it has none.
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
    """Return the facts that the node may read of itself. Its own ports are those within its network.

    Args:
        ports: the published ports by service.
        version: the syft version.
        bundle: the hash of the code that runs on the node.
        names: see `names_of`.
    """
    tls = fronting.tls(spec, address(spec), names)
    told = {**node_facts(outputs(spec, ports), version, bundle), **asked_facts(spec, names)}
    return {**told, "tls": tls.told()} if tls else told


def names_of(spec: DeploySpec) -> list[str]:
    """Return the names and addresses of the daemon's machine that clients may use; [] for a remote daemon."""
    return fronting.names_of(spec, but=fronting.BRIDGES) if is_local(spec.host) else []


def inner_port(part: Container, spec: DeploySpec) -> int:
    """Return the port that a container's program listens on, to which its published port leads."""
    https = services.https_ports() if spec.scheme == HTTPS else {}
    return https.get(part.service, part.port) if part.service == services.PROXY else part.port


def ca_file(part: Container, spec: DeploySpec) -> dict[str, str]:
    """Return the inputs for reading the node's own CA from the container that creates it; else {}.

    These are the CA's file, and the time of the last rotation of the node's secrets: a rotation replaces the
    CA, so the input makes the provider read it again.
    """
    if part.service != services.PROXY or spec.scheme != HTTPS:
        return {}
    return {"ca_file": CA_FILE, **({"rotated": spec.rotated} if spec.rotated and not spec.rotating else {})}


def common(spec: DeploySpec) -> dict[str, Any]:
    """Return the inputs that all resources of a node share."""
    return {
        "host": spec.host,
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "project": name_prefix(spec),
    }


def image_of(spec: DeploySpec) -> dict[str, Any]:
    """Return the inputs of the node's image."""
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
    """Return the networks of a deployed node. A node of an earlier version has a single network."""
    where = _laid_networks(outputs)
    return sorted({outputs.facts["project"], *(name for names in where.values() for name in names)})


def _laid_networks(outputs: NodeOutputs) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(outputs.facts.get(NETWORKS, "{}"))
    return found


def laid(outputs: NodeOutputs) -> list[dict[str, Any]]:
    """Return for each container of a deployed node the inputs that identify and define it, in start order."""
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
