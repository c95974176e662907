"""Checks that the file of the node's database exists and is the file that the node has open.

If somebody removes the file, a running program still has it open. So the node would continue, and have no
data after its next start. Instead the node restores the file from the open one, and accepts no more requests.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from gridup_node import durable, facts
from gridup_node.services import PROBLEM

HAD = "had-database"
"""A file next to the secrets. It exists once the node has had a database."""

EMPTY = "For a node without data: destroy this one and deploy it anew."
REMEDY = f"Put a copy of it back. {EMPTY}"
"""What users can do about a missing database."""
BEFORE = "-removed"
"""The suffix of the name of an unfinished copy."""
TRIES, PAUSE = 5, 0.2
"""For making a copy without a half-written transaction: the number of tries, and the seconds between them."""

log = logging.getLogger(__name__)


def check(folder: facts.NodeDir) -> str:
    """Return why the node must not start, in one line; empty if it may start.

    A node that has lost its database would start with an empty one.
    """
    missing = lost(folder)
    return f"{missing}. {REMEDY}" if missing else ""


def lost(folder: facts.NodeDir) -> str:
    """Return a message if the database is missing and the node has had one; else empty."""
    if folder.database.exists() or not (folder.secrets / HAD).exists():
        return ""
    return f"the database {folder.database} is missing, and this node has had one"


class Database:
    """The database of a node that has just started.

    Args:
        folder: the node's folder.
    """

    def __init__(self, folder: facts.NodeDir) -> None:
        self._path = folder.database
        self._opened = _identity(self._path)
        self._problem = ""
        self._turn = threading.Lock()
        durable.write(folder.secrets / HAD, b"This node has had a database.\n", 0o600)

    def problem(self) -> str:
        """Return what is wrong with the file, in one line; empty if it is the file that the node has open.

        A problem stays until the node is started again.
        """
        if not self._problem and _identity(self._path) != self._opened:
            with self._turn:
                self._problem = self._problem or self._looked()
                log.error("%s", self._problem)
        return self._problem

    def _looked(self) -> str:
        restart = "Stop and start the node"
        if self._path.exists():
            return f"its database file was replaced while it ran. {restart}: until then nothing is taken."
        try:
            restored = restore(self._path)
        except (OSError, sqlite3.Error) as error:
            restored = False
            log.error("the database could not be put back: %s", error)
        if restored:
            return (
                f"its database file was removed. What it held was put back. {restart}: until then nothing is "
                "taken."
            )
        return f"its database file was removed. Put a copy of it back and start the node again. {EMPTY}"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def restore(path: Path) -> bool:
    """Restore a removed database from the file that this process still has open.

    Returns whether it was restored: False if this process does not have it open, or if no try gave a
    consistent copy.

    Raises:
        OSError, sqlite3.Error: the database could not be written.
    """
    removed = f"{path.resolve()} (deleted)"
    for link in Path("/proc/self/fd").iterdir():
        # Another thread may close a descriptor meanwhile.
        with contextlib.suppress(OSError):
            if os.readlink(link) == removed:  # noqa: PTH115 - a broken link, which a Path would not show
                break
    else:
        return False
    copy = path.with_name(path.name + BEFORE)
    # SQLite itself can't open a file without a name.
    with open(link, "rb") as held:  # noqa: PTH123 - as a path the link is broken
        for _ in range(TRIES):
            seen = os.fstat(held.fileno()).st_mtime_ns
            held.seek(0)
            _copy_to(held, copy)
            # The file has not changed during the copy, so the copy has no half-written transaction.
            if os.fstat(held.fileno()).st_mtime_ns == seen and _is_whole(copy):
                copy.rename(path)
                durable.sync(path.parent)
                return True
            time.sleep(PAUSE)
    copy.unlink()
    return False


def _copy_to(source: IO[bytes], path: Path) -> None:
    """Copy a whole file. The copy is on the disk when this returns."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:  # noqa: PTH123
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())


def _is_whole(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))


Asgi = Callable[[Any, Any, Any], Any]


def watched(app: Asgi, problem: Callable[[], str]) -> Asgi:
    """Wrap an ASGI app: while there is a problem, answer every HTTP request with the problem."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not (found := problem()):
            await app(scope, receive, send)
            return
        body = json.dumps({PROBLEM: found}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return guarded
