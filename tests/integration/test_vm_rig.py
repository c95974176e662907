"""The rig itself: machines keep out of each other's way, and whatever a run leaves is removed by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from gridup_infra.processes import run, wait_until
from support.vm_rig import Machine, Rig

pytestmark = [pytest.mark.tier("deep", proves=("vm_rig", "vm_network", "vm_image")), pytest.mark.vm]

TESTS = Path(__file__).parents[1]

KILLED = f"""\
import sys, time
sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent / "infra")!r}]
from pathlib import Path
from support.vm_rig import Rig
with Rig(Path(sys.argv[1])) as rig:
    machine = rig.machine(golden=False)
    machine.boot(b"#cloud-config\\n{{}}\\n", {{"/dev/disk/by-id/one": rig.disk(64)}})
    print(machine.address, machine.root, flush=True)
    time.sleep(600)
"""


def test_machines_run_side_by_side_and_leave_nothing(vm_rig: Rig) -> None:
    machines = [vm_rig.machine(golden=False) for _ in range(2)]
    for machine in machines:
        machine.boot(b"#cloud-config\nruncmd: [[touch, /ran]]\n")
    one, other = machines
    assert one.address != other.address
    for machine in machines:
        assert wait_until(partial(ran, machine), timeout=60, every=0.2)
        assert wait_until(partial(reachable, machine.address), timeout=30, every=0.2)
    for machine in machines:
        root = machine.root
        machine.destroy()
        assert not left(root.parents[1].name + root.parent.name[-2:])


def test_what_a_killed_run_left_is_removed_by_the_next(vm_rig: Rig, cache: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(cache)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout:
        address, root = process.stdout.readline().split()
    tag = Path(root).parents[1].name
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert wait_until(partial(reachable, address), timeout=30, every=0.2)
    assert len(left(tag)) >= 5
    with Rig(cache):
        assert not left(tag)
    # This run's own is not touched.
    vm_rig.disk(1).detach()


def ran(machine: Machine) -> bool:
    """Whether cloud-init did what it was told."""
    return machine.try_run("test", "-e", "/ran").ok


def reachable(address: str) -> bool:
    """Whether its sshd answers."""
    argv = ["ssh-keyscan", "-T", "2", "-t", "ed25519", address]
    return "ssh-ed25519" in run(argv, timeout=30).stdout


def left(tag: str) -> list[str]:
    """Whatever on this machine bears a tag."""
    looks = (
        ("ip", "netns", "list"),
        ("iptables-save",),
        ("losetup", "--list", "--output", "BACK-FILE"),
        ("cat", "/proc/self/mounts"),
        ("ps", "-eo", "args"),
        ("find", "/sys/fs/cgroup", "-maxdepth", "2", "-name", f"{tag}*"),
        ("find", "/run/systemd/nspawn", "-name", f"{tag}*"),
    )
    lines = [line for argv in looks for line in run(argv, timeout=30).stdout.splitlines()]
    return [line for line in lines if tag in line and "find /" not in line]
