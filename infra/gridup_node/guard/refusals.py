"""Why a request is refused, and a log of it that strangers can't fill."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

QUIET_SECONDS = 60.0
"""Between two lines about refusals, or about failures."""

log = logging.getLogger(__name__)


class Refusal(Exception):
    """The request is refused; the message is for whoever sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Seldom:
    """Counts what happens, and has a line of it told once in `QUIET_SECONDS`, however often it does."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = 0
        self._told: float | None = None

    def _due(self) -> int:
        """Count one; how many there are to be told of now, 0 for not yet."""
        self._count += 1
        now = self._clock()
        if self._told is not None and now - self._told < QUIET_SECONDS:
            return 0
        count, self._count, self._told = self._count, 0, now
        return count


class Refusals(_Seldom):
    """What was refused."""

    def note(self, address: str, why: str) -> None:
        """Count one."""
        if count := self._due():
            log.warning("refused %d requests; the last from %s: %s", count, address or "nowhere", why)


class Failures(_Seldom):
    """What nobody has thought of, with where it happened."""

    def note(self, scope: Any) -> None:
        """Count one; call it where the exception is caught."""
        if count := self._due():
            log.exception("%d requests failed; the last: %s %s", count, scope["method"], scope["path"])
