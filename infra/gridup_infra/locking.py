"""Locks between processes of one machine. The kernel holds them, so a killed process leaves no lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gridup_infra.errors import BusyError
from gridup_infra.paths import ensure_private

LOOK_SECONDS = 0.2
"""The minimum wait for a lock. A process that only checks whether the lock is held holds it for a moment."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        operation: what the process does, such as "a deploy".
        pid: its process id.
        since: when it took the lock, in seconds since the epoch.
        about: what the operation works on, such as a node's name.
        host: the machine that the process runs on, by its own report; set only if it may be another machine.
            Then it is unknown whether the process still runs.
    """

    operation: str
    pid: int
    since: float
    about: str = ""
    host: str = ""

    def describe(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S" if self.host else "%H:%M:%S", time.localtime(self.since))
        return f"{self.operation} by process {self.pid}{f' on {self.host}' if self.host else ''} since {at}"


@contextlib.contextmanager
def locked(path: Path, what: str, *, wait: float, busy: str, about: str = "") -> Iterator[None]:
    """Hold an exclusive lock on `path`.

    Args:
        what: what the holder does; shown to other processes that want the lock.
        about: what the operation works on, such as a node's name.
        wait: seconds to wait for another holder.
        busy: the start of the error's message, such as "Inst is busy".

    Raises:
        BusyError: another process held the lock during the whole wait.
    """
    fd = _acquire(path, time.monotonic() + max(wait, LOOK_SECONDS), busy)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps([what, os.getpid(), time.time(), about]).encode(), 0)
        yield
    finally:
        os.close(fd)


def leave_no_folder(path: Path) -> None:
    """Remove the file of a lock that this process holds, and its folder, if the folder has nothing else."""
    with contextlib.suppress(OSError):
        if [found.name for found in path.parent.iterdir()] == [path.name]:
            path.unlink()
            path.parent.rmdir()


def holder(path: Path) -> Holder | None:
    """Return who holds a lock now; None if nobody does. Creates no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(fd) or Holder("another run", 0, time.time())
    finally:
        os.close(fd)
    return None


def _acquire(path: Path, end: float, busy: str) -> int:
    while True:
        try:
            ensure_private(path.parent)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if time.monotonic() >= end:
                raise
            continue  # A destroy deleted the folder in between.
        try:
            _wait(fd, end, busy)
        except BaseException:
            os.close(fd)
            raise
        if _is(path, fd):
            return fd
        # The last holder removed the file, as a destroy does. Other processes will open a new file, so the
        # lock on this one is useless.
        os.close(fd)


def _wait(fd: int, end: float, busy: str) -> None:
    while not _try(fd):
        if time.monotonic() >= end:
            other = _holder(fd)
            detail = f": {other.describe()}" if other else ""
            raise BusyError(f"{busy}{detail}.", "Wait for it to end, or give --wait-lock SECONDS.")
        time.sleep(0.05)


def _is(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> Holder | None:
    try:
        what, pid, since, *about = json.loads(os.pread(fd, 4096, 0))
        return Holder(str(what), int(pid), float(since), *map(str, about[:1]))
    except (ValueError, TypeError):
        return None
