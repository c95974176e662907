"""Finds all resources in a region that carry a stack's id, and deletes them in the order that EC2 accepts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gridup_infra.targets.aws import addresses, instances, kinds, networks, tags, volumes
from gridup_infra.targets.aws.client import Cloud
from gridup_infra.targets.aws.kinds import ResourceKind, Thing

ORDER: tuple[ResourceKind, ...] = (
    kinds.INSTANCE,
    kinds.ADDRESS,
    kinds.VOLUME,
    kinds.INTERFACE,
    kinds.GROUP,
    kinds.GATEWAY,
    kinds.SUBNET,
    kinds.ROUTES,
    kinds.KEY,
    kinds.VPC,
)
"""The order of deletion: a resource comes before the resources that it uses."""


def found(cloud: Cloud, stack_id: str) -> list[tuple[ResourceKind, Thing]]:
    """Return all resources of a stack, in `ORDER`. A retained disk belongs to no stack any more."""
    with ThreadPoolExecutor(max_workers=len(ORDER)) as pool:
        each = pool.map(lambda kind: kinds.list_all(cloud, kind, tags.by_stack(stack_id)), ORDER)
        return [(kind, thing) for kind, things in zip(ORDER, each, strict=True) for thing in things]


def within(cloud: Cloud, stack_id: str, vpc: str) -> list[Thing]:
    """Return the resources of a stack that are in its network `vpc`, without the VPC itself."""
    return [
        thing
        for kind, thing in found(cloud, stack_id)
        if kind is not kinds.VPC
        and vpc in (thing.get("VpcId"), *(row.get("VpcId") for row in thing.get("Attachments") or ()))
    ]


def leftovers(cloud: Cloud, stack_id: str) -> list[str]:
    """Return a line for each resource of a stack."""
    return [f"{kind.title} {thing[kind.id]} in {cloud.region}" for kind, thing in found(cloud, stack_id)]


def delete_all(cloud: Cloud, props: Mapping[str, Any], *, keep_data: bool) -> None:
    """Delete all resources of a stack.

    Args:
        props: `stack_id`, and `volume_urn`, the URN of the data disk.
        keep_data: whether to retain the data disk.

    Raises:
        ResourceError: a resource could not be deleted.
    """
    there = found(cloud, props["stack_id"])
    if not there:
        return
    machines = [thing["InstanceId"] for kind, thing in there if kind is kinds.INSTANCE]
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda id_: instances.terminate(cloud, id_), machines))
    if keep_data:
        volumes.keep(cloud, {**props, "urn": props["volume_urn"]})
    for kind, thing in there if not machines and not keep_data else found(cloud, props["stack_id"]):
        if kind is kinds.ADDRESS:
            addresses.release(cloud, thing)
        elif kind is kinds.VOLUME:
            volumes.delete(cloud, thing["VolumeId"])
        elif kind is not kinds.INSTANCE:
            networks.remove(cloud, kind, thing)
