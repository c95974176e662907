"""Who is logged in to the machine by ssh as its user. Sent to it: nothing but the standard library."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("sshd", "sshd-session")
"""What serves a login, as the kernel has its name: one of its processes is the user's own."""


@dataclass(frozen=True)
class Process:
    """One process of the machine's."""

    pid: int
    parent: int
    name: str
    uid: int


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """All of them, by their number."""
    found = {}
    for path in proc.iterdir():
        # It may end while it is looked at.
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(path.name)
            # The name stands in brackets, and may hold anything.
            head, _, rest = (path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            name = head.partition("(")[2]
            found[pid] = Process(pid, int(rest.split()[1]), name, path.stat().st_uid)
    return found


def others(known: dict[int, Process], pid: int, uid: int) -> list[int]:
    """The processes of a user's logins, with what was started in them and not let go of; but not of the login
    that `pid` belongs to.
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
    """End the logins of this program's user, but for the one it runs in. Not root's, who has sshd itself."""
    if os.getuid() == 0:
        return
    for pid in others(processes(), os.getpid(), os.getuid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
