"""A node's public address. It stays the same when the instance is stopped, resized or replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gridup_infra.targets.aws import kinds, tags
from gridup_infra.targets.aws.client import Cloud, code_of
from gridup_infra.targets.aws.kinds import Thing


def ensure(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    """Return the stack's address; allocate one if the stack has none."""

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.allocate_address(Domain="vpc", TagSpecifications=tags.tag_spec(props, "elastic-ip"))
        return made

    return cloud.create_once(lambda: kinds.find(cloud, kinds.ADDRESS, props), make)


def associate(cloud: Cloud, allocation: str, instance: str) -> None:
    """Associate the address with an instance, even if another instance has it."""
    cloud.retry_not_found(
        lambda: cloud.ec2.associate_address(
            AllocationId=allocation, InstanceId=instance, AllowReassociation=True
        )
    )


def holder(found: Mapping[str, Any] | None) -> str:
    """Return the id of the instance that has the address; empty if none has it."""
    return str((found or {}).get("InstanceId") or "")


def disassociate(cloud: Cloud, found: Thing) -> None:
    """Disassociate the address from the instance that has it, if any."""
    if found.get("AssociationId"):
        try:
            cloud.ec2.disassociate_address(AssociationId=found["AssociationId"])
        except Exception as error:
            if code_of(error) != "InvalidAssociationID.NotFound":
                raise


def release(cloud: Cloud, found: Thing) -> None:
    """Release the address: AWS bills an allocated address, attached or not."""
    disassociate(cloud, found)
    try:
        cloud.ec2.release_address(AllocationId=found["AllocationId"])
    except Exception as error:
        if code_of(error) not in ("InvalidAllocationID.NotFound", "InvalidAddress.NotFound"):
            raise
