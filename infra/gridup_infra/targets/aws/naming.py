"""What a node on AWS is called, what its resources share, and what it exports. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gridup_infra.spec import DeploySpec
from gridup_infra.spec import urn as any_urn
from gridup_infra.vm.node import MACHINE

DEFAULT_SIZE = "t3.large"
"""2 vCPUs and 8 GB: the node and JupyterLab take 1 GB, the rest is for people's data."""

DEFAULT_DISK = 64
DISK_MAX = 16384
"""GB of a gp3 volume (EBS User Guide, "General Purpose SSD volumes")."""

ROOT_GB = 24
"""Debian, Docker, and two versions of the node's image beside each other."""

SHARES = re.compile(r"t[2-4][a-z]*\.")
"""Sizes whose processor is used by credits (EC2 User Guide, "Burstable performance instances")."""

DEVICE = "/dev/sdf"
"""What the attaching call names; within the machine the disk has other names, see `disk_paths`."""


def name_prefix(spec: DeploySpec) -> str:
    """The `Name` of all of a node's things, and of its security group and key pair."""
    return f"gridup-{spec.stack}-{spec.stack_id[:8]}"


def common(spec: DeploySpec) -> dict[str, Any]:
    """The inputs that all resources of a node share."""
    return {
        "region": spec.region,
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "project": name_prefix(spec),
    }


def has_credits(size: str) -> bool:
    """Whether a size has CPU credits, and with them a choice of what comes after they are used up."""
    return bool(SHARES.match(size))


def credits_input(spec: DeploySpec) -> dict[str, str]:
    """The instance's input of its CPU credits; none for a size that has none."""
    return {"cpu_credits": spec.cpu_credits} if spec.cpu_credits else {}


def disk_paths(volume: str) -> tuple[str, ...]:
    """Where the machine finds the volume `vol-…`, the likeliest first.

    On Nitro it is an NVMe disk whose serial number is the volume's id without its hyphen; older kinds of
    machines have Xen's names (EC2 User Guide, "Device names for volumes").
    """
    return (
        f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}",
        "/dev/xvdf",
        DEVICE,
    )


def facts(spec: DeploySpec, known: Mapping[str, Any]) -> dict[str, str]:
    """What the target finds the node by again."""
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
"""Stands for a data disk that is not known yet; as long as a real one."""


def urn(stack: str, kind: str, name: str) -> str:
    """The URN of one of our resources."""
    return any_urn(stack, f"pulumi-python:dynamic/gridup-aws:{kind}", name)


def volume_urn(stack: str) -> str:
    """The URN of a stack's data disk."""
    return urn(stack, "Volume", "volume")
