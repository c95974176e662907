"""EC2 as the hypervisor asks it: which instances there are, what each is told, and which volumes it has."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from support.hypervisor import Power, Wanted

POWERS = {
    "pending": Power.ON,
    "running": Power.ON,
    "stopping": Power.OFF,
    "stopped": Power.OFF,
    "shutting-down": Power.GONE,
    "terminated": Power.GONE,
}


class AwsCloud:
    """The instances of one region.

    Args:
        ec2: boto3's client.
    """

    def __init__(self, ec2: Any) -> None:
        self._ec2 = ec2

    def wanted(self) -> Sequence[Wanted]:
        addresses = {
            row["InstanceId"]: row["PublicIp"]
            for row in self._ec2.describe_addresses()["Addresses"]
            if row.get("InstanceId")
        }
        reservations = self._ec2.describe_instances()["Reservations"]
        return [self._wanted(row, addresses) for group in reservations for row in group["Instances"]]

    def _wanted(self, row: dict[str, Any], addresses: dict[str, str]) -> Wanted:
        identity = row["InstanceId"]
        power = POWERS[row["State"]["Name"]]
        if power is Power.GONE:
            return Wanted(identity, power, "", b"")
        told = self._ec2.describe_instance_attribute(InstanceId=identity, Attribute="userData")
        volumes = [
            mapping["Ebs"]["VolumeId"]
            for mapping in row.get("BlockDeviceMappings", ())
            if mapping["DeviceName"] != row.get("RootDeviceName")
        ]
        return Wanted(
            identity,
            power,
            addresses.get(identity, ""),
            base64.b64decode(told["UserData"].get("Value", "")),
            {by_id(volume): volume for volume in volumes},
        )


def by_id(volume: str) -> str:
    """udev's name for an EBS volume: NVMe controllers tell its id as their serial number."""
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
