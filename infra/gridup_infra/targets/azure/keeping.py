"""The data disk of a node that was destroyed with `--keep-data`: found again, and taken over by the next node
of that name in the region.

A disk can't be moved into another group within a create, but copied: the new node's disk is a copy, and once
that is there the kept one goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gridup_infra.targets.azure import client, kinds, naming
from gridup_infra.targets.azure.client import Arm
from gridup_infra.targets.azure.kinds import Thing


def find(arm: Arm, props: Mapping[str, Any]) -> dict[str, Any]:
    """The kept disk of a node.

    Args:
        props: `stack`, `name` and `region` of the node.

    Returns:
        source: its id, empty where there is none; size: in GB.
    """
    rows = arm.every(f"{arm.root}/providers/{kinds.DISK.path}", client.DISKS)
    ours = [row for row in rows if _is_kept(row, props)]
    if not ours:
        return {"source": "", "size": 0}
    newest = max(ours, key=lambda row: str((row.get("properties") or {}).get("timeCreated") or ""))
    return {"source": str(newest["id"]), "size": int((newest.get("properties") or {}).get("diskSizeGB") or 0)}


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
    """Remove a kept disk that was taken over, and its group where that was kept for it and holds no more."""
    disk = arm.get(source, client.DISKS)
    if disk is None or kinds.tags_of(disk).get(naming.STACK_ID) != naming.NOBODY:
        return
    arm.delete(source, client.DISKS)
    group = source.split("/")[4]
    found = kinds.resource_group(arm, group)
    if found is None or kinds.tags_of(found).get(naming.STACK_ID) != naming.NOBODY:
        return
    left = arm.every(f"{arm.group(group)}/resources", client.RESOURCES)
    # ARM's list is late: what it still shows and is gone does not count.
    if all(str(row["id"]).lower() == source.lower() for row in left):
        arm.delete(arm.group(group), client.RESOURCES)
