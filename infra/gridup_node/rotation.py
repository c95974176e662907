"""`python -m gridup_node.rotation COMMAND SERVICE`: replace the secrets of a node's service.

    renew     creates new secrets of the service, which uses them from its next start on
    settle    waits until the service uses them, and prints the result as JSON

The folders of the service (see `services`) determine which secrets these are. Each command runs where the
service sees its folders. Stdin is JSON: `id`, which differs for each rotation of all secrets, and `lock`, see
`rekey`. A repeated run with the same id creates nothing again, so the next run completes an interrupted one.
Until the service is started again the former secrets are valid.

A failure prints one line on stderr and returns exit code 1. That line and argv never contain a secret.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from gridup_node import admin, durable, facts, keys, rekey, secrets
from gridup_node.services import PROXY, service

WHERE = frozenset({"secrets", "proxy", "keys", "jupyter"})
"""The folders of the node's data that contain secrets to replace."""

NEXT, GONE, FAILED = "next", ".gone", "failed"
DONE = "rotated"
"""A file in each folder of secrets: the id of the last rotation, and its result."""

RENEWED = tuple(name for name in secrets.MAKERS if name != secrets.SERVER_UID)
"""The node keeps its id: the id is no secret, and all objects that the node has made contain it."""

BCRYPT_ROUNDS = 12
"""The same as syft's."""

CADDY, FORMER = "caddy", "caddy.former"
"""The folder of the reverse proxy's CA, its certificates and its account with a certificate authority; and
the name of this folder while its content is being replaced."""

CERTIFICATE_SECONDS = 120.0
"""How long the reverse proxy may take to get a new certificate, possibly from a certificate authority."""

START_SECONDS = 300.0
"""How long the API may take to answer: before that it rewrites the whole database."""

JUPYTERS = ("notebook_secret", "nbsignatures.db", "runtime/jupyter_cookie_secret")
"""The files with which Jupyter signs. It creates the first two again."""


class RotationError(Exception):
    """A rotation failed; the message is one line, without secrets."""


@dataclass(frozen=True)
class Asked:
    """The content of stdin; see the module's docstring."""

    id: str
    lock: bool = False


def main(argv: list[str], stdin: IO[str], stdout: IO[str], stderr: IO[str]) -> int:
    """Run one command. Returns the exit code."""
    try:
        command, name = argv
        folder, asked = facts.NodeDir.from_env(), _asked(stdin)
        work = {"renew": renew, "settle": settle}[command]
        stdout.write(json.dumps(work(folder, service(name).folders, asked)) + "\n")
    except (ValueError, KeyError):
        stderr.write("gridup_node.rotation: the commands are: renew SERVICE, settle SERVICE\n")
        return 2
    except (RotationError, admin.AdminError, facts.FactsError, OSError) as error:
        stderr.write(f"gridup_node.rotation: {error}\n")
        return 1
    return 0


def _asked(stdin: IO[str]) -> Asked:
    try:
        told = json.load(stdin)
        return Asked(str(told["id"]), told.get("lock") is True)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RotationError('stdin must hold JSON: {"id": "…", "lock": false}') from None


def renew(folder: facts.NodeDir, of: tuple[str, ...], asked: Asked) -> dict[str, Any]:
    """Create the new secrets for the folders `of` of the node's data."""
    work: Mapping[str, Callable[[facts.NodeDir, Asked], None]] = {
        "secrets": _renew_own,
        "proxy": _renew_tls,
        "keys": _renew_ssh,
        "jupyter": _renew_jupyter,
    }
    for name in of:
        if name in work and done(folder.root / name).get("id") != asked.id:
            work[name](folder, asked)
    return {}


def settle(folder: facts.NodeDir, of: tuple[str, ...], asked: Asked) -> dict[str, Any]:
    """Wait until the restarted service uses the secrets of `renew`. Returns the result.

    Raises:
        RotationError: the service does not use them. The former secrets stay valid.
    """
    if "proxy" in of:
        _settle_tls(folder)
    if "secrets" in of:
        admin.wait_for(folder, facts.load(folder.facts), START_SECONDS)
        if (had := done(folder.secrets)).get("id") != asked.id:
            why = _text(folder.secrets / NEXT / FAILED) or "it was not started again"
            raise RotationError(f"the node serves on with its former secrets: {why}")
        return had
    return {}


def concerns(name: str) -> bool:
    """Return whether a service has secrets."""
    return not WHERE.isdisjoint(service(name).folders)


