"""What on a daemon belongs to a stack: that which bears its id. Nothing else is ever touched.

Labels can't be changed once a thing is made. So that a volume which outlived its stack (`--keep-data`)
can be told from one in use, and be taken over by the next node of that name, two empty volumes
serve as notes: `kept` says that nobody owns it now, `claim` that another stack does.
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
"""A hash of all that a container was made with."""
PORTS = f"{PREFIX}.ports"
"""The ports that a node was given, as JSON by service."""
KEPT = f"{PREFIX}.kept"
"""On a note: the volume that nobody owns now."""
NOTED = {"admin_email": f"{PREFIX}.admin-email", "node_type": f"{PREFIX}.node-type"}
"""On such a note: of the node that had the volume, by the names of a spec."""
CLAIM = f"{PREFIX}.claim"
"""On a note: the volume that this stack took over."""
SHARED = f"{PREFIX}.shared"
"""On an image that no stack owns: what it was built from."""
STAGE = f"{PREFIX}.stage"
"""On the stage of the build in which the environment is made, by the Dockerfile."""
NOWHERE = f"{PREFIX}.nowhere"
"""On a network that no stack owns: see `nowhere`."""
OPEN = f"{PREFIX}.open"
"""On a container with a way out: what is not hidden from it, see `nowhere`, each with why, as JSON."""
MANAGED = f"{PREFIX}.managed"


def labels(props: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a resource with these inputs."""
    return {
        MANAGED: "true",
        STACK_ID: props["stack_id"],
        STACK: props["stack"],
        NAME: props["name"],
        URN: props["urn"],
    }


def filters(stack_id: str) -> dict[str, str]:
    """What to ask the daemon for, to get a stack's things."""
    return {"label": f"{STACK_ID}={stack_id}"}


def containers(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    """A stack's containers, running or not, as the daemon lists them."""
    found: list[dict[str, Any]] = client.api.containers(all=True, filters=filters(stack_id))
    return found


def networks(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.api.networks(filters=filters(stack_id))
    return found


def volumes(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    """A stack's volumes, its notes among them."""
    return _volumes(client, filters(stack_id))


def images(client: docker.DockerClient, stack_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.api.images(filters=filters(stack_id))
    return found


def notes(client: docker.DockerClient, label: str) -> Iterator[dict[str, Any]]:
    """The notes of one kind, whoever wrote them."""
    yield from _volumes(client, {"label": label})


def _volumes(client: docker.DockerClient, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return client.api.volumes(filters=dict(wanted)).get("Volumes") or []


def label(thing: Mapping[str, Any], key: str) -> str:
    """One label of a thing as the daemon lists it; empty when it has none."""
    return str((thing.get("Labels") or {}).get(key, ""))
