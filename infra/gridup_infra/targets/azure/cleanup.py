"""Find and delete a stack's resources by their ownership mark, and recover from an interrupted create."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gridup_infra.errors import DeadlineError, ResourceError
from gridup_infra.targets.azure import client, kinds, naming
from gridup_infra.targets.azure.client import Arm
from gridup_infra.targets.azure.kinds import ResourceKind, Thing

SETTLE_SECONDS = 900.0
"""How long to wait for an operation that an interrupted run has started."""

GONE_SECONDS = 1200.0


def leftovers(arm: Arm, props: Mapping[str, Any]) -> list[str]:
    """Return what exists of a stack, a line each.

    Args:
        props: `group`, `resource_group` (empty if the group is Gridup's), `stack_id`, `project`.
    """
    if kinds.resource_group(arm, props["group"]) is None:
        return []
    rows = kinds.list_owned(arm, props["group"], props["stack_id"], props["project"])
    lines = [f"{kind.title} {thing['name']} in {props['group']}" for kind, thing in rows]
    if _own_group(arm, props):
        lines.append(f"{kinds.RESOURCE_GROUP} {props['group']}")
    return lines


def delete_all(arm: Arm, props: Mapping[str, Any], *, keep_data: bool) -> None:
    """Delete all resources of a stack, or all but its data disk.

    Args:
        props: see `leftovers`.

    Raises:
        ResourceError: a resource could not be deleted.
    """
    own = _own_group(arm, props)
    if own and not keep_data:
        remove_group(arm, props["group"])
        return
    # Azure can't delete a resource that an interrupted run is still creating.
    rows = _settled(arm, props)
    data = f"{props['project']}-data"
    for kind in kinds.ORDER:
        names = [str(thing["name"]) for its, thing in rows if its is kind]
        if keep_data and kind is kinds.DISK:
            names = [name for name in names if name != data]
        with ThreadPoolExecutor(max_workers=4) as pool:
            paths = [kinds.path(arm, props["group"], kind, name) for name in names]
            list(pool.map(lambda where, api=kind.api: arm.delete(where, api), paths))
    if keep_data:
        _keep(
            arm, props, own, [thing for kind, thing in rows if kind is kinds.DISK and thing["name"] == data]
        )


def _keep(arm: Arm, props: Mapping[str, Any], own: Thing | None, disks: list[Thing]) -> None:
    """Remove the ownership mark from the retained disks and their group: they belong to no stack now."""
    for disk in disks:
        where = kinds.path(arm, props["group"], kinds.DISK, str(disk["name"]))
        tags = naming.kept_tags(kinds.tags_of(disk), props)
        arm.patch(where, kinds.DISK.api, {"tags": tags})
    if own and disks:
        tags = naming.kept_tags(kinds.tags_of(own), props)
        arm.patch(arm.group(props["group"]), client.RESOURCES, {"tags": tags})
    elif own:
        remove_group(arm, props["group"])


def _own_group(arm: Arm, props: Mapping[str, Any]) -> Thing | None:
    """Return the stack's own resource group; None if it does not exist or is not the stack's."""
    if props["resource_group"]:
        return None
    found = kinds.resource_group(arm, props["group"])
    return found if found and kinds.is_of(found, props["stack_id"]) else None


def remove_group(arm: Arm, name: str) -> None:
    """Delete a resource group with all its resources, and wait until it is gone."""
    arm.delete(arm.group(name), client.RESOURCES)


def recover_interrupted(arm: Arm, props: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """Reconcile an interrupted deploy.

    Returns resources that exist but are not in the state, for import. Deletes those that failed and those
    that can't be imported.

    Args:
        props: see `leftovers`.
        known: {URN: id} of the state, including interrupted creates; the id is empty if there is none yet.

    Returns:
        {URN: id} of existing resources whose URN has no id in `known`.

    Raises:
        ResourceError: a disk that may hold data, or a group that holds the node, is not in the state; or the
            group is still being deleted.
        DeadlineError: Azure is still creating or deleting a resource.
    """
    _await_deletion(arm, props)
    found: dict[str, str] = {}
    own = _own_group(arm, props)
    rows: list[tuple[ResourceKind | None, Thing]] = [(None, own)] if own else []
    rows += _settled(arm, props)
    stray: list[tuple[ResourceKind | None, Thing]] = []
    for kind, thing in rows:
        if kind and kinds.is_root_disk(kind, thing, props["project"]):
            continue
        urn = kinds.tags_of(thing).get(naming.URN, "")
        if known.get(urn):
            continue
        if urn in known and kinds.state_of(thing) == "Succeeded":
            # Build the id: in the ids that ARM lists, some services write the group's name in capitals.
            name = str(thing["name"])
            found[urn] = kinds.path(arm, props["group"], kind, name) if kind else arm.group(name)
        elif kind is kinds.DISK and _may_hold_data(thing):
            raise ResourceError(
                f"The disk {thing['name']} in {props['group']} may hold the node's data, and the state does "
                "not know it.",
                "Snapshot or delete it in Azure, then run the same command again.",
            )
        else:
            stray.append((kind, thing))
    if stray and stray[0][0] is None:
        if len(rows) > 1:
            raise ResourceError(
                f"The resource group {props['group']} holds the node, and the state does not know it.",
                "Delete it in Azure if the node's data is not needed, then run the same command again.",
            )
        remove_group(arm, props["group"])
        return {}
    for kind, thing in stray:
        if kind is not None:
            arm.delete(str(thing["id"]), kind.api)
    _remove_root_disks(arm, props)
    for kind, thing in rows:
        if kind is not None and kind.child_collection and (kind, thing) not in stray:
            found |= _settle_parts(arm, props, known, kind, thing)
    return found


def _settle_parts(
    arm: Arm, props: Mapping[str, Any], known: Mapping[str, str], kind: ResourceKind, thing: Thing
) -> dict[str, str]:
    """Do the same as `recover_interrupted` for subnets and rules. They have no tags: find them by name."""
    found: dict[str, str] = {}
    for row in (thing.get("properties") or {}).get(kind.child_collection) or ():
        name = str(row["name"])
        urn = naming.part_urn(props["stack"], kind.child_collection, name)
        if not urn or known.get(urn):
            continue
        where = kinds.child_path(arm, props["group"], kind, str(thing["name"]), name)
        if urn in known and kinds.state_of(row) == "Succeeded":
            found[urn] = where
        else:
            arm.delete(where, kind.api)
    return found


def _may_hold_data(disk: Thing) -> bool:
    """Return whether a disk was ever attached to a VM: Azure records when that last changed."""
    # The REST API spells this property with a capital letter, unlike all others.
    return bool(disk.get("managedBy") or (disk.get("properties") or {}).get("LastOwnershipUpdateTime"))


def _remove_root_disks(arm: Arm, props: Mapping[str, Any]) -> None:
    """Delete unattached root disks: a failed or manually deleted VM may leave one that blocks the next VM."""
    for kind, thing in kinds.list_owned(arm, props["group"], props["stack_id"], props["project"]):
        if kinds.is_root_disk(kind, thing, props["project"]) and not thing.get("managedBy"):
            arm.delete(str(thing["id"]), kind.api)


def _settled(arm: Arm, props: Mapping[str, Any]) -> list[tuple[ResourceKind, Thing]]:
    """Return a stack's resources, once Azure creates or deletes none of them any more."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        rows = kinds.list_owned(arm, props["group"], props["stack_id"], props["project"])
        busy = [thing for _, thing in rows if kinds.state_of(thing) not in kinds.SETTLED]
        if not busy:
            return rows
        if time.monotonic() > end:
            raise DeadlineError(
                f"Azure has not ended making {busy[0]['name']} within {SETTLE_SECONDS / 60:g} minutes.",
                "Run the same command again.",
            )
        time.sleep(client.POLL_SECONDS)


def _await_deletion(arm: Arm, props: Mapping[str, Any]) -> None:
    """Wait while Azure deletes the stack's group: it accepts no new resources meanwhile."""
    end = time.monotonic() + GONE_SECONDS
    while (group := kinds.resource_group(arm, props["group"])) and kinds.state_of(group) == "Deleting":
        if time.monotonic() > end:
            raise ResourceError(
                f"The resource group {props['group']} is still being removed.", "Run the same command again."
            )
        time.sleep(client.POLL_SECONDS)
