"""A node's public address: it stays the same while the machine is stopped, resized or replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gridup_infra.targets.aws import kinds, tags
from gridup_infra.targets.aws.client import Cloud, code_of
from gridup_infra.targets.aws.kinds import Thing


def ensure(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    """The stack's address, allocated where it has none."""

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.allocate_address(Domain="vpc", TagSpecifications=tags.tag_spec(props, "elastic-ip"))
        return made

    return cloud.create_once(lambda: kinds.find(cloud, kinds.ADDRESS, props), make)


def associate(cloud: Cloud, allocation: str, instance: str) -> None:
    """Have a machine answer at the address, whoever did before."""
    cloud.retry_not_found(
        lambda: cloud.ec2.associate_address(
            AllocationId=allocation, InstanceId=instance, AllowReassociation=True
        )
    )


def holder(found: Mapping[str, Any] | None) -> str:
    """The machine that answers at an address; empty when none does."""
    return str((found or {}).get("InstanceId") or "")


def disassociate(cloud: Cloud, found: Thing) -> None:
    """Take the address from the machine that has it."""
    if found.get("AssociationId"):
        try:
            cloud.ec2.disassociate_address(AssociationId=found["AssociationId"])
        except Exception as error:
            if code_of(error) != "InvalidAssociationID.NotFound":
                raise


def release(cloud: Cloud, found: Thing) -> None:
    """Give the address back: one that is kept costs, attached or not."""
    disassociate(cloud, found)
    try:
        cloud.ec2.release_address(AllocationId=found["AllocationId"])
    except Exception as error:
        if code_of(error) not in ("InvalidAllocationID.NotFound", "InvalidAddress.NotFound"):
            raise
