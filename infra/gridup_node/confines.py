"""The restrictions of a node's container: its user, its writable paths, its resource limits, its log.

Standard library only: the deployer uses this module for a Docker daemon, a container host's own program for
compose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMAGE_UID = 10001
"""The user in the node's image as which the programs run."""

MACHINE_UID = 10002
"""The user as which the programs run on a container host: there 10001 is the user who may use sudo."""

LEAST_MEMORY = 256 << 20
"""The smallest memory limit of a container, in bytes, on any machine: Python needs this much to start."""

LOG_DRIVER = "json-file"
LOG_LIMITS: Mapping[str, str] = {"max-size": "10m", "max-file": "3"}

BRIDGE = "gridup-"
"""The prefix of the names of a node's network bridges on a container host. Firewall rules match it."""

NOWHERE = "127.0.0.1"
"""The name server of a container without outbound access. No real one: DNS queries could leak data."""

SHARE = "x-share"
"""The key in a compose file for a container's share of the machine. Compose itself ignores this key."""


def writable(uid: int) -> dict[str, str]:
    """Return {path: mount options} of the paths that a container may write to in addition to the node's data.

    Their content is lost when the container stops, and counts as the container's memory. Only the home
    folder allows running programs, so that users can install their own.
    """
    own = f"nosuid,nodev,mode=0700,uid={uid},gid={uid}"
    return {
        "/tmp": "rw,noexec,nosuid,nodev,size=512m,mode=1777",  # noqa: S108 - the container's own
        "/srv/node": f"rw,noexec,{own},size=64m",
        "/home/gridup": f"rw,exec,{own},size=512m",
    }


def limits(share: Mapping[str, float], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container's limits on one machine, by compose's names for them.

    Args:
        share: `memory` and `cpus`, as fractions of the machine's, and `pids`.
        machine: the output of `docker info`. The result omits a limit that the machine's kernel can't
            enforce: Docker would refuse or ignore it.
    """
    made: dict[str, Any] = {}
    if machine.get("MemoryLimit") and (total := int(machine.get("MemTotal", 0))):
        made["mem_limit"] = min(max(int(total * share["memory"]), LEAST_MEMORY), total)
        if machine.get("SwapLimit"):
            # This allows no swap.
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
"""For each limit, its key in the HostConfig of `docker inspect`, and the factor to the unit used there."""

SLACK = 0.02
"""The fraction by which a limit may differ: another kernel may leave the machine a bit more memory."""


def altered(wanted: Mapping[str, Any], host: Mapping[str, Any]) -> bool:
    """Return whether a container's limits differ from `wanted`.

    Args:
        wanted: the result of `limits` for the machine as it is now.
        host: the container's HostConfig.
    """
    for name, value in wanted.items():
        key, unit = INSPECTED[name]
        if abs(int(host.get(key) or 0) - value * unit) > value * unit * SLACK:
            return True
    return False
