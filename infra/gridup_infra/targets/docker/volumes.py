"""The volume with a node's data: created, retained when its stack is destroyed, adopted by the next node.

A note is an empty companion volume that records the ownership of a retained volume; see `node_labels`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gridup_infra.errors import ResourceError
from gridup_infra.targets.docker import node_labels
from gridup_infra.targets.docker.client import reason

if TYPE_CHECKING:
    import docker

CLAIM_SUFFIX = "-claim"
KEPT_SUFFIX = "-kept"


def ensure(client: docker.DockerClient, props: Mapping[str, Any]) -> str:
    """Find the stack's volume, else adopt the volume that `adopt` names, else create a new one.

    Returns:
        The volume's name.

    Raises:
        ResourceError: another node has adopted the volume of this stack.
    """
    own = find(client, props["stack_id"])
    if own:
        _forget(client, own)
        return own
    return _take_over(client, props) or _make(client, props)


def find(client: docker.DockerClient, stack_id: str) -> str | None:
    """Return the name of the stack's volume, which it adopted or created; None if it has none.

    A volume that it created and another stack adopted belongs to the other stack.
    """
    claimed = made = None
    for volume in node_labels.volumes(client, stack_id):
        if claim := node_labels.label(volume, node_labels.CLAIM):
            claimed = claim if exists(client, claim) else claimed
        elif not node_labels.label(volume, node_labels.KEPT):
            made = str(volume["Name"])
    return claimed or (made if made not in _claimed(client) else None)


def _claimed(client: docker.DockerClient) -> set[str]:
    """Return the names of all adopted volumes."""
    return {
        node_labels.label(note, node_labels.CLAIM) for note in node_labels.notes(client, node_labels.CLAIM)
    }


def exists(client: docker.DockerClient, name: str) -> bool:
    import docker

    try:
        client.api.inspect_volume(name)
    except docker.errors.NotFound:
        return False
    return True


def keep(client: docker.DockerClient, props: Mapping[str, Any]) -> None:
    """Retain the volume for the next node of this name. May be repeated."""
    own = find(client, props["stack_id"])
    if own is None:
        return
    if not _kept_notes(client, own):
        labels = {**node_labels.labels({**props, "urn": props.get("urn", "")}), node_labels.KEPT: own}
        labels |= {label: str(props[key]) for key, label in node_labels.NOTED.items() if props.get(key)}
        client.api.create_volume(f"{own}{KEPT_SUFFIX}", labels=labels)
    for volume in node_labels.volumes(client, props["stack_id"]):
        if node_labels.label(volume, node_labels.CLAIM):
            _remove(client, volume["Name"])


def remove(client: docker.DockerClient, stack_id: str) -> None:
    """Delete the stack's volume and its claim note. A retained volume stays, and so does its kept note.

    Raises:
        ResourceError: the daemon refuses, for example because a container uses the volume.
    """
    own = find(client, stack_id)
    if own and not _kept_notes(client, own):
        _remove(client, own)
    for volume in node_labels.volumes(client, stack_id):
        if node_labels.label(volume, node_labels.CLAIM):
            _remove(client, volume["Name"])


def left(client: docker.DockerClient, stack_id: str) -> list[str]:
    """Return the stack's volumes that are not retained."""
    own = find(client, stack_id)
    return [own] if own and not _kept_notes(client, own) else []


def kept(client: docker.DockerClient, stack: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the retained volumes of earlier nodes of exactly this name, as (volume, note), newest first."""
    found = []
    for note in node_labels.notes(client, node_labels.KEPT):
        volume = node_labels.label(note, node_labels.KEPT)
        # Compare the node's name too: two users' nodes with similar names may have the same stack name.
        if (node_labels.label(note, node_labels.STACK), node_labels.label(note, node_labels.NAME)) == (
            stack,
            name,
        ):
            found.append((volume, note))
    return sorted(found, key=lambda row: str(row[1].get("CreatedAt") or ""), reverse=True)


def _take_over(client: docker.DockerClient, props: Mapping[str, Any]) -> str | None:
    for name, note in kept(client, props["stack"], props["name"]):
        if not exists(client, name):
            _remove(client, note["Name"])
            continue
        if name != props.get("adopt"):
            continue
        labels = {**node_labels.labels(props), node_labels.CLAIM: name}
        client.api.create_volume(f"{props['project']}{CLAIM_SUFFIX}", labels=labels)
        _remove(client, note["Name"])
        return name
    return None


def _make(client: docker.DockerClient, props: Mapping[str, Any]) -> str:
    name = f"{props['project']}-data"
    if exists(client, name):
        # Docker returns the existing volume from a create, so both nodes would share it.
        raise ResourceError(
            f"The volume {name} was taken over by another node.", "Give this one another name."
        )
    client.api.create_volume(name, labels=node_labels.labels(props))
    return name


def _forget(client: docker.DockerClient, name: str) -> None:
    """Delete the kept notes of a volume that is in use again: an interrupted destroy may have left one."""
    for note in _kept_notes(client, name):
        _remove(client, note["Name"])


def _kept_notes(client: docker.DockerClient, name: str) -> list[dict[str, Any]]:
    return [
        note
        for note in node_labels.notes(client, node_labels.KEPT)
        if node_labels.label(note, node_labels.KEPT) == name
    ]


def _remove(client: docker.DockerClient, name: str) -> None:
    import docker

    try:
        with contextlib.suppress(docker.errors.NotFound):
            client.api.remove_volume(name)
    except docker.errors.APIError as error:
        raise ResourceError(f"The volume {name} could not be removed: {reason(error)}.") from error
