"""The node's ssh keys: its host key, the key that the deployer enters with, and who else may enter.

Standard library only: the deployer lays a local node's with it, a container its own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

HOST_KEY = "host_ed25519"
CLIENT_KEY = "client_ed25519"
AUTHORIZED = "authorized_keys"
KNOWN_HOSTS = "known_hosts"
PRIVATE = (HOST_KEY, CLIENT_KEY)

KEYGEN_SECONDS = 30

Run = Callable[[Sequence[str]], None]
"""Runs a program to its end.

Raises:
    OSError: it failed; the message says why.
"""


def run(argv: Sequence[str]) -> None:
    """Run a program on the node itself.

    Raises:
        OSError: it failed.
    """
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=KEYGEN_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} did not end") from error
    if ended.returncode != 0:
        raise OSError(f"{argv[0]}: {' '.join((ended.stderr or ended.stdout).split())}")


def ensure(folder: Path, comment: str, people: Sequence[str], run: Run = run) -> None:
    """Make the keys that are missing, never change one, and say who may enter.

    Args:
        comment: what the keys are called.
        people: further public keys to let in, a line each.

    Raises:
        OSError: a key could not be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in PRIVATE:
        if not whole(folder / name):
            _make(folder / name, comment, run)
        (folder / name).chmod(0o600)
    client, host = (
        (folder / name).with_suffix(".pub").read_text().strip() for name in (CLIENT_KEY, HOST_KEY)
    )
    write(folder / AUTHORIZED, "".join(f"{key}\n" for key in (client, *people)))
    write(folder / KNOWN_HOSTS, known_hosts(host))


def known_hosts(host_key: str) -> str:
    """OpenSSH's file for one node. Any address and port: it serves this node alone, whose port may change."""
    return f"* {host_key.strip()}\n"


def whole(path: Path) -> bool:
    """Whether both halves of a key are there: a broken-off run may have left one."""
    return all(half.is_file() and half.stat().st_size > 0 for half in (path, path.with_suffix(".pub")))


def _make(path: Path, comment: str, run: Run) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        fresh = Path(folder) / path.name
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(fresh)])
        # The private half last: it is what tells that both are there.
        fresh.with_suffix(".pub").replace(path.with_suffix(".pub"))
        fresh.replace(path)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, its owner's alone."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
