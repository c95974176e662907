"""Find the data disk by its id, format it only if it is blank, grow it with its device, and mount it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from gridup_node.vm.machine import MOUNT, UNIT, Failed, Machine, last_lines

FS_LABEL = "gridup-data"
"""The file system label that identifies a data disk of Gridup. ext4 allows 16 characters."""

BLANK_BYTES = 1 << 20
FORMAT_SECONDS = 600.0
MOUNT_SECONDS = 120.0

GROUP_BYTES = 128 << 20
"""The unit by which ext4 grows. A smaller rest of the device stays unused."""

DAMAGED = 4
"""The lowest exit code of e2fsck that means that errors remain."""


def ensure_disk(machine: Machine) -> None:
    """Mount the data disk at `MOUNT`. Without it the machine does not continue, now and at every later boot.

    Raises:
        Failed: the disk is missing, foreign, damaged or can't be mounted.
    """
    device = wait_for_disk(machine)
    uuid = ensure_filesystem(machine, device)
    fstab = machine.path("/etc/fstab")
    before = fstab.read_text(encoding="utf-8") if fstab.exists() else ""
    after = fstab_with(before, uuid)
    # At a later boot systemd may be checking and mounting the disk right now, so leave it to systemd.
    if after != before:
        if not machine.path(MOUNT).is_mount():
            make_immutable(machine, machine.path(MOUNT))
            check(machine, device)
        machine.write("/etc/fstab", after)
        machine.check_run("systemctl", "daemon-reload")
    mount(machine)
    if machine.path(MOUNT).stat().st_dev != os.stat(device).st_rdev:  # noqa: PTH116
        raise Failed(f"another disk than {device} is mounted at {MOUNT}")
    if can_grow(device):
        # The kernel grows the file system while the node works.
        machine.check_run("resize2fs", device, timeout=FORMAT_SECONDS)


def wait_for_disk(machine: Machine) -> str:
    """Return the data disk's device as soon as it exists. A cloud may attach it to a running machine.

    Raises:
        Failed: the disk did not appear in time, or the patterns match several disks.
    """
    patterns, limit = machine.config.disk, machine.config.disk_seconds
    deadline = machine.clock() + limit
    while True:
        found = devices(machine, patterns)
        if len(found) > 1:
            raise Failed(f"which of {' and '.join(found)} is the data disk? All match {' '.join(patterns)}")
        if found:
            return found[0]
        if machine.clock() >= deadline:
            raise Failed(
                f"the data disk did not appear within {limit:g} s: no device matches {' '.join(patterns)}. "
                f"Attach it and restart {UNIT}, or reboot"
            )
        machine.sleep(0.5)


def devices(machine: Machine, patterns: Iterable[str]) -> list[str]:
    """Return the block devices of the first pattern that matches any."""
    for pattern in patterns:
        paths = machine.root.glob(pattern.lstrip("/"))
        whole = {os.path.realpath(path) for path in paths if not re.search(r"-part\d+$", path.name)}
        if found := sorted(path for path in whole if is_block(path)):
            return found
    return []


def is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False


def ensure_filesystem(machine: Machine, device: str) -> str:
    """Return the UUID of the data disk's file system. Create the file system only if the disk is blank.

    Raises:
        Failed: the disk holds data that Gridup did not create.
    """
    found = probe(machine, device)
    if not found:
        if not blank(Path(device)):
            raise Failed(
                f"{device} holds data of no known kind, so it is left alone. "
                f"If none of it is needed, run `sudo wipefs --all {device}`, zero its first MB and reboot"
            )
        machine.log(f"{device} is blank: making a file system")
        machine.check_run("mkfs.ext4", "-q", "-L", FS_LABEL, device, timeout=FORMAT_SECONDS)
        machine.run("udevadm", "settle", "--timeout=30")
        found = probe(machine, device)
    if what := describe_foreign(found):
        raise Failed(
            f"{device} holds {what} that Gridup did not make, so it is left alone. "
            f"If nothing on it is needed, run `sudo wipefs --all {device}`, zero its first MB and reboot"
        )
    return found["UUID"]


def probe(machine: Machine, device: str) -> dict[str, str]:
    """Return what blkid reads from the disk itself, by blkid's names; empty if it finds nothing.

    Raises:
        Failed: the disk can't be read, or has signatures of several kinds.
    """
    code, text = machine.run("blkid", "--probe", "--output", "export", device)
    if code not in (0, 2):
        why = "signatures of several kinds" if code == 8 else last_lines(text)
        raise Failed(f"can't tell what is on {device}, so it is left alone: {why}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line) if code == 0 else {}


def describe_foreign(found: dict[str, str]) -> str:
    """Describe the foreign content of a disk; empty if the disk has Gridup's own file system."""
    if kind := found.get("PTTYPE"):
        return f"a partition table ({kind})"
    label = found.get("LABEL", "")
    if found.get("TYPE") == "ext4" and label == FS_LABEL and found.get("UUID"):
        return ""
    return f"a file system ({found.get('TYPE', 'unknown')}{f', label {label}' * bool(label)})"


