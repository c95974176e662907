"""The names of a node's resources on AWS, their common inputs, and the exported facts. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gridup_infra.spec import DeploySpec
from gridup_infra.spec import urn as any_urn
from gridup_infra.vm.node import MACHINE

DEFAULT_SIZE = "t3.large"
"""2 vCPUs and 8 GB: the node and JupyterLab take 1 GB, the rest is for users' data."""

DEFAULT_DISK = 64
DISK_MAX = 16384
"""The largest gp3 volume, in GB (EBS User Guide, "General Purpose SSD volumes")."""

ROOT_GB = 24
"""GB for Debian, Docker, and two versions of the node's image at the same time."""

SHARES = re.compile(r"t[2-4][a-z]*\.")
"""Sizes with CPU credits (EC2 User Guide, "Burstable performance instances")."""

DEVICE = "/dev/sdf"
"""The device name in the attach call. Inside the machine the disk has other names, see `disk_paths`."""


def name_prefix(spec: DeploySpec) -> str:
    """Return the tag `Name` of all resources of a node, which also names its security group and key pair."""
    return f"gridup-{spec.stack}-{spec.stack_id[:8]}"


def common(spec: DeploySpec) -> dict[str, Any]:
    """Return the inputs that all resources of a node share."""
    return {
        "region": spec.region,
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "project": name_prefix(spec),
    }


def has_credits(size: str) -> bool:
    """Return whether a size has CPU credits, and so a choice of what happens when they are used up."""
    return bool(SHARES.match(size))


def credits_input(spec: DeploySpec) -> dict[str, str]:
    """Return the instance's input for CPU credits; empty for a size without credits."""
    return {"cpu_credits": spec.cpu_credits} if spec.cpu_credits else {}


def disk_paths(volume: str) -> tuple[str, ...]:
    """Return the paths at which the machine may find the volume `vol-…`, the likeliest first.

    On Nitro it is an NVMe disk. Its serial number is the volume's id without the hyphen. Older kinds of
    instances use Xen's names (EC2 User Guide, "Device names for volumes").
    """
    return (
        f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}",
        "/dev/xvdf",
        DEVICE,
    )


def facts(spec: DeploySpec, known: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts by which the target finds the node again."""
    return {
        "region": spec.region,
        "account": str(known["account"]),
        MACHINE: str(known["instance"]),
        "volume": str(known["volume"]),
        "zone": str(known["zone"]),
        "group": str(known["group"]),
        "allocation": str(known.get("allocation") or ""),
    }


ANY_VOLUME = "vol-00000000000000000"
"""A placeholder for the id of a data disk that is not known yet; as long as a real id."""


def urn(stack: str, kind: str, name: str) -> str:
    """Return the URN of one of Gridup's AWS resources."""
    return any_urn(stack, f"pulumi-python:dynamic/gridup-aws:{kind}", name)


def volume_urn(stack: str) -> str:
    """Return the URN of a stack's data disk."""
    return urn(stack, "Volume", "volume")
