"""The ssh logins of the machine's user. Sent to the machine, so standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("sshd", "sshd-session")
"""The kernel's names of the programs that serve a login. One process of each login runs as the user."""


@dataclass(frozen=True)
class Process:
    """A process on the machine."""

    pid: int
    parent: int
    name: str
    uid: int


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Return all processes by their pid."""
    found = {}
    for path in proc.iterdir():
        # A process may end while it is read.
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(path.name)
            # The name is in brackets and may contain any character.
            head, _, rest = (path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            name = head.partition("(")[2]
            found[pid] = Process(pid, int(rest.split()[1]), name, path.stat().st_uid)
    return found


def others(known: dict[int, Process], pid: int, uid: int) -> list[int]:
    """Return the processes of a user's logins, with the children that did not detach. The login that `pid`
    belongs to is left out.
    """
    own = set()
    while pid in known:
        own.add(pid)
        pid = known[pid].parent
    ending = {one.pid for one in known.values() if one.name in PROGRAMS and one.uid == uid} - own
    while more := {one.pid for one in known.values() if one.parent in ending} - ending - own:
        ending |= more
    return sorted(one for one in ending if known[one].uid == uid)


def end_others() -> None:
    """End the logins of this program's user, except its own. Do nothing as root, who owns sshd itself."""
    if os.getuid() == 0:
        return
    for pid in others(processes(), os.getpid(), os.getuid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
