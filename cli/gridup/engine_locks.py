"""Finds out whether the holder of an engine's lock is alive.

The engine's lock has only the holder's process id and host name. But in another PID namespace (a container,
WSL) the same process id means another process. So while one of Gridup's engines runs, a note records where.
The note is an empty file `PID.BOOT.NAMESPACE` in the stack's folder. A lock is removed only if its holder is
known to be dead.
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
"""The number of Linux's initial PID namespace (include/uapi/linux/nsfs.h). It sees the processes of all."""

FOLDER = "engines"


@dataclass(frozen=True)
class Lock:
    """A lock file that an engine wrote.

    Attributes:
        path: the lock file.
        pid: process id of the holder.
        hostname: host name of the holder's machine.
        since: when the file was written, in seconds since the epoch.
    """

    path: Path
    pid: int
    hostname: str
    since: float = 0.0


def folder_of(root: Path, stack: str) -> Path:
    """Return the folder in which the file backend at `root` has the locks of a stack."""
    return root / ".pulumi" / "locks" / ORGANIZATION / PROJECT / stack


def held(root: Path | None, stack: str) -> Iterator[Lock]:
    """Yield the locks of a stack.

    Args:
        root: folder of the file backend; None if the backend is not a folder: then there are no locks.
    """
    if root is None:
        return
    for path in folder_of(root, stack).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            yield Lock(path, int(content["pid"]), content["hostname"], path.stat().st_mtime)


def namespace(proc: Path = PROC) -> str:
    """Return the number of this process's PID namespace; empty if the system has no PID namespaces."""
    try:
        return str((proc / "self" / "ns" / "pid").readlink()).strip("pid:[]")
    except OSError:
        return ""


@contextlib.contextmanager
def noted(folder: Path, pid: int, proc: Path = PROC) -> Iterator[None]:
    """Keep a note that an engine runs here. If Gridup is killed, the note remains.

    Args:
        folder: the folder of the engine's stack.
        pid: the engine's process id.
    """
    note = folder / FOLDER / f"{pid}.{boot(proc)}.{namespace(proc)}"
    # Without a note a lock is kept if in doubt. That is safe, so don't fail.
    with contextlib.suppress(OSError):
        note.parent.mkdir(mode=0o700, exist_ok=True)
        note.touch(mode=0o600)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()


def is_dead(lock: Lock, folder: Path, proc: Path = PROC) -> bool:
    """Return whether the lock's holder is known to be dead.

    Args:
        folder: the folder of the lock's stack.
    """
    if lock.hostname != socket.gethostname():
        return False
    here = (boot(proc), namespace(proc))
    notes = [tuple(note.name.split(".")[1:]) for note in (folder / FOLDER).glob(f"{lock.pid}.*")]
    if here in notes or not here[1]:
        return _has_ended(lock.pid)
    if here[1] == INITIAL:
        return not _lives_somewhere(lock.pid, proc)
    # In another namespace of this boot the holder may be alive. All processes of an earlier boot are gone.
    return bool(notes) and all(booted and booted != here[0] for booted, _ in notes)


def forget(lock: Lock, folder: Path) -> None:
    """Delete a lock and the notes about its holder."""
    lock.path.unlink(missing_ok=True)
    for note in (folder / FOLDER).glob(f"{lock.pid}.*"):
        note.unlink(missing_ok=True)


def _has_ended(pid: int) -> bool:
    import psutil

    try:
        holder = psutil.Process(pid)
        # A process that was killed a moment ago may still be a zombie.
        return "pulumi" not in holder.name() or holder.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _lives_somewhere(pid: int, proc: Path) -> bool:
    """Return whether an engine has this process id in this namespace or one below (proc(5), `NSpid`)."""
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
