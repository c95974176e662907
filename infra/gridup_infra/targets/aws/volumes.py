"""A node's data disk: create, grow, retain after a destroy, adopt into the next node of the same name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from gridup_infra.errors import ResourceError
from gridup_infra.processes import wait_until
from gridup_infra.targets.aws import kinds, naming, tags
from gridup_infra.targets.aws.client import POLL_SECONDS, Cloud, code_of, is_missing
from gridup_infra.targets.aws.kinds import Thing

READY_SECONDS = 180.0
"""How long to wait until a volume is created, attached or detached. Each takes EC2 some seconds."""


def list_owned(cloud: Cloud, props: Mapping[str, Any]) -> list[Thing]:
    """Return the stack's data disks, the one that may hold data first.

    There is more than one only if a run that moved to another zone was interrupted.
    """
    found = kinds.list_all(cloud, kinds.VOLUME, tags.by_urn(props))
    return sorted(found, key=lambda row: not holds_data(row))


def holds_data(volume: Mapping[str, Any]) -> bool:
    """Return whether an instance has used the disk. A disk that none has used is blank."""
    marks = tags.of(volume)
    return tags.HAS_DATA in marks or tags.RETAINED_AT in marks or bool(volume.get("Attachments"))


def find_owned_or_retained(cloud: Cloud, props: Mapping[str, Any]) -> Thing | None:
    """Return the existing disk for a node with these inputs: its own, else the one to `adopt`, else None."""
    found = list_owned(cloud, {**props, "urn": props["volume_urn"]})
    return found[0] if found else _to_adopt(cloud, props)


def ensure(cloud: Cloud, props: Mapping[str, Any], zone: str) -> Thing:
    """Return the stack's data disk: its own, else the one to `adopt`, else a new one in `zone`."""
    if found := list_owned(cloud, props):
        return ensure_size(cloud, found[0], props)
    if left := _to_adopt(cloud, props):
        return ensure_size(cloud, _take_over(cloud, left, props), props)
    return make(cloud, props, zone)


def make(cloud: Cloud, props: Mapping[str, Any], zone: str) -> Thing:
    """Create a blank disk in a zone where the stack has none; return the disk."""

    def find() -> Thing | None:
        return next((row for row in list_owned(cloud, props) if row["AvailabilityZone"] == zone), None)

    def create(ec2: Any) -> Thing:
        made: Thing = ec2.create_volume(
            AvailabilityZone=zone,
            Size=wanted_size(props),
            VolumeType="gp3",
            Encrypted=True,
            TagSpecifications=tags.tag_spec(props, "volume"),
        )
        return made

    return cloud.create_once(find, create, looked=True)


def wanted_size(props: Mapping[str, Any]) -> int:
    """Return the wanted size in GB, as the integer that the API needs: Pulumi's numbers are all floats."""
    return int(props["disk_size"] or naming.DEFAULT_DISK)


def ensure_size(cloud: Cloud, volume: Thing, props: Mapping[str, Any]) -> Thing:
    """Grow the disk to at least the wanted size; return it. The machine grows the file system by itself."""
    wanted = wanted_size(props)
    if int(volume["Size"]) >= wanted:
        return volume
    try:
        cloud.ec2.modify_volume(VolumeId=volume["VolumeId"], Size=wanted)
    except Exception as error:
        if code_of(error) in ("VolumeModificationRateExceeded", "IncorrectModificationState"):
            raise ResourceError(
                f"The data disk was changed a short while ago, and can't be grown to {wanted} GB yet.",
                "AWS allows it once in six hours: run the same command again later.",
            ) from error
        raise
    return {**volume, "Size": wanted}


def mark_used(cloud: Cloud, volume: str) -> None:
    """Tag the disk as used: from now on it never counts as blank."""
    cloud.retry_not_found(
        lambda: cloud.ec2.create_tags(Resources=[volume], Tags=tags.to_api({tags.HAS_DATA: "true"}))
    )


def keep(cloud: Cloud, props: Mapping[str, Any]) -> None:
    """Retain the stack's data disk for the next node of this name, in one call; delete blank disks."""
    for volume in list_owned(cloud, props):
        if not holds_data(volume):
            delete(cloud, volume["VolumeId"])
            continue
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        marks = {tags.RETAINED_AT: since, tags.STACK_ID: tags.UNOWNED, tags.HAS_DATA: "true"}
        marks |= {tag: tags.value(props[key]) for key, tag in tags.NOTED.items() if props.get(key)}
        cloud.ec2.create_tags(Resources=[volume["VolumeId"]], Tags=tags.to_api(marks))


