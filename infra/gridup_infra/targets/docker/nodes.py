"""What a Docker node is called, knows of itself, and exports. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import ports as port_choice
from gridup_infra.targets.docker import images
from gridup_infra.targets.docker.client import address_of, is_here
from gridup_infra.telling import told_of
from gridup_node import catalog, services
from gridup_node.containers import containers

USER = "gridup"
"""The image's own user, who runs all programs and logs in by ssh."""

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104


def project_of(spec: DeploySpec) -> str:
    """The beginning of all names of a node on its daemon: no other stack's, wherever it is deployed from."""
    return f"gridup-{spec.stack}-{spec.stack_id[:8]}"


def published(spec_ports: Mapping[str, int] | None = None) -> dict[str, int]:
    """The ports that people connect to, by service: the defaults, or those given."""
    every = spec_ports or services.ports()
    return {part.service: every[part.service] for part in containers({}) if part.published}


def address(spec: DeploySpec) -> str:
    """What people connect to: the address that the ports are bound to, seen from here."""
    if is_here(spec.host):
        return port_choice.reachable(spec.bind)
    return address_of(spec.host) if spec.bind in WILDCARDS else spec.bind


def outputs(
    spec: DeploySpec,
    ports: Mapping[str, int],
    *,
    volume: str = "",
    daemon: str = "",
    configs: Mapping[str, str] | None = None,
) -> NodeOutputs:
    """What the stack exports of this node.

    Args:
        configs: for each service the hash of what its container was made with.
    """
    image = image_of(spec)
    return NodeOutputs(
        spec=spec,
        address=address(spec),
        ports=dict(ports),
        ssh_user=USER,
        facts={
            "host": spec.host,
            "project": project_of(spec),
            "image": image["image"],
            "shared": image["shared"],
            "volume": volume,
            "daemon": daemon,
            "configs": json.dumps(dict(configs or {})),
        },
    )


def known(spec: DeploySpec, ports: Mapping[str, int], version: str, bundle: str) -> dict[str, Any]:
    """What the node may know of itself. Its own ports are those within its network."""
    return told_of(outputs(spec, ports), version, bundle)


def common(spec: DeploySpec) -> dict[str, Any]:
    """The inputs that all resources of a node share."""
    return {
        "host": spec.host,
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "project": project_of(spec),
    }


def image_of(spec: DeploySpec) -> dict[str, Any]:
    """The inputs of the node's image."""
    version = catalog.resolve(spec.tag)
    shared, _ = images.reference(version, spec.base_image)
    return {
        **common(spec),
        "image": f"{project_of(spec)}:{shared.partition(':')[2]}",
        "shared": shared,
        "version": version,
        "base_image": spec.base_image,
    }


def laid(outputs: NodeOutputs) -> list[dict[str, Any]]:
    """What identifies each container of a deployed node, as it was laid down, in the order of its start."""
    spec, facts = outputs.spec, outputs.facts
    table = {row.name: row for row in services.programs()}
    return [
        {
            **common(spec),
            "service": service,
            "network": facts["project"],
            "config": config,
            "published": outputs.ports.get(service, 0),
            "bind": spec.bind,
            "stop_seconds": table[service].stop_seconds if service in table else 10,
        }
        for service, config in json.loads(facts["configs"]).items()
    ]
