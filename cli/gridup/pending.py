"""Edits the interrupted creates in a stack's state, in the form that the engine exports. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

Deployment = MutableMapping[str, Any]


def import_pending(deployment: Deployment, ids: Mapping[str, str]) -> dict[str, Any]:
    """Turn interrupted creates into resources of the state. Returns URN -> inputs of these resources.

    `pulumi refresh --import-pending-creates` should do this, but in this version it only drops the creates.

    Args:
        deployment: the exported state; this function changes it.
        ids: URN -> the cloud's id, for creates that did make a resource.
    """
    taken: dict[str, Any] = {}
    left = []
    for operation in deployment.get("pending_operations") or []:
        resource = operation["resource"]
        urn = resource["urn"]
        if operation["type"] == "creating" and ids.get(urn):
            inputs = resource.get("inputs") or {}
            # The resources that it depends on exist already, so it goes after them.
            deployment["resources"].append({**resource, "id": ids[urn], "outputs": inputs})
            taken[urn] = inputs
        else:
            left.append(operation)
    deployment["pending_operations"] = left
    return taken


def reset_inputs(deployment: Deployment, asked: Mapping[str, Any]) -> None:
    """Set the inputs of imported resources back to the inputs of their creates.

    A refresh of an imported resource fills its outputs. But it also stores each default of the cloud as if it
    was an input that somebody set.

    Args:
        deployment: the exported state; this function changes it.
        asked: URN -> inputs, as `import_pending` returned them.
    """
    for resource in deployment["resources"]:
        if resource["urn"] in asked and resource.get("id"):
            resource["inputs"] = asked[resource["urn"]]
