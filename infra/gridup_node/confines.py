"""How a container of the node is shut in: its user, what it may write to, its share of the machine, its log.

Standard library only: the deployer asks it for a Docker daemon, a VM's own program for compose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMAGE_UID = 10001
"""Of the user in the node's image that its programs run as."""

MACHINE_UID = 10002
"""Of the one that they run as on a machine of the node's own: 10001 is there who may use sudo."""

LEAST_MEMORY = 256 << 20
"""Bytes that no container gets less of, however small the machine is: what Python needs to start."""

LOG_DRIVER = "json-file"
LOG_LIMITS: Mapping[str, str] = {"max-size": "10m", "max-file": "3"}

BRIDGE = "gridup-"
"""Begins the names of a node's network bridges on a machine of its own, by which rules find them."""

NOWHERE = "127.0.0.1"
"""The name server of a container without a way out: none, for it could tell a real one by its questions."""

SHARE = "x-share"
"""The key of a compose file, which compose itself ignores, of a container's share of the machine."""


def writable(uid: int) -> dict[str, str]:
    """What a container may write to beside the node's data, each path with its options: gone when it stops.

    It all counts as the container's memory. Only what people install for themselves may be run from there.
    """
    own = f"nosuid,nodev,mode=0700,uid={uid},gid={uid}"
    return {
        "/tmp": "rw,noexec,nosuid,nodev,size=512m,mode=1777",  # noqa: S108 - the container's own
        "/srv/node": f"rw,noexec,{own},size=64m",
        "/home/gridup": f"rw,exec,{own},size=512m",
    }


def limits(share: Mapping[str, float], machine: Mapping[str, Any]) -> dict[str, Any]:
    """A container's limits on one machine, by compose's names for them.

    Args:
        share: `memory` and `cpus`, as fractions of the machine's, and `pids`.
        machine: what `docker info` tells. A limit that its kernel can't keep is left out: Docker would refuse
            or ignore it.
    """
    made: dict[str, Any] = {}
    if machine.get("MemoryLimit") and (total := int(machine.get("MemTotal", 0))):
        made["mem_limit"] = min(max(int(total * share["memory"]), LEAST_MEMORY), total)
        if machine.get("SwapLimit"):
            # No swap beside it.
            made["memswap_limit"] = made["mem_limit"]
    if machine.get("CpuCfsQuota") and (count := int(machine.get("NCPU", 0))):
        made["cpus"] = round(count * share["cpus"], 2)
    if machine.get("PidsLimit"):
        made["pids_limit"] = int(share["pids"])
    return made


INSPECTED: Mapping[str, tuple[str, float]] = {
    "mem_limit": ("Memory", 1),
    "memswap_limit": ("MemorySwap", 1),
    "cpus": ("NanoCpus", 1e9),
    "pids_limit": ("PidsLimit", 1),
}
"""Where `docker inspect` has each of them in a container's HostConfig, and in which part of its unit."""

SLACK = 0.02
"""By which a limit may differ from what it should be: another kernel leaves a machine a bit more memory."""


def altered(wanted: Mapping[str, Any], host: Mapping[str, Any]) -> bool:
    """Whether a container has other limits than those.

    Args:
        wanted: what `limits` tells of the machine as it is now.
        host: the container's HostConfig.
    """
    for name, value in wanted.items():
        key, unit = INSPECTED[name]
        if abs(int(host.get(key) or 0) - value * unit) > value * unit * SLACK:
            return True
    return False
