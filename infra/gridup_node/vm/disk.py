"""The data disk: found by its id, formatted only when blank, grown with its device, and mounted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from gridup_node.vm.machine import MOUNT, UNIT, Failed, Machine, last_lines

FS_LABEL = "gridup-data"
"""The label that tells a data disk of ours. ext4 allows 16 characters."""

BLANK_BYTES = 1 << 20
FORMAT_SECONDS = 600.0
MOUNT_SECONDS = 120.0

GROUP_BYTES = 128 << 20
"""By which ext4 grows; less is left over."""

DAMAGED = 4
"""The least of e2fsck's exit codes that says that errors are left."""


def ensure_disk(machine: Machine) -> None:
    """The data disk at `MOUNT`; the machine goes no further without it, now and at every later boot."""
    device = wait_for_disk(machine)
    uuid = ensure_filesystem(machine, device)
    fstab = machine.path("/etc/fstab")
    before = fstab.read_text(encoding="utf-8") if fstab.exists() else ""
    after = fstab_with(before, uuid)
    # At a later boot systemd may be checking and mounting it at this very moment: that is left to it then.
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
        # The kernel does it while the node works.
        machine.check_run("resize2fs", device, timeout=FORMAT_SECONDS)


def wait_for_disk(machine: Machine) -> str:
    """The data disk's device, as soon as it is there: a cloud may attach it when the machine runs already.

    Raises:
        Failed: it did not appear in time, or the patterns mean several.
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
    """The block devices that the first pattern to match anything means."""
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
    """The UUID of the file system on the data disk, which is made where the disk is blank and only there.

    Raises:
        Failed: the disk holds something that is not ours.
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
    """What blkid reads on the disk itself, by its names; empty for nothing.

    Raises:
        Failed: it can't be read, or there are signatures of several kinds.
    """
    code, text = machine.run("blkid", "--probe", "--output", "export", device)
    if code not in (0, 2):
        why = "signatures of several kinds" if code == 8 else last_lines(text)
        raise Failed(f"can't tell what is on {device}, so it is left alone: {why}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line) if code == 0 else {}


def describe_foreign(found: dict[str, str]) -> str:
    """What a disk holds that is not ours; empty for our own file system."""
    if kind := found.get("PTTYPE"):
        return f"a partition table ({kind})"
    label = found.get("LABEL", "")
    if found.get("TYPE") == "ext4" and label == FS_LABEL and found.get("UUID"):
        return ""
    return f"a file system ({found.get('TYPE', 'unknown')}{f', label {label}' * bool(label)})"


def blank(device: Path) -> bool:
    """Whether nothing but zeros is where every file system has its head."""
    with device.open("rb") as file:
        return not any(file.read(BLANK_BYTES))


def can_grow(device: str) -> bool:
    """Whether the device was made larger than its file system by as much as that can use."""
    return size(Path(device)) - fs_size(Path(device)) >= GROUP_BYTES


def size(device: Path) -> int:
    """Of a device, in bytes."""
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def fs_size(device: Path) -> int:
    """Of the ext4 file system on a device, in bytes, as its superblock has it."""
    with device.open("rb") as file:
        file.seek(1024)
        block = file.read(1024)
    low, log, high = (int.from_bytes(block[at : at + 4], "little") for at in (4, 24, 336))
    return (low + (high << 32)) << (10 + log)


def check(machine: Machine, device: str) -> None:
    """Mend a file system that is not mounted, and grow it to the size of its device.

    Raises:
        Failed: it has errors that a person must decide on, or resize2fs failed.
    """
    larger = can_grow(device)
    # resize2fs wants even what is marked as clean to be looked through.
    code, text = machine.run("e2fsck", "-fp" if larger else "-p", device, timeout=FORMAT_SECONDS)
    if code >= DAMAGED:
        raise Failed(
            f"the file system on {device} is damaged, run `sudo e2fsck {device}`: {last_lines(text)}"
        )
    if larger:
        machine.check_run("resize2fs", device, timeout=FORMAT_SECONDS)


def mount(machine: Machine) -> None:
    """Have it mounted as fstab says, by us or by systemd, whose check of it may be under way.

    Raises:
        Failed: it could not be mounted in time.
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
    """Make the mount point one that nothing, not even root, can write to while no disk is mounted there."""
    point.parent.mkdir(parents=True, exist_ok=True)
    point.mkdir(mode=0o000, exist_ok=True)
    if any(point.iterdir()):
        raise Failed(f"{MOUNT} holds files on the root disk, which the data disk would hide: move them away")
    if stat.S_IMODE(point.stat().st_mode):
        point.chmod(0o000)
    # A root file system without this attribute has the service's conditions alone.
    machine.run("chattr", "+i", str(point))


def fstab_with(text: str, uuid: str) -> str:
    """A file system table in which `MOUNT` is the file system `uuid`; all other lines stay as they are.

    `nofail` lets a machine whose disk is gone come up as far as ssh. Docker then does not start, see
    `lay_docker`. Our own program, which comes after systemd's attempt, waits for a late disk for longer.
    """
    line = f"UUID={uuid} {MOUNT} ext4 defaults,nofail,nodev,nosuid,x-systemd.device-timeout=20s 0 2"
    rows = text.splitlines()
    kept = [row for row in rows if row.lstrip().startswith("#") or MOUNT not in row.split()[1:2]]
    if line in rows and len(kept) == len(rows) - 1:
        return text
    return "".join(f"{row}\n" for row in (*kept, line))
