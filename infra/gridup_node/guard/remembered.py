"""Remembers which callers have signed in to which account before, also after a restart of the node."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gridup_node import durable
from gridup_node.guard.slots import MOST_KEYS

REMEMBERED_SECONDS = 180 * 24 * 60 * 60.0
WRITTEN_SECONDS = 24 * 60 * 60.0
"""A known caller is written to the file again only after this time."""
MOST_OF_ACCOUNT = 100
"""Callers of one account: sign-ins from many places must not displace the callers of other accounts."""
PART = 32
"""Hexadecimal digits of an account's hash, and of the hash of a caller with the account."""

log = logging.getLogger(__name__)


class Remembered:
    """Callers who have signed in to an account before. Several threads may use it.

    The file holds neither addresses nor accounts, only hashes with a key of the node. Without that key the
    hashes mean nothing.

    Args:
        file: the file to store the rows in; None to keep them in memory only. A file that can't be read
            counts as empty.
        clock: returns seconds since 1970, because rows stay valid after a restart.
    """

    def __init__(
        self, file: Path | None = None, key: bytes = b"", clock: Callable[[], float] = time.time
    ) -> None:
        self._file, self._key, self._clock = file, key, clock
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._rows = self._read()

    def add(self, caller: str, account: str) -> None:
        """Remember that the caller has signed in to the account. This may write to the disk."""
        of_account, mark = self._marks(caller, account)
        with self._lock:
            now, told = self._clock(), self._rows.pop(mark, None)
            own = [row for row in self._rows if row.startswith(of_account)]
            # The rows are in the order of their last sign-in.
            for row in own[: max(0, len(own) + 1 - MOST_OF_ACCOUNT)]:
                del self._rows[row]
            while len(self._rows) >= MOST_KEYS:
                del self._rows[next(iter(self._rows))]
            self._rows[mark] = now
        if told is None or not 0 <= now - told < WRITTEN_SECONDS:
            self._write()

    def has(self, caller: str, account: str) -> bool:
        told = self._rows.get(self._marks(caller, account)[1])
        return told is not None and self._clock() - told < REMEMBERED_SECONDS

    def _marks(self, caller: str, account: str) -> tuple[str, str]:
        """Return the hash of the account, and the key of the row, which begins with that hash."""

        def mark(*said: str) -> str:
            whole = json.dumps(["signed in", *said]).encode()
            return hmac.new(self._key, whole, hashlib.sha256).hexdigest()[:PART]

        of_account = mark(account)
        return of_account, of_account + mark(account, caller)

    def _read(self) -> dict[str, float]:
        try:
            told = json.loads(self._file.read_bytes()) if self._file else {}
            rows = [(str(mark), float(seen)) for mark, seen in told.items()]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("Who has signed in before is not known: %s: %s", self._file, error)
            return {}
        now = self._clock()
        rows = [row for row in rows if len(row[0]) == 2 * PART and 0 <= now - row[1] < REMEMBERED_SECONDS]
        return dict(sorted(rows, key=lambda row: row[1])[-MOST_KEYS:])

    def _write(self) -> None:
        if self._file is None:
            return
        # `has` never waits for the disk. Of two concurrent writes, the later has all rows of the earlier.
        with self._writing:
            with self._lock:
                told = {mark: int(seen) for mark, seen in self._rows.items()}
            try:
                durable.write(self._file, json.dumps(told).encode())
            except OSError as error:
                # The disk may be full. The rows stay in memory until the next restart.
                log.warning("Who has signed in is not written down: %s", error)
