"""Find and end the processes of a node on this machine, by their ownership mark."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

STACK_ID = "GRIDUP_STACK_ID"
"""The environment variable that every process of a node inherits."""


def find(stack_id: str, folder: Path) -> list[psutil.Process]:
    """Return the live processes of one node, with all their descendants.

    OpenSSH overwrites its environment with its process title. So sshd is known by its configuration file.
    """
    import psutil

    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _marked(process, stack_id, folder):
            found[process.pid] = process
            with contextlib.suppress(psutil.Error):
                found.update({child.pid: child for child in process.children(recursive=True)})
    return [process for process in found.values() if process.pid != os.getpid() and _alive(process)]


def end(processes: Iterable[psutil.Process], *, grace: float) -> list[psutil.Process]:
    """Terminate processes, and kill those that still live after `grace` seconds. Returns the survivors."""
    import psutil

    waiting = list(processes)
    for process in waiting:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(waiting, timeout=grace)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, alive = psutil.wait_procs(alive, timeout=5)
    return [process for process in alive if _alive(process)]


def of(pids: Iterable[int]) -> list[psutil.Process]:
    """Return the existing processes with these process ids. Skips 0, which means no process."""
    import psutil

    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [psutil.Process(pid)] if pid else []
    return found


def started(pid: int) -> list[psutil.Process]:
    """Return all descendants of a process; none for 0, which means no process."""
    import psutil

    found = []
    for process in of([pid]):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.children(recursive=True)
    return found


def _marked(process: psutil.Process, stack_id: str, folder: Path) -> bool:
    import psutil

    try:
        with process.oneshot():
            if process.uids().real != os.getuid():
                return False
            if process.name() == "sshd":
                return str(folder / "config" / "sshd_config") in " ".join(process.cmdline())
            return process.environ().get(STACK_ID) == stack_id
    except (psutil.Error, OSError):
        return False


def _alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
