"""Locks between processes of one machine: held by the kernel, so a killed holder leaves none behind."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gridup_infra.errors import BusyError
from gridup_infra.paths import ensure_private


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: what it does, its process id, and since when (seconds since the epoch)."""

    what: str
    pid: int
    since: float

    def describe(self) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.what} by process {self.pid} since {at}"


@contextmanager
def locked(path: Path, what: str, *, wait: float, busy: str) -> Iterator[None]:
    """Hold `path` exclusively.

    Args:
        what: what the holder does, for those who meet the lock.
        wait: seconds to wait for another holder.
        busy: the start of the error's message, such as "Inst is busy".

    Raises:
        BusyError: another process held it all that time.
    """
    fd = _acquire(path, time.monotonic() + wait, busy)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps([what, os.getpid(), time.time()]).encode(), 0)
        yield
    finally:
        os.close(fd)


def _acquire(path: Path, end: float, busy: str) -> int:
    while True:
        ensure_private(path.parent)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
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
            holder = _holder(fd)
            detail = f": {holder.describe()}" if holder else ""
            raise BusyError(f"{busy}{detail}.", "Wait for it to end, or give --wait-lock SECONDS.")
        time.sleep(0.1)


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
        what, pid, since = json.loads(os.pread(fd, 4096, 0))
        return Holder(str(what), int(pid), float(since))
    except ValueError:
        return None