def blank(device: Path) -> bool:
    """Return whether the area in which every file system has its header holds only zeros."""
    with device.open("rb") as file:
        return not any(file.read(BLANK_BYTES))


def can_grow(device: str) -> bool:
    """Return whether the device is larger than its file system by at least `GROUP_BYTES`."""
    return size(Path(device)) - fs_size(Path(device)) >= GROUP_BYTES


def size(device: Path) -> int:
    """Return the size of a device in bytes."""
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def fs_size(device: Path) -> int:
    """Return the size in bytes of the ext4 file system on a device, as its superblock states it."""
    with device.open("rb") as file:
        file.seek(1024)
        block = file.read(1024)
    low, log, high = (int.from_bytes(block[at : at + 4], "little") for at in (4, 24, 336))
    return (low + (high << 32)) << (10 + log)


def check(machine: Machine, device: str) -> None:
    """Repair a file system that is not mounted, and grow it to the size of its device.

    Raises:
        Failed: the file system has errors that need a user's decision, or resize2fs failed.
    """
    larger = can_grow(device)
    # resize2fs requires a full check, even of a file system that is marked as clean.
    code, text = machine.run("e2fsck", "-fp" if larger else "-p", device, timeout=FORMAT_SECONDS)
    if code >= DAMAGED:
        raise Failed(
            f"the file system on {device} is damaged, run `sudo e2fsck {device}`: {last_lines(text)}"
        )
    if larger:
        machine.check_run("resize2fs", device, timeout=FORMAT_SECONDS)


def mount(machine: Machine) -> None:
    """Wait until the disk is mounted as fstab defines it. This program or systemd mounts it.

    systemd may still be checking the disk.

    Raises:
        Failed: the disk could not be mounted in time.
    """
    deadline = machine.clock() + MOUNT_SECONDS
    while not machine.path(MOUNT).is_mount():
        code, text = machine.run("mount", MOUNT)
        if code == 0:
            return
        if machine.clock() >= deadline:
            raise Failed(f"the data disk could not be mounted at {MOUNT}: {last_lines(text)}")
        machine.sleep(1)


def make_immutable(machine: Machine, point: Path) -> None:
    """Make the mount point immutable: without a disk mounted there, nobody can write to it, not even root.

    Raises:
        Failed: the mount point holds files on the root disk.
    """
    point.parent.mkdir(parents=True, exist_ok=True)
    point.mkdir(mode=0o000, exist_ok=True)
    if any(point.iterdir()):
        raise Failed(f"{MOUNT} holds files on the root disk, which the data disk would hide: move them away")
    if stat.S_IMODE(point.stat().st_mode):
        point.chmod(0o000)
    # Some root file systems lack this attribute. Then only the conditions of Docker's unit apply.
    machine.run("chattr", "+i", str(point))


def fstab_with(text: str, uuid: str) -> str:
    """Return an fstab that mounts the file system `uuid` at `MOUNT`; all other lines stay as they are.

    `nofail` lets a machine without its disk boot as far as ssh. Docker then does not start, see `lay_docker`.
    This program runs after systemd's attempt to mount, and waits longer for a late disk.
    """
    line = f"UUID={uuid} {MOUNT} ext4 defaults,nofail,nodev,nosuid,x-systemd.device-timeout=20s 0 2"
    rows = text.splitlines()
    kept = [row for row in rows if row.lstrip().startswith("#") or MOUNT not in row.split()[1:2]]
    if line in rows and len(kept) == len(rows) - 1:
        return text
    return "".join(f"{row}\n" for row in (*kept, line))
