"""The kinds of resources that a node has in Azure, and how to find all resources of a stack.

Each kind is listed in the group itself: there the kind's own service answers, which knows at once what it
created. ARM's list of all kinds is a copy and lags behind.
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
    """One kind of resource.

    Attributes:
        path: the path below `providers/` of the group.
        api: the API version.
        title: the name for users.
        child_collection: the name of its collection of child resources, both in the path below it and among
            its properties; empty if it has none.
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
"""Order of deletion: a resource comes before those that it uses."""

RESOURCE_GROUP = "resource group"


def path(arm: Arm, group: str, kind: ResourceKind, name: str = "") -> str:
    """Return the path of a resource, or without a name the path of all resources of its kind."""
    return f"{arm.group(group)}/providers/{kind.path}" + (f"/{name}" if name else "")


def child_path(arm: Arm, group: str, kind: ResourceKind, name: str, part_name: str) -> str:
    """Return the path of a child resource."""
    return f"{path(arm, group, kind, name)}/{kind.child_collection}/{part_name}"


def get(arm: Arm, group: str, kind: ResourceKind, name: str) -> Thing | None:
    """Return a resource; None if it does not exist."""
    return arm.get(path(arm, group, kind, name), kind.api)


def resource_group(arm: Arm, name: str) -> Thing | None:
    """Return a resource group; None if it does not exist."""
    return arm.get(arm.group(name), client.RESOURCES)


def tags_of(thing: Thing) -> dict[str, str]:
    return dict(thing.get("tags") or {})


def is_of(thing: Thing, stack_id: str) -> bool:
    """Return whether a resource has the stack's ownership mark."""
    return tags_of(thing).get(naming.STACK_ID) == stack_id


def list_owned(arm: Arm, group: str, stack_id: str, project: str) -> list[tuple[ResourceKind, Thing]]:
    """Return all resources of a stack in a group, in `ORDER`.

    A root disk is found by its name: Azure creates it, and decides which tags it has.
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
    """Return whether the resource is the root disk of a VM, which is deleted with the VM."""
    name = str(thing["name"])
    return kind is DISK and name.startswith(project) and name.endswith(naming.ROOT_SUFFIX)


def state_of(thing: Thing) -> str:
    """Return the result of the last operation (Succeeded, Failed), or the operation in progress."""
    return str((thing.get("properties") or {}).get("provisioningState") or "")


SETTLED = ("Succeeded", "Failed", "Canceled", "")
"""Results of `state_of` that mean: no operation is in progress."""
