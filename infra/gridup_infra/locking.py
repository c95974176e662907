"""Locks between processes of one machine: held by the kernel, so a killed holder leaves none behind."""

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
"""That a lock is waited for in any case: who only looks whether it is held has it for a moment."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: what it does and about what, its process id, since when (seconds since the epoch).

    Attributes:
        host: the machine that it says it runs on, where that may be another; then nobody knows whether it
            still does.
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
    """Hold `path` exclusively.

    Args:
        what: what the holder does, for those who meet the lock.
        about: what it does that to, such as a node's name.
        wait: seconds to wait for another holder.
        busy: the start of the error's message, such as "Inst is busy".

    Raises:
        BusyError: another process held it all that time.
    """
    fd = _acquire(path, time.monotonic() + max(wait, LOOK_SECONDS), busy)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps([what, os.getpid(), time.time(), about]).encode(), 0)
        yield
    finally:
        os.close(fd)


def leave_no_folder(path: Path) -> None:
    """Remove a lock that is held, and its folder, where there is nothing else in it."""
    with contextlib.suppress(OSError):
        if [found.name for found in path.parent.iterdir()] == [path.name]:
            path.unlink()
            path.parent.rmdir()


def holder(path: Path) -> Holder | None:
    """Who holds a lock just now; None where nobody does. It makes no file."""
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
            continue  # A destroy took the folder away in between.
        try:
            _wait(fd, end, busy)
        except BaseException:
            os.close(fd)
            raise
        if _is(path, fd):
            return fd
        # The last holder removed the file, as a destroy does: what we hold is not what others will open.
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
