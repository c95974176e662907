"""The retained disk of a node that was destroyed with `--keep-data`. The next node of that name in the region
can adopt it.

A create can't move a disk into another group, but it can copy the disk. So the new node's disk is a copy, and
the retained disk is deleted after the node has been healthy with the copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gridup_infra.targets.azure import client, kinds, naming
from gridup_infra.targets.azure.client import Arm
from gridup_infra.targets.azure.kinds import Thing


def find(arm: Arm, props: Mapping[str, Any]) -> dict[str, Any]:
    """Find the retained disk that a node adopts.

    Args:
        props: `stack`, `name` and `region` of the node, and `adopt`, the id of the disk.

    Returns:
        `source`, the disk's id, empty if there is none; and `size` in GB.
    """
    wanted = str(props.get("adopt") or "").lower()
    found = next((row for row in list_retained(arm, props) if str(row["id"]).lower() == wanted), None)
    return {"source": str(found["id"]), "size": size_of(found)} if found else {"source": "", "size": 0}


def list_retained(arm: Arm, props: Mapping[str, Any]) -> list[Thing]:
    """Return the retained disks of earlier nodes with exactly this name in the region, the newest first."""
    rows = arm.every(f"{arm.root}/providers/{kinds.DISK.path}", client.DISKS)
    ours = [row for row in rows if _is_kept(row, props)]
    return sorted(ours, key=lambda row: str(_properties(row).get("timeCreated") or ""), reverse=True)


def size_of(disk: Thing) -> int:
    """Return the disk's size in GB."""
    return int(_properties(disk).get("diskSizeGB") or 0)


def since(disk: Thing) -> str:
    """Return when the disk was last detached from a VM; empty if Azure does not report it."""
    return str(_properties(disk).get("LastOwnershipUpdateTime") or "")


def noted(disk: Thing) -> dict[str, str]:
    """Return the tagged facts about the disk's last node, by the field's name in the spec; else empty."""
    tags = kinds.tags_of(disk)
    return {key: tags.get(tag, "") for key, tag in naming.NOTED.items()}


def _properties(disk: Thing) -> dict[str, Any]:
    return dict(disk.get("properties") or {})


def _is_kept(disk: Thing, props: Mapping[str, Any]) -> bool:
    tags = kinds.tags_of(disk)
    return (
        tags.get(naming.STACK_ID) == naming.NOBODY
        and tags.get(naming.STACK) == props["stack"]
        and tags.get(naming.NAME) == naming.value(props["name"])
        and str(disk.get("location") or "").replace(" ", "").lower() == props["region"]
        and not disk.get("managedBy")
    )


def remove(arm: Arm, source: str) -> None:
    """Delete an adopted retained disk, and its group if that was retained for the disk and is empty now."""
    disk = arm.get(source, client.DISKS)
    if disk is None or kinds.tags_of(disk).get(naming.STACK_ID) != naming.NOBODY:
        return
    arm.delete(source, client.DISKS)
    group = source.split("/")[4]
    found = kinds.resource_group(arm, group)
    if found is None or kinds.tags_of(found).get(naming.STACK_ID) != naming.NOBODY:
        return
    left = arm.every(f"{arm.group(group)}/resources", client.RESOURCES)
    # ARM's list lags behind: it may still show the disk that was just deleted.
    if all(str(row["id"]).lower() == source.lower() for row in left):
        arm.delete(arm.group(group), client.RESOURCES)
