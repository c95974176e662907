"""The node's ssh keys: its host key, the key that the deployer enters with, and who else may enter.

Standard library only: the deployer lays a local node's with it, a container its own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from gridup_node import durable

HOST_KEY = "host_ed25519"
CLIENT_KEY = "client_ed25519"
AUTHORIZED = "authorized_keys"
KNOWN_HOSTS = "known_hosts"
PRIVATE = (HOST_KEY, CLIENT_KEY)
NEXT = "next"
"""A folder of keys that are to take the place of those that are there: all of them, or none."""

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
    _take_next(folder)
    for name in PRIVATE:
        if not whole(folder / name):
            _make(folder / name, comment, run)
        (folder / name).chmod(0o600)
    client, host = (_public(folder, name) for name in (CLIENT_KEY, HOST_KEY))
    write(folder / AUTHORIZED, "".join(f"{key}\n" for key in (client, *people)))
    write(folder / KNOWN_HOSTS, known_hosts(host))


def renew(folder: Path, run: Run = run) -> None:
    """Make other keys. Until `ensure` is next called, the former ones are good as well; safe to repeat.

    Raises:
        OSError: a key could not be made.
    """
    comment = _public(folder, CLIENT_KEY).partition(" ")[2].partition(" ")[2]
    if not (folder / NEXT).is_dir():
        made = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        try:
            for name in PRIVATE:
                _make(made / name, comment, run)
            made.rename(folder / NEXT)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        durable.sync(folder)
    client, host = (_public(folder / NEXT, name) for name in (CLIENT_KEY, HOST_KEY))
    # Both, for as long as sshd has the former one and somebody comes with either.
    for file, line in ((AUTHORIZED, f"{client}\n"), (KNOWN_HOSTS, known_hosts(host))):
        text = (folder / file).read_text(encoding="utf-8")
        if line not in text:
            write(folder / file, text + line)
    _take_next(folder)


def _take_next(folder: Path) -> None:
    if not (folder / NEXT).is_dir():
        return
    for name in PRIVATE:
        # Copies: what is cut short is done once more.
        for half in ((folder / NEXT / name).with_suffix(".pub"), folder / NEXT / name):
            durable.write(folder / half.name, half.read_bytes())
    gone = folder / f".{NEXT}-gone"
    shutil.rmtree(gone, ignore_errors=True)
    (folder / NEXT).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _public(folder: Path, name: str) -> str:
    return (folder / name).with_suffix(".pub").read_text(encoding="utf-8").strip()


def known_hosts(host_key: str) -> str:
    """OpenSSH's file for one node. Any address and port: it serves this node alone, whose port may change."""
    return f"* {host_key.strip()}\n"


def whole(path: Path) -> bool:
    """Whether both halves of a key are there: a interrupted run may have left one."""
    return all(half.is_file() and half.stat().st_size > 0 for half in (path, path.with_suffix(".pub")))


def _make(path: Path, comment: str, run: Run) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        fresh = Path(folder) / path.name
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(fresh)])
        # The private half last: it is what tells that both are there.
        for half in (fresh.with_suffix(".pub"), fresh):
            durable.sync(half)
            half.replace(path.parent / half.name)
        durable.sync(path.parent)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, its owner's alone; it is on the disk when this returns."""
    durable.write(path, text.encode())
