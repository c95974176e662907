"""All that bears a stack's id in a region: found, and removed in the order in which EC2 lets go of it."""

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
"""What uses others goes before them."""


def found(cloud: Cloud, stack_id: str) -> list[tuple[ResourceKind, Thing]]:
    """All that is there of a stack, in `ORDER`; a disk that was kept is of no stack any more."""
    with ThreadPoolExecutor(max_workers=len(ORDER)) as pool:
        each = pool.map(lambda kind: kinds.list_all(cloud, kind, tags.by_stack(stack_id)), ORDER)
        return [(kind, thing) for kind, things in zip(ORDER, each, strict=True) for thing in things]


def within(cloud: Cloud, stack_id: str, vpc: str) -> list[Thing]:
    """What of a stack is in its network."""
    return [
        thing
        for kind, thing in found(cloud, stack_id)
        if kind is not kinds.VPC
        and vpc in (thing.get("VpcId"), *(row.get("VpcId") for row in thing.get("Attachments") or ()))
    ]


def leftovers(cloud: Cloud, stack_id: str) -> list[str]:
    """What is there of a stack, a line each."""
    return [f"{kind.title} {thing[kind.id]} in {cloud.region}" for kind, thing in found(cloud, stack_id)]


def delete_all(cloud: Cloud, props: Mapping[str, Any], *, keep_data: bool) -> None:
    """Remove all of a stack, or all but its data disk.

    Args:
        props: `stack_id`, and `volume_urn` of the data disk.

    Raises:
        ResourceError: something could not be removed.
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
