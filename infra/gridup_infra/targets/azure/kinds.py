"""What a node has in Azure: its kinds of things, and how all of a stack's are found.

Each kind is asked for in the group itself: its own service answers, which knows at once of what it made.
ARM's list over all kinds is a copy, and late.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gridup_infra.targets.azure import client, naming
from gridup_infra.targets.azure.client import Arm

Thing = Mapping[str, Any]


@dataclass(frozen=True)
class ResourceKind:
    """One kind of thing.

    Attributes:
        path: below its group.
        title: as people call it.
        parts: what it consists of that are resources too, below it and among its properties alike.
    """

    path: str
    api: str
    title: str
    child_collection: str = ""


MACHINE = ResourceKind("Microsoft.Compute/virtualMachines", client.COMPUTE, "VM")
INTERFACE = ResourceKind("Microsoft.Network/networkInterfaces", client.NETWORK, "network interface")
ADDRESS = ResourceKind("Microsoft.Network/publicIPAddresses", client.NETWORK, "public address")
GROUP = ResourceKind(
    "Microsoft.Network/networkSecurityGroups", client.NETWORK, "network security group", "securityRules"
)
NETWORK = ResourceKind("Microsoft.Network/virtualNetworks", client.NETWORK, "network", "subnets")
DISK = ResourceKind("Microsoft.Compute/disks", client.DISKS, "disk")

ORDER = (MACHINE, INTERFACE, ADDRESS, GROUP, NETWORK, DISK)
"""What uses others goes before them."""

RESOURCE_GROUP = "resource group"


def path(arm: Arm, group: str, kind: ResourceKind, name: str = "") -> str:
    """Where a thing is, or with no name all of its kind."""
    return f"{arm.group(group)}/providers/{kind.path}" + (f"/{name}" if name else "")


def child_path(arm: Arm, group: str, kind: ResourceKind, name: str, part_name: str) -> str:
    """Where a part of a thing is."""
    return f"{path(arm, group, kind, name)}/{kind.child_collection}/{part_name}"


def get(arm: Arm, group: str, kind: ResourceKind, name: str) -> Thing | None:
    """One thing; None when it is not there."""
    return arm.get(path(arm, group, kind, name), kind.api)


def resource_group(arm: Arm, name: str) -> Thing | None:
    """A resource group; None when there is none of that name."""
    return arm.get(arm.group(name), client.RESOURCES)


def tags_of(thing: Thing) -> dict[str, str]:
    return dict(thing.get("tags") or {})


def is_of(thing: Thing, stack_id: str) -> bool:
    """Whether a thing bears a stack's mark."""
    return tags_of(thing).get(naming.STACK_ID) == stack_id


def list_owned(arm: Arm, group: str, stack_id: str, project: str) -> list[tuple[ResourceKind, Thing]]:
    """All that is there of a stack in a group, in `ORDER`.

    A VM's own disk is known by its name: Azure makes it, and what tags it has is Azure's to say.
    """

    def every(kind: ResourceKind) -> list[Thing]:
        return [
            row
            for row in arm.every(path(arm, group, kind), kind.api)
            if is_of(row, stack_id) or is_root_disk(kind, row, project)
        ]

    with ThreadPoolExecutor(max_workers=len(ORDER)) as pool:
        each = pool.map(every, ORDER)
        return [(kind, thing) for kind, things in zip(ORDER, each, strict=True) for thing in things]


def is_root_disk(kind: ResourceKind, thing: Thing, project: str) -> bool:
    """Whether it is a VM's own disk, which goes with that."""
    name = str(thing["name"])
    return kind is DISK and name.startswith(project) and name.endswith(naming.ROOT_SUFFIX)


def state_of(thing: Thing) -> str:
    """How its last change went: Succeeded, Failed, or what goes on."""
    return str((thing.get("properties") or {}).get("provisioningState") or "")


SETTLED = ("Succeeded", "Failed", "Canceled", "")
"""Of `state_of`: nothing goes on."""
