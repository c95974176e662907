"""Whether the holder of an engine's lock lives.

The engine notes the holder's process id and host name alone, and a process id means another process in
another PID namespace (a container, WSL). So each engine of ours leaves a note of where it runs, an empty file
named `PID.BOOT.NAMESPACE` in its stack's folder, for as long as it runs. A lock is broken only where its
holder is known to be dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gridup.settings import ORGANIZATION
from gridup_infra.processes import PROC, boot
from gridup_infra.spec import PROJECT

INITIAL = "4026531836"
"""The number of Linux's first PID namespace (include/uapi/linux/nsfs.h), which sees the processes of all."""

FOLDER = "engines"


@dataclass(frozen=True)
class Lock:
    """One, as the engine wrote it.

    Attributes:
        since: seconds since the epoch.
    """

    path: Path
    pid: int
    hostname: str
    since: float = 0.0


def folder_of(root: Path, stack: str) -> Path:
    """Where the file backend below `root` has the locks of a stack."""
    return root / ".pulumi" / "locks" / ORGANIZATION / PROJECT / stack


def held(root: Path | None, stack: str) -> Iterator[Lock]:
    """The locks of a stack; none where the backend is no folder.

    Args:
        root: the backend's folder.
    """
    if root is None:
        return
    for path in folder_of(root, stack).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            yield Lock(path, int(content["pid"]), content["hostname"], path.stat().st_mtime)


def namespace(proc: Path = PROC) -> str:
    """The number of this process's PID namespace; empty where a system has none."""
    try:
        return str((proc / "self" / "ns" / "pid").readlink()).strip("pid:[]")
    except OSError:
        return ""


@contextlib.contextmanager
def noted(folder: Path, pid: int, proc: Path = PROC) -> Iterator[None]:
    """Note that an engine runs here, for as long as it does. One that is killed leaves its note.

    Args:
        folder: of its stack.
    """
    note = folder / FOLDER / f"{pid}.{boot(proc)}.{namespace(proc)}"
    # Without the note a lock is respected: no reason to fail.
    with contextlib.suppress(OSError):
        note.parent.mkdir(mode=0o700, exist_ok=True)
        note.touch(mode=0o600)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()


def is_dead(lock: Lock, folder: Path, proc: Path = PROC) -> bool:
    """Whether the lock's holder is known not to live any more.

    Args:
        folder: of the lock's stack.
    """
    if lock.hostname != socket.gethostname():
        return False
    here = (boot(proc), namespace(proc))
    notes = [tuple(note.name.split(".")[1:]) for note in (folder / FOLDER).glob(f"{lock.pid}.*")]
    if here in notes or not here[1]:
        return _has_ended(lock.pid)
    if here[1] == INITIAL:
        return not _lives_somewhere(lock.pid, proc)
    # In another namespace of this boot it may live; an earlier boot's processes are all gone.
    return bool(notes) and all(booted and booted != here[0] for booted, _ in notes)


def forget(lock: Lock, folder: Path) -> None:
    """Remove a lock and the notes of its holder."""
    lock.path.unlink(missing_ok=True)
    for note in (folder / FOLDER).glob(f"{lock.pid}.*"):
        note.unlink(missing_ok=True)


def _has_ended(pid: int) -> bool:
    import psutil

    try:
        holder = psutil.Process(pid)
        # One that was killed a moment ago may not have been buried yet.
        return "pulumi" not in holder.name() or holder.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _lives_somewhere(pid: int, proc: Path) -> bool:
    """Whether an engine has that process id, in whatever namespace below this one (proc(5), `NSpid`)."""
    for name in os.listdir(proc):  # noqa: PTH208 - thousands of entries
        if not name.isdecimal():
            continue
        try:
            text = (proc / name / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        told = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        is_engine = "pulumi" in told.get("Name", "") and not told.get("State", "").strip().startswith("Z")
        if is_engine and str(pid) in told.get("NSpid", name).split():
            return True
    return False
