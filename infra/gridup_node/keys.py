"""The node's ssh keys: its host key, the deployer's client key, and the authorized keys of other users.

Standard library only: the deployer creates a local node's keys with this module, a container creates its own.
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
"""A folder of new keys that will replace the current ones: all of them, or none."""

KEYGEN_SECONDS = 30

Run = Callable[[Sequence[str]], None]
"""A function that runs a program and waits for its end.

Raises:
    OSError: the program failed; the message says why.
"""


def run(argv: Sequence[str]) -> None:
    """Run a program on the node itself.

    Raises:
        OSError: the program failed, or did not end in time.
    """
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=KEYGEN_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{argv[0]} did not end") from error
    if ended.returncode != 0:
        raise OSError(f"{argv[0]}: {' '.join((ended.stderr or ended.stdout).split())}")


def ensure(folder: Path, comment: str, people: Sequence[str], run: Run = run) -> None:
    """Create missing keys and write the authorized keys. Never changes an existing key.

    Completes an interrupted `renew`, too.

    Args:
        comment: the comment of the keys.
        people: further public keys to authorize, one line each.

    Raises:
        OSError: a key could not be created.
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
    """Replace the keys. Until the next call of `ensure` the former keys are valid too. Safe to repeat.

    Raises:
        OSError: a key could not be created.
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
    # List both keys while sshd still uses the former one and clients may use either.
    for file, line in ((AUTHORIZED, f"{client}\n"), (KNOWN_HOSTS, known_hosts(host))):
        text = (folder / file).read_text(encoding="utf-8")
        if line not in text:
            write(folder / file, text + line)
    _take_next(folder)


def _take_next(folder: Path) -> None:
    if not (folder / NEXT).is_dir():
        return
    for name in PRIVATE:
        # Copy, don't move: the next run repeats an interrupted one.
        for half in ((folder / NEXT / name).with_suffix(".pub"), folder / NEXT / name):
            durable.write(folder / half.name, half.read_bytes())
    gone = folder / f".{NEXT}-gone"
    shutil.rmtree(gone, ignore_errors=True)
    (folder / NEXT).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _public(folder: Path, name: str) -> str:
    return (folder / name).with_suffix(".pub").read_text(encoding="utf-8").strip()


def known_hosts(host_key: str) -> str:
    """Return OpenSSH's known_hosts file for one node. It matches any address: the node's port may change."""
    return f"* {host_key.strip()}\n"


def whole(path: Path) -> bool:
    """Return whether both halves of a key exist: an interrupted run may have left only one."""
    return all(half.is_file() and half.stat().st_size > 0 for half in (path, path.with_suffix(".pub")))


def _make(path: Path, comment: str, run: Run) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        fresh = Path(folder) / path.name
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(fresh)])
        # The private half comes last: if it exists, both exist.
        for half in (fresh.with_suffix(".pub"), fresh):
            durable.sync(half)
            half.replace(path.parent / half.name)
        durable.sync(path.parent)


def write(path: Path, text: str) -> None:
    """Write a file atomically; only its owner may read it. It is on the disk when this returns."""
    durable.write(path, text.encode())
