"""What a node of containers may know of itself, whoever runs them. Pure."""

from __future__ import annotations

from typing import Any

from gridup_infra import __version__
from gridup_infra.outputs import NodeOutputs
from gridup_node import services
from gridup_node.services import FRONT


def told_of(node: NodeOutputs, version: str, bundle: str) -> dict[str, Any]:
    """The facts of a node. Its own ports are those within its network; never a secret.

    Args:
        version: of syft.
        bundle: the hash of the code that runs on it.
    """
    spec = node.spec
    return {
        "name": spec.name,
        "node_type": spec.node_type,
        "ports": services.ports(),
        "endpoints": {
            name: f"gridup ssh {spec.stack}" if name == "ssh" else endpoint.url
            for name, endpoint in node.endpoints().items()
            if name != FRONT and not endpoint.reason
        },
        "admin_email": spec.admin_email,
        "gridup_version": __version__,
        "syft_version": version,
        "bundle": bundle,
        "ssh_keys": list(spec.ssh_keys),
    }
