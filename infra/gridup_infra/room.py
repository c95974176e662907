"""Whether this machine's disks have room for what is about to be written: each for all that lands on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAKE_ROOM = "Free some space (`gridup prune` removes what no node uses), or set GRIDUP_HOME to another disk."


@dataclass(frozen=True)
class Need:
    """Something that will be written.

    Attributes:
        what: it is, within a sentence.
        size: bytes.
        folder: where; it may not be there yet.
    """

    what: str
    size: int
    folder: Path


def lacking(needs: Iterable[Need]) -> str:
    """What is too large for the disk that it lands on, as a sentence; empty where there is room for all."""
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(disk(need.folder), []).append(need)
    for landing in disks.values():
        there = _existing(landing[0].folder)
        free, needed = free_at(there), total(landing)
        if free < needed:
            what = " and ".join(need.what for need in landing)
            verb = "needs" if len(landing) == 1 else "need"
            return f"{there} has only {free / 1e9:.1f} GB free; {what} {verb} {needed / 1e9:.1f} GB."
    return ""


def free_at(folder: Path) -> int:
    """Bytes that are free on the disk that a folder lands on."""
    return shutil.disk_usage(_existing(folder)).free


def total(needs: Iterable[Need]) -> int:
    """Bytes."""
    return sum(need.size for need in needs)


def disk(folder: Path) -> int:
    """What tells one file system from another."""
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
