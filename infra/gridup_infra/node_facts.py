"""The facts that a node made of containers may know about itself, on any target. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gridup_infra import __version__, requirements
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_node import services
from gridup_node.services import PROXY

MIB = 1024 * 1024


def node_facts(node: NodeOutputs, version: str, bundle: str) -> dict[str, Any]:
    """Return the facts of a node. They never contain a secret. `ports` are the ports inside its network.

    Args:
        version: the version of syft.
        bundle: the hash of the code that runs on the node.
    """
    spec = node.spec
    return {
        "name": spec.name,
        "node_type": spec.node_type,
        "ports": services.ports(),
        "endpoints": {
            name: typed("ssh", spec.name) if name == "ssh" else endpoint.url
            for name, endpoint in node.endpoints().items()
            if name != PROXY and not endpoint.reason
        },
        "admin_email": spec.admin_email,
        "gridup_version": __version__,
        "syft_version": version,
        "bundle": bundle,
        "ssh_keys": list(spec.ssh_keys),
        **asked_facts(spec),
    }


def asked_facts(spec: DeploySpec, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a node, its guard and its reverse proxy: only those that the user asked for.

    Args:
        names: names and addresses of the machine that the node runs on. The guard accepts addresses anyway.
    """
    asked = {
        "max_upload": spec.max_upload * MIB,
        "guests": spec.guests,
        "trusted_proxies": list(spec.trusted_proxies),
        "packages": requirements.named(spec.packages),
        "host_names": list(dict.fromkeys((*spec.host_names, *names))),
    }
    # An empty text is a valid answer for these; only None means "not asked for".
    texts = {"organization": spec.organization, "description": spec.description}
    return {key: value for key, value in asked.items() if value} | {
        key: text for key, text in texts.items() if text is not None
    }
