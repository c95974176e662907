"""The disk with a node's data: made, grown, kept when its stack goes, taken over by the next of its name."""

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
"""For a volume to be made, attached or detached; each takes EC2 some seconds."""


def list_owned(cloud: Cloud, props: Mapping[str, Any]) -> list[Thing]:
    """The stack's data disks, the one that may hold data first. More than one only where a run that moved
    to another zone was interrupted."""
    found = kinds.list_all(cloud, kinds.VOLUME, tags.by_urn(props))
    return sorted(found, key=lambda row: not holds_data(row))


def holds_data(volume: Mapping[str, Any]) -> bool:
    """Whether some machine has had it; a disk that none has had is blank."""
    marks = tags.of(volume)
    return tags.HAS_DATA in marks or tags.RETAINED_AT in marks or bool(volume.get("Attachments"))


def find_owned_or_retained(cloud: Cloud, props: Mapping[str, Any]) -> Thing | None:
    """The disk that a node with these inputs would have: its own, else the one to `adopt`."""
    found = list_owned(cloud, {**props, "urn": props["volume_urn"]})
    return found[0] if found else _to_adopt(cloud, props)


def ensure(cloud: Cloud, props: Mapping[str, Any], zone: str) -> Thing:
    """The stack's data disk: the one it has, else the one to `adopt`, else a new one in `zone`."""
    if found := list_owned(cloud, props):
        return ensure_size(cloud, found[0], props)
    if left := _to_adopt(cloud, props):
        return ensure_size(cloud, _take_over(cloud, left, props), props)
    return make(cloud, props, zone)


def make(cloud: Cloud, props: Mapping[str, Any], zone: str) -> Thing:
    """A new, blank disk in a zone that has none of the stack's."""

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
    """GB, as the API wants it: Pulumi's numbers are all floating."""
    return int(props["disk_size"] or naming.DEFAULT_DISK)


def ensure_size(cloud: Cloud, volume: Thing, props: Mapping[str, Any]) -> Thing:
    """The disk with at least the size that is asked for; the machine grows the file system by itself."""
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
    """From here on the disk is never taken for a blank one."""
    cloud.retry_not_found(
        lambda: cloud.ec2.create_tags(Resources=[volume], Tags=tags.to_api({tags.HAS_DATA: "true"}))
    )


def keep(cloud: Cloud, props: Mapping[str, Any]) -> None:
    """Leave the stack's data disk to the next node of this name, in one call; blank ones are deleted."""
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
    """Delete a disk, which a machine that is just ending may still have.

    Raises:
        ResourceError: something has it.
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
    """Attach a disk to a machine and wait until it is; nothing when it is already.

    Raises:
        ResourceError: another machine has it, or it took too long.
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
    """Take a disk from a machine that does not use it any more; nothing when it has it not."""
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
    """The machine that has a disk; empty when none has."""
    return str(_attachment(volume).get("InstanceId", ""))


def _attachment(volume: Mapping[str, Any] | None) -> Mapping[str, Any]:
    rows = (volume or {}).get("Attachments") or ()
    return next((row for row in rows if row.get("State") != "detached"), {})


def _to_adopt(cloud: Cloud, props: Mapping[str, Any]) -> Thing | None:
    return next((row for row in list_retained(cloud, props) if row["VolumeId"] == props.get("adopt")), None)


def list_retained(cloud: Cloud, props: Mapping[str, Any]) -> list[Thing]:
    """The disks that earlier nodes of this very name have left, the last one first."""
    filters = [
        {"Name": f"tag:{tags.STACK_ID}", "Values": [tags.UNOWNED]},
        {"Name": f"tag:{tags.STACK}", "Values": [tags.escape_filter(props["stack"])]},
        {"Name": "status", "Values": ["available"]},
    ]
    # The stack's name alone could be another person's node, whose name only looks alike.
    name = tags.value(props["name"])
    found = [
        row for row in kinds.list_all(cloud, kinds.VOLUME, filters) if tags.of(row).get(tags.NAME) == name
    ]
    return sorted(found, key=lambda row: tags.of(row).get(tags.RETAINED_AT, ""), reverse=True)


def _take_over(cloud: Cloud, volume: Thing, props: Mapping[str, Any]) -> Thing:
    """One call makes it the stack's; the marks of one that was kept go after that."""
    id_ = volume["VolumeId"]
    cloud.ec2.create_tags(Resources=[id_], Tags=tags.to_api({**tags.tags(props), tags.HAS_DATA: "true"}))
    cloud.ec2.delete_tags(
        Resources=[id_], Tags=[{"Key": tag} for tag in (tags.RETAINED_AT, *tags.NOTED.values())]
    )
    return kinds.get(cloud, kinds.VOLUME, id_) or volume
