"""Finds and removes all resources on a daemon that have a stack's ownership labels."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gridup_infra.errors import ResourceError
from gridup_infra.targets.docker import images, node_labels, nowhere, volumes
from gridup_infra.targets.docker.client import reason

if TYPE_CHECKING:
    import docker

STOP_SECONDS = 20


def leftovers(client: docker.DockerClient, stack_id: str) -> list[str]:
    """Return a line for each resource of the stack on the daemon, except data retained on purpose."""
    found = [f"container {row['Names'][0].lstrip('/')}" for row in node_labels.containers(client, stack_id)]
    found += [f"network {row['Name']}" for row in node_labels.networks(client, stack_id)]
    found += [f"volume {name}" for name in volumes.left(client, stack_id)]
    found += [
        f"image {(row.get('RepoTags') or [row['Id']])[0]}" for row in node_labels.images(client, stack_id)
    ]
    return found


def delete_all(client: docker.DockerClient, stack: str, name: str, stack_id: str, *, keep_data: bool) -> None:
    """Remove all resources of the stack.

    Args:
        keep_data: retain the data volume; else remove it too.

    Raises:
        ResourceError: a resource can't be removed.
    """
    import docker

    for container in node_labels.containers(client, stack_id):
        with contextlib.suppress(docker.errors.NotFound):
            if container["State"] == "running":
                client.api.stop(container["Id"], timeout=STOP_SECONDS)
            client.api.remove_container(container["Id"], force=True)
    for network in node_labels.networks(client, stack_id):
        with contextlib.suppress(docker.errors.NotFound):
            _remove_network(client, network)
    nowhere.forget(client)
    if keep_data:
        volumes.keep(client, {"stack": stack, "name": name, "stack_id": stack_id, "urn": ""})
    else:
        volumes.remove(client, stack_id)
    images.remove(client, stack_id)


def _remove_network(client: docker.DockerClient, network: dict[str, str]) -> None:
    import docker

    try:
        client.api.remove_network(network["Id"])
    except docker.errors.NotFound:
        raise
    except docker.errors.APIError as error:
        raise ResourceError(
            f"The network {network['Name']} could not be removed: {reason(error)}."
        ) from error
