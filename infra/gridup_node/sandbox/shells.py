"""The isolation layer around all jobs: a container, or the strongest one that a machine offers this user.

Bubblewrap gives jobs no network, and a file system without the user's files. Namespaces alone give no network
and hide other processes. If neither is available, only the limits of each job's process remain (`confining`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gridup_node.sandbox import confining
from gridup_node.sandbox.frames import CONTAINER, SHELL
from gridup_node.sandbox.supervisor import readable

TRY_SECONDS = 20.0
ITS_OWN = "/tmp"  # noqa: S108 - private to the sandbox
INSIDE = "/jobs"
"""The name of the folder inside; short enough for a socket's path."""
MARKS = ("GRIDUP_STACK_ID", "GRIDUP_NODE_HOME")
"""Variables by which the deployer finds a node's processes again."""


@dataclass(frozen=True)
class Shell:
    """An isolation layer.

    Attributes:
        name: for users; empty for none.
        argv: the words that go before the program's own.
        folder: of the socket, as seen from inside.
        temporary: the folder of the jobs' own folders, as seen from inside.
        own: whether everything writable inside belongs to the sandbox.
    """

    name: str
    argv: Sequence[str]
    folder: str
    temporary: str
    own: bool


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the sandbox's whole environment. Other variables may contain passwords and are left out."""
    kept = ("PYTHONPATH", "TZ", *MARKS)
    return {
        **{name: given[name] for name in kept if name in given},
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }


def candidates(folder: Path) -> list[Shell]:
    """Return the layers that may work here, the best first."""
    if os.environ.get(SHELL) == CONTAINER:
        return [Shell(CONTAINER, (), str(folder), ITS_OWN, own=True)]
    beside = str(folder / "tmp")
    found = []
    if path := _which("bwrap"):
        found.append(Shell("bubblewrap", _bubblewrap(path, folder), INSIDE, ITS_OWN, own=True))
    if path := _which("unshare"):
        found.append(Shell("namespaces", _unshare(path), str(folder), beside, own=False))
    bare = Shell("", (), str(folder), beside, own=False)
    return [*found, bare]


def choose(folder: Path) -> Shell:
    """Return the best layer that works. Each is tried."""
    rows = candidates(folder)
    return next((row for row in rows[:-1] if works(row)), rows[-1])


def works(shell: Shell) -> bool:
    """Return whether a program runs in this layer here."""
    # The least that a job needs: Python, Gridup's code and the folder.
    argv = [
        *shell.argv,
        sys.executable,
        "-c",
        "import gridup_node.sandbox.job, os; os.stat(os.sys.argv[1])",
        shell.folder,
    ]
    try:
        done = subprocess.run(
            argv,
            env=environment(os.environ),
            timeout=TRY_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _bubblewrap(path: str, folder: Path) -> list[str]:
    argv = [path, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", ITS_OWN]
    mounted = ("/proc", "/dev")
    for place in (*confining.SYSTEM, *(str(one) for one in readable())):
        if not place.startswith(mounted):
            argv += ["--ro-bind-try", place, place]
    return [*argv, "--bind", str(folder), INSIDE, "--remount-ro", "/", "--chdir", "/", "--"]


def _unshare(path: str) -> list[str]:
    namespaces = (
        "--user",
        "--map-current-user",
        "--net",
        "--ipc",
        "--uts",
        "--pid",
        "--mount",
        "--mount-proc",
    )
    return [path, *namespaces, "--fork", "--kill-child", "--"]


def _which(name: str) -> str:
    return (shutil.which(name) or "") if confining.LINUX else ""