def remove(cloud: Cloud, props: Mapping[str, Any]) -> None:
    """Delete the stack's data disks."""
    for volume in list_owned(cloud, props):
        delete(cloud, volume["VolumeId"])


def delete(cloud: Cloud, volume: str) -> None:
    """Delete a disk. Waits if an instance that is just ending still has the disk.

    Raises:
        ResourceError: the disk is still in use.
    """
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            cloud.ec2.delete_volume(VolumeId=volume)
        except Exception as error:
            if is_missing(error):
                return
            if code_of(error) != "VolumeInUse" or time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return


def attach(cloud: Cloud, volume: str, instance: str) -> None:
    """Attach a disk to an instance and wait until it is attached. Does nothing if it is attached already.

    Raises:
        ResourceError: another instance has the disk, or the disk is not attached in time.
    """
    seen: list[Thing] = []

    def look() -> Thing:
        found = kinds.get(cloud, kinds.VOLUME, volume) or {}
        seen[:] = [found]
        return found

    if not wait_until(
        lambda: kinds.state_of(look()) in ("available", "in-use"), timeout=READY_SECONDS, every=POLL_SECONDS
    ):
        raise ResourceError(f"The data disk {volume} was not ready within {READY_SECONDS:g} s.")
    holder = attached_to(seen[0])
    if holder and holder != instance:
        raise ResourceError(
            f"The data disk {volume} is attached to {holder}.", "Detach it there, and deploy again."
        )
    if not holder:
        cloud.retry_not_found(
            lambda: cloud.ec2.attach_volume(VolumeId=volume, InstanceId=instance, Device=naming.DEVICE)
        )
    if not wait_until(
        lambda: _attachment(look()).get("State") == "attached", timeout=READY_SECONDS, every=POLL_SECONDS
    ):
        raise ResourceError(f"The data disk {volume} was not attached within {READY_SECONDS:g} s.")


def detach(cloud: Cloud, volume: str, instance: str) -> None:
    """Detach a disk from an instance that does not use it any more. Does nothing if it is not attached."""
    found = kinds.get(cloud, kinds.VOLUME, volume)
    if attached_to(found) != instance:
        return
    try:
        cloud.ec2.detach_volume(VolumeId=volume, InstanceId=instance)
    except Exception as error:
        if code_of(error) not in ("IncorrectState", "InvalidAttachment.NotFound"):
            raise
    if not wait_until(
        lambda: not attached_to(kinds.get(cloud, kinds.VOLUME, volume)),
        timeout=READY_SECONDS,
        every=POLL_SECONDS,
    ):
        raise ResourceError(f"The data disk {volume} was not detached within {READY_SECONDS:g} s.")


def attached_to(volume: Mapping[str, Any] | None) -> str:
    """Return the id of the instance that has the disk; empty if none has it."""
    return str(_attachment(volume).get("InstanceId", ""))


def _attachment(volume: Mapping[str, Any] | None) -> Mapping[str, Any]:
    rows = (volume or {}).get("Attachments") or ()
    return next((row for row in rows if row.get("State") != "detached"), {})


def _to_adopt(cloud: Cloud, props: Mapping[str, Any]) -> Thing | None:
    return next((row for row in list_retained(cloud, props) if row["VolumeId"] == props.get("adopt")), None)


def list_retained(cloud: Cloud, props: Mapping[str, Any]) -> list[Thing]:
    """Return the retained disks of earlier nodes with exactly this name, the latest first."""
    filters = [
        {"Name": f"tag:{tags.STACK_ID}", "Values": [tags.UNOWNED]},
        {"Name": f"tag:{tags.STACK}", "Values": [tags.escape_filter(props["stack"])]},
        {"Name": "status", "Values": ["available"]},
    ]
    # The stack's name is not enough: another user's node with a similar name may have the same one.
    name = tags.value(props["name"])
    found = [
        row for row in kinds.list_all(cloud, kinds.VOLUME, filters) if tags.of(row).get(tags.NAME) == name
    ]
    return sorted(found, key=lambda row: tags.of(row).get(tags.RETAINED_AT, ""), reverse=True)


def _take_over(cloud: Cloud, volume: Thing, props: Mapping[str, Any]) -> Thing:
    """Adopt a retained disk; return it.

    One call makes the disk the stack's. After that, the tags of a retained disk are deleted.
    """
    id_ = volume["VolumeId"]
    cloud.ec2.create_tags(Resources=[id_], Tags=tags.to_api({**tags.tags(props), tags.HAS_DATA: "true"}))
    cloud.ec2.delete_tags(
        Resources=[id_], Tags=[{"Key": tag} for tag in (tags.RETAINED_AT, *tags.NOTED.values())]
    )
    return kinds.get(cloud, kinds.VOLUME, id_) or volume
