"""`python -m gridup_node.rotation COMMAND SERVICE`: replaces the secrets of a node's service.

    renew     makes what takes the place of the service's secrets; it has them when it starts the next time
    settle    waits until it has them, and says so as JSON

Which secrets those are tell the folders of the service (see `services`); each is run where the service sees
them. Stdin holds JSON: `id`, another one each time all are to be replaced, and `lock`, see `rekey`. With the
same id once more nothing is made anew, so that a run which was interrupted is put right by the next; and
until the service is started again the former secrets hold.

A failure is one line on stderr and exit code 1; no secret is ever in it, or in argv.
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
"""The folders of the node's data with what is replaced."""

NEXT, GONE, FAILED = "next", ".gone", "failed"
DONE = "rotated"
"""A file in each folder of secrets: the id of when they were last replaced, and what came of it."""

RENEWED = tuple(name for name in secrets.MAKERS if name != secrets.SERVER_UID)
"""The node stays who it is: its id is no secret, and stands in all that it has made."""

BCRYPT_ROUNDS = 12
"""As syft has it."""

CADDY, FORMER = "caddy", "caddy.former"
"""The reverse proxy's own folder: its CA, its certificates, its account with an authority."""

CERTIFICATE_SECONDS = 120.0
"""Until the reverse proxy must have a new certificate, which an authority may have to give."""

START_SECONDS = 300.0
"""Until the api must answer, which writes the whole database before."""

JUPYTERS = ("notebook_secret", "nbsignatures.db", "runtime/jupyter_cookie_secret")
"""What Jupyter signs with; it makes the first two anew."""


class RotationError(Exception):
    """It could not be done; the message is one line, without secrets."""


@dataclass(frozen=True)
class Asked:
    """What stdin holds; see the module's first lines."""

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
    """Make what takes the place of the secrets in those folders of the node's data."""
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
    """Wait until the service, started anew, has what `renew` has made; what came of it.

    Raises:
        RotationError: it has not. The former secrets hold.
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
    """Whether a service has secrets."""
    return not WHERE.isdisjoint(service(name).folders)


def done(folder: Path) -> dict[str, Any]:
    """When the secrets in a folder were replaced last, and what came of it; nothing where they never were."""
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
            # The database may be under these already.
            durable.write(following / DONE, json.dumps(asdict(asked)).encode())
            return
        fresh = folder.secrets / f".{NEXT}"
        shutil.rmtree(fresh, ignore_errors=True)
        secrets.ensure(fresh, RENEWED)
        durable.write(fresh / DONE, json.dumps(asdict(asked)).encode())
        fresh.rename(following)
        durable.sync(folder.secrets)


def finish(folder: facts.NodeDir) -> str:
    """Put the secrets that `renew` has made in the place of the former ones, before the node's server starts.

    Each step may be repeated, and what was cut short is done by the next start. Where it can't be done the
    former ones stay, all of them.

    Returns:
        Why it can't be done; empty when there is nothing (left) to do.
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


# The reverse proxy's: what proves that the node is the node.


def _renew_tls(folder: facts.NodeDir, asked: Asked) -> None:
    place = folder.root / PROXY
    if (place / CADDY).is_dir():
        shutil.rmtree(place / FORMER, ignore_errors=True)
        # It has them in memory, and so serves on.
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


# ssh's, and Jupyter's.


def _renew_ssh(folder: facts.NodeDir, asked: Asked) -> None:
    place = folder.root / "keys"
    # Nothing there: the machine has no sshd, or ssh has never run.
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
