"""What slows down those who guess passwords: a wait that doubles with each failure, by caller and account."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

FREE_TRIES = 5
"""Failures without a wait, for one caller and one account."""
FREE_TRIES_OF_CALLER = 20
"""Failures without a wait, for one caller and all accounts together."""
LONGEST_WAIT = 300
"""Seconds."""
FORGET_SECONDS = 15 * 60
MOST_ENTRIES = 2_000


@dataclass
class _Tries:
    failed: int
    last: float


class Throttle:
    """Counts failed sign-ins.

    It never locks an account for everybody: that would let a stranger keep the administrator out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tries: dict[tuple[str, str], _Tries] = {}

    def wait(self, caller: str, account: str) -> int:
        """Whole seconds until this caller may try this account again; 0 when at once."""
        with self._lock:
            waits = [self._left(key, free) for key, free in _keys(caller, account)]
        return math.ceil(max(waits))

    def failed(self, caller: str, account: str) -> None:
        """Note a failed try."""
        now = self._clock()
        with self._lock:
            for key in [key for key, row in self._tries.items() if now - row.last > FORGET_SECONDS]:
                del self._tries[key]
            for key, _ in _keys(caller, account):
                row = self._tries.pop(key, None)
                while len(self._tries) >= MOST_ENTRIES:
                    # The oldest: `pop` above keeps the order that of the last failure.
                    del self._tries[next(iter(self._tries))]
                self._tries[key] = _Tries(failed=row.failed + 1 if row else 1, last=now)

    def succeeded(self, caller: str, account: str) -> None:
        """This try was counted as failed and was not: take it back, and all of this caller with this account.

        The caller's failures with other accounts still count.
        """
        with self._lock:
            self._tries.pop((caller, account.casefold()), None)
            row = self._tries.get((caller, ""))
            if row is not None:
                row.failed -= 1

    def _left(self, key: tuple[str, str], free: int) -> float:
        row = self._tries.get(key)
        if row is None or row.failed < free:
            return 0.0
        pause = min(2.0 ** min(row.failed - free, 20), LONGEST_WAIT)
        return max(0.0, row.last + pause - self._clock())


def _keys(caller: str, account: str) -> tuple[tuple[tuple[str, str], int], ...]:
    return (((caller, account.casefold()), FREE_TRIES), ((caller, ""), FREE_TRIES_OF_CALLER))
