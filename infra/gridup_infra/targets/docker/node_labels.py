"""Ownership labels: a resource on a daemon belongs to a stack if it has the stack's id as a label.

Gridup never touches other resources.

Docker labels are immutable, so the ownership of a retained volume (`--keep-data`) is recorded by an empty
companion volume, called a note: `kept` means that the volume has no owner now, `claim` that another stack
adopted it. The next node of the same name may adopt a volume without an owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker

PREFIX = "org.gridup"
STACK_ID = f"{PREFIX}.stack-id"
URN = f"{PREFIX}.urn"
STACK = f"{PREFIX}.stack"
NAME = f"{PREFIX}.name"
SERVICE = f"{PREFIX}.service"
CONFIG = f"{PREFIX}.config"
"""A hash of all inputs that a container was created with."""
PORTS = f"{PREFIX}.ports"
"""The node's allocated ports, as JSON by service."""
KEPT = f"{PREFIX}.kept"
"""On a note: the retained volume that has no owner now."""
NOTED = {"admin_email": f"{PREFIX}.admin-email", "node_type": f"{PREFIX}.node-type"}
"""On such a note: settings of the node that owned the volume. Spec field -> label."""
CLAIM = f"{PREFIX}.claim"
"""On a note: the volume that this stack adopted."""
SHARED = f"{PREFIX}.shared"
"""On a shared image: its own reference. The images that are based on it inherit this label."""
STAGE = f"{PREFIX}.stage"
"""On the build stage that creates the environment. The Dockerfile sets it."""
NOWHERE = f"{PREFIX}.nowhere"
"""On a network that all nodes of the daemon share; see `nowhere`."""
OPEN = f"{PREFIX}.open"
"""On a container with outside access: {network of `nowhere.HIDDEN` that it is not in: why}, as JSON."""
MANAGED = f"{PREFIX}.managed"


def labels(props: Mapping[str, Any]) -> dict[str, str]:
    """Return the ownership labels of a resource with these inputs."""
    return {
        MANAGED: "true",
        STACK_ID: props["stack_id"],
        STACK: props["stack"],
        NAME: props["name"],
        URN: props["urn"],
    }


def filters(stack_id: str) -> dict[str, str]:
    """Return the filter with which the daemon lists a stack's resources."""
    return {"label": f"{STACK_ID}={stack_id}"}


def containers(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    """Return a stack's containers, running or not, as the daemon lists them."""
    found: list[dict[str, Any]] = client.api.containers(all=True, filters=filters(stack_id))
    return found


def networks(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.api.networks(filters=filters(stack_id))
    return found


def volumes(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    """Return a stack's volumes, including its notes."""
    return _volumes(client, filters(stack_id))


def images(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.api.images(filters=filters(stack_id))
    return found


def notes(client: docker.DockerClient, label: str) -> Iterator[dict[str, Any]]:
    """Yield the notes of one kind, of all stacks.

    Args:
        label: `KEPT` or `CLAIM`.
    """
    yield from _volumes(client, {"label": label})


def _volumes(client: docker.DockerClient, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return client.api.volumes(filters=dict(wanted)).get("Volumes") or []


def label(thing: Mapping[str, Any], key: str) -> str:
    """Return one label of a resource as the daemon lists it; empty if it has none."""
    return str((thing.get("Labels") or {}).get(key, ""))