def done(folder: Path) -> dict[str, Any]:
    """Return the id and the result of the last rotation of a folder's secrets; empty if there was none."""
    try:
        told = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _note(folder: Path, asked: Asked, **more: Any) -> None:
    durable.write(folder / DONE, json.dumps({"id": asked.id, **more}).encode())


# The node's own secrets: password, keys of accounts, Jupyter's token. They are in use, and in the database.


def _renew_own(folder: facts.NodeDir, asked: Asked) -> None:
    secrets.ensure(folder.secrets)
    with admin.exclusive(folder):
        following = folder.secrets / NEXT
        if following.is_dir():
            # Reuse these secrets: the database may contain them already.
            durable.write(following / DONE, json.dumps(asdict(asked)).encode())
            return
        fresh = folder.secrets / f".{NEXT}"
        shutil.rmtree(fresh, ignore_errors=True)
        secrets.ensure(fresh, RENEWED)
        durable.write(fresh / DONE, json.dumps(asdict(asked)).encode())
        fresh.rename(following)
        durable.sync(folder.secrets)


def finish(folder: facts.NodeDir) -> str:
    """Replace the former secrets by those that `renew` has created, before the node's server starts.

    Each step may be repeated: the next start completes an interrupted replacement. If the replacement fails,
    all of the former secrets stay.

    Returns:
        Why the replacement failed; empty if nothing is left to do.
    """
    shutil.rmtree(folder.secrets / GONE, ignore_errors=True)
    following = folder.secrets / NEXT
    if not following.is_dir():
        return ""
    try:
        with admin.exclusive(folder):
            _put(folder, following)
    except (OSError, sqlite3.Error, rekey.RekeyError, ValueError, KeyError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        with contextlib.suppress(OSError):
            durable.write(following / FAILED, why.encode())
        return why
    return ""


def _put(folder: facts.NodeDir, following: Path) -> None:
    asked = Asked(**json.loads((following / DONE).read_text(encoding="utf-8")))
    came = rekey.Rekeyed()
    if folder.database.exists():
        came = rekey.rekey(
            folder.database,
            secrets.read(folder.secrets, secrets.SERVER_KEY),
            secrets.read(following, secrets.SERVER_KEY),
            _hash(secrets.read(following, secrets.ADMIN_PASSWORD)),
            _hash(secrets.generate_password()) if asked.lock else "",
        )
    for name in RENEWED:
        secrets.replace(folder.secrets, name, secrets.read(following, name))
    _note(folder.secrets, asked, **asdict(came))
    following.rename(folder.secrets / GONE)
    durable.sync(folder.secrets)
    shutil.rmtree(folder.secrets / GONE, ignore_errors=True)


def _hash(password: str) -> str:
    from bcrypt import gensalt, hashpw

    return bytes(hashpw(password.encode(), gensalt(BCRYPT_ROUNDS))).decode()


# The reverse proxy's secrets: they prove the identity of the node.


def _renew_tls(folder: facts.NodeDir, asked: Asked) -> None:
    place = folder.root / PROXY
    if (place / CADDY).is_dir():
        shutil.rmtree(place / FORMER, ignore_errors=True)
        # The reverse proxy has its certificates in memory, so it continues to serve.
        (place / CADDY).rename(place / FORMER)
    _note(place, asked)


def _settle_tls(folder: facts.NodeDir) -> None:
    place = folder.root / PROXY
    if not _certificates(place / FORMER):
        return
    deadline = time.monotonic() + CERTIFICATE_SECONDS
    while not _certificates(place / CADDY):
        if time.monotonic() > deadline:
            shutil.rmtree(place / CADDY, ignore_errors=True)
            (place / FORMER).rename(place / CADDY)
            (place / DONE).unlink(missing_ok=True)
            raise RotationError(
                f"there was no new certificate within {CERTIFICATE_SECONDS:g} s; the former one is back"
            )
        time.sleep(0.25)
    shutil.rmtree(place / FORMER, ignore_errors=True)


def _certificates(place: Path) -> bool:
    return any((place / "certificates").glob("**/*.crt"))


# The secrets of ssh and Jupyter.


def _renew_ssh(folder: facts.NodeDir, asked: Asked) -> None:
    place = folder.root / "keys"
    # There are no keys if the machine has no sshd, or if ssh has never run.
    if keys.whole(place / keys.CLIENT_KEY):
        try:
            keys.renew(place)
        except OSError as error:
            raise RotationError(f"the ssh keys could not be made: {error}") from None
    _note(place, asked)


def _renew_jupyter(folder: facts.NodeDir, asked: Asked) -> None:
    place = folder.root / "jupyter"
    for name in JUPYTERS:
        (place / name).unlink(missing_ok=True)
    _note(place, asked)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout, sys.stderr))
