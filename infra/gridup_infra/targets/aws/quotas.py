"""How many vCPUs an account may run: each class of sizes has its own quota.

The codes come from "On-Demand Instance quotas" in Amazon's guide
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gridup_infra.targets.aws import client, kinds
from gridup_infra.targets.aws.client import Cloud
from gridup_infra.targets.aws.kinds import Thing


@dataclass(frozen=True)
class Quota:
    """The vCPU quota of a class of sizes.

    Attributes:
        code: its code in Service Quotas.
        name: Amazon's name of the class.
        families: the letters that the names of its sizes begin with.
    """

    code: str
    name: str
    families: tuple[str, ...]


QUOTAS = (
    Quota(
        "L-1216C47A",
        "Standard",
        # The families im and is are storage sizes of the family I.
        ("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"),
    ),
    Quota("L-DB2E81BA", "G and VT", ("g", "gr", "vt")),
    Quota("L-417A185B", "P", ("p",)),
    Quota("L-7295265B", "X", ("x",)),
    Quota("L-74FC7D96", "F", ("f",)),
    Quota("L-1945791B", "Inf", ("inf",)),
    Quota("L-2C3B7624", "Trn", ("trn",)),
    Quota("L-6E869C2A", "DL", ("dl",)),
    Quota("L-F7808C92", "HPC", ("hpc",)),
    Quota("L-43DA4232", "High Memory", ("u",)),
)

_FAMILY = re.compile(r"[a-z]+")


def quota_of(size: str) -> Quota | None:
    """Return the quota that a size such as `g5.xlarge` counts against; None if it is not known."""
    found = _FAMILY.match(size)
    return next((quota for quota in QUOTAS if found and found[0] in quota.families), None)


def limit(region: str, quota: Quota) -> float:
    """Return how many vCPUs the account may run.

    Raises:
        ClientError: AWS does not report it.
    """
    quotas = client.client("service-quotas", region, once=True)
    answer = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=quota.code)
    return float(answer["Quota"]["Value"])


def in_use(cloud: Cloud, quota: Quota) -> float:
    """Return the vCPUs of the running instances that count against a quota."""
    filters = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    return vcpus(kinds.list_all(cloud, kinds.INSTANCE, filters), quota)


def vcpus(machines: Iterable[Thing], quota: Quota) -> int:
    """Return the vCPUs of those `machines` that count against a quota.

    Instances that are not On-Demand have other quotas and do not count.
    """
    return sum(
        _cores(row)
        for row in machines
        if quota_of(row["InstanceType"]) is quota and not row.get("InstanceLifecycle")
    )


def _cores(machine: Thing) -> int:
    cores = machine.get("CpuOptions") or {}
    return int(cores.get("CoreCount", 0)) * int(cores.get("ThreadsPerCore", 1))
