"""EC2 as the hypervisor asks it: which instances there are, what each is told, and which volumes it has.

And as the story of a node on a cloud does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridup_infra.targets.aws import kinds
from support.cli import Cli
from support.hypervisor import Hypervisor, Power, Wanted
from support.moto_rig import Moto

POWERS = {
    "pending": Power.ON,
    "running": Power.ON,
    "stopping": Power.OFF,
    "stopped": Power.OFF,
    "shutting-down": Power.GONE,
    "terminated": Power.GONE,
}


class AwsCloud:
    """The instances of one region."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto
        self._ec2: Any = moto.client()

    def wanted(self) -> Sequence[Wanted]:
        addresses = {
            row["InstanceId"]: row["PublicIp"]
            for row in self._ec2.describe_addresses()["Addresses"]
            if row.get("InstanceId")
        }
        reservations = self._ec2.describe_instances()["Reservations"]
        return [self._wanted(row, addresses) for group in reservations for row in group["Instances"]]

    def printed(self, identity: str, text: str) -> None:
        self._moto.proxy.consoles[identity] = text.encode()

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


OFF = ("StopInstances", "TerminateInstances")


class AwsTenancy:
    """See `support.tenancy.CloudRig`."""

    words = ("--cloud", "aws")
    # The node's own, as there is no name.
    issuer = "Caddy Local Authority"
    boot_log = "Unable to locate package no-such-package"

    def __init__(self, moto: Moto) -> None:
        self.moto = moto
        self.machines = AwsCloud(moto)
        self.secrets = (moto.environment["AWS_SECRET_ACCESS_KEY"],)

    def cli(self, home: Path) -> Cli:
        return Cli(home, dict(self.moto.environment))

    def obey(self, hypervisor: Hypervisor) -> None:
        self.moto.proxy.after = lambda action: hypervisor.settle() if action in OFF else None

    def user_data(self, identity: str) -> bytes:
        return self.moto.things().user_data(identity)

    def address(self) -> str:
        return str(self.moto.things().one(kinds.ADDRESS)["PublicIp"])

    def name(self) -> str:
        return self.address()

    def said(self) -> str:
        return json.dumps([dict(call.params) for call in self.moto.proxy.calls])

    def marked(self) -> Sequence[str]:
        return [title for title, _ in self.moto.things().marked()]

    def stop(self, identity: str) -> None:
        self.moto.client().stop_instances(InstanceIds=[identity])

    def delete(self, identity: str) -> None:
        self.moto.client().terminate_instances(InstanceIds=[identity])


@contextmanager
def aws_tenancy(folder: Path, _cache: Path) -> Iterator[AwsTenancy]:
    """On a moto's server of its own."""
    with Moto(folder) as moto:
        yield AwsTenancy(moto)
