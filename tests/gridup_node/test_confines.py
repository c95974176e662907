"""How a container is shut in: its share of machines of all sizes, and where it may write."""

from __future__ import annotations

from typing import Any

import pytest

from gridup_node.confines import LEAST_MEMORY, altered, limits, writable
from gridup_node.services import programs

ABLE = {"MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True, "PidsLimit": True}
SHARE = {"memory": 0.5, "cpus": 0.5, "pids": 64}


def machine(gigabytes: float, cores: int, **able: bool) -> dict[str, Any]:
    return {"MemTotal": int(gigabytes * (1 << 30)), "NCPU": cores, **ABLE, **able}


def test_it_is_a_fraction_of_what_the_machine_has() -> None:
    for gigabytes, cores in ((2, 1), (16, 4), (1024, 128)):
        half = gigabytes * (1 << 29)
        assert limits(SHARE, machine(gigabytes, cores)) == {
            "mem_limit": half,
            "memswap_limit": half,
            "cpus": cores / 2,
            "pids_limit": 64,
        }


def test_on_a_tiny_machine_each_program_can_start_and_none_is_given_what_is_not_there() -> None:
    for row in programs():
        share = {"memory": row.memory, "cpus": row.cpus, "pids": row.pids}
        assert limits(share, machine(0.5, 1))["mem_limit"] >= LEAST_MEMORY
        assert limits(share, machine(0.125, 1))["mem_limit"] == 1 << 27
        assert limits(share, machine(1, 1))["cpus"] >= 0.01, "the least that Docker takes"


@pytest.mark.parametrize(
    ("unable", "missing"),
    [
        ("MemoryLimit", {"mem_limit", "memswap_limit"}),
        ("SwapLimit", {"memswap_limit"}),
        ("CpuCfsQuota", {"cpus"}),
        ("PidsLimit", {"pids_limit"}),
    ],
)
def test_what_a_kernel_cannot_keep_is_left_out(unable: str, missing: set[str]) -> None:
    whole = limits(SHARE, machine(4, 2))
    assert set(whole) - set(limits(SHARE, machine(4, 2, **{unable: False}))) == missing


def test_a_daemon_that_tells_nothing_limits_nothing() -> None:
    assert limits(SHARE, {}) == {}


def test_what_is_written_is_its_users_alone_and_of_bounded_size() -> None:
    made = writable(10002)
    assert set(made) == {"/tmp", "/srv/node", "/home/gridup"}
    for path, options in made.items():
        words = options.split(",")
        assert {"nosuid", "nodev"} <= set(words) and any(word.startswith("size=") for word in words)
        if path != "/tmp":
            assert {"mode=0700", "uid=10002", "gid=10002"} <= set(words)
        assert ("noexec" in words) == (path != "/home/gridup")


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ({}, False),
        ({"Memory": int(1.01 * (1 << 31))}, False),
        ({"Memory": 0}, True),
        ({"Memory": 1 << 30}, True),
        ({"MemorySwap": -1}, True),
        ({"NanoCpus": 0, "CpuQuota": 100_000, "CpuPeriod": 100_000}, True),
        ({"PidsLimit": None}, True),
        ({"PidsLimit": -1}, True),
    ],
)
def test_other_limits_than_its_share_are_seen(host: dict[str, Any], seen: bool) -> None:
    wanted = limits(SHARE, machine(4, 2))
    made = {"Memory": 1 << 31, "MemorySwap": 1 << 31, "NanoCpus": 1_000_000_000, "PidsLimit": 64}
    assert altered(wanted, {**made, **host}) is seen
    assert altered({}, host) is False
