"""Creates that were interrupted, in a stack's state as the engine exports it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

Deployment = MutableMapping[str, Any]


def import_pending(deployment: Deployment, ids: Mapping[str, str]) -> dict[str, Any]:
    """Make of creates that were interrupted the resources that they have made; the inputs of those, by URN.

    `pulumi refresh --import-pending-creates` should do it, and in this version only forgets them.

    Args:
        ids: the cloud's own, by URN.
    """
    taken: dict[str, Any] = {}
    left = []
    for operation in deployment.get("pending_operations") or []:
        resource = operation["resource"]
        urn = resource["urn"]
        if operation["type"] == "creating" and ids.get(urn):
            inputs = resource.get("inputs") or {}
            # What it depends on is there, so it stands after that.
            deployment["resources"].append({**resource, "id": ids[urn], "outputs": inputs})
            taken[urn] = inputs
        else:
            left.append(operation)
    deployment["pending_operations"] = left
    return taken


def reset_inputs(deployment: Deployment, asked: Mapping[str, Any]) -> None:
    """Set the inputs of resources back to those by which they were made.

    A refresh of such a one fills its outputs, and takes each default of the cloud's for an input that was set
    by hand.
    """
    for resource in deployment["resources"]:
        if resource["urn"] in asked and resource.get("id"):
            resource["inputs"] = asked[resource["urn"]]
