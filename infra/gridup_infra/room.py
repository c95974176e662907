"""Checks that each disk of this machine has room for everything that will be written to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAKE_ROOM = "Free some space (`gridup prune` removes what no node uses), or set GRIDUP_HOME to another disk."


@dataclass(frozen=True)
class Need:
    """Data that will be written.

    Attributes:
        what: its name, as a part of a sentence.
        size: its size in bytes.
        folder: the folder it is written to; it may not exist yet.
    """

    what: str
    size: int
    folder: Path


def lacking(needs: Iterable[Need]) -> str:
    """Return a sentence about the first disk that has too little room; empty if all disks have enough."""
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
    """Return the number of free bytes on a folder's disk. The folder may not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def total(needs: Iterable[Need]) -> int:
    """Return the sum of the sizes, in bytes."""
    return sum(need.size for need in needs)


def disk(folder: Path) -> int:
    """Return the id of a folder's file system. The folder may not exist yet."""
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
