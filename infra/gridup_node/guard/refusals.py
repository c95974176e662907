"""The refusal of a request, and logs of refusals and failures that strangers can't flood."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

QUIET_SECONDS = 60.0
"""Minimum time between two log lines about refusals, or about failures."""

log = logging.getLogger(__name__)


class Refusal(Exception):
    """The request is refused. The message is for the sender."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Seldom:
    """Counts events, and allows one log line per `QUIET_SECONDS`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = 0
        self._told: float | None = None

    def _due(self) -> int:
        """Count one event. Return the number of events to log now, 0 if it is too early."""
        self._count += 1
        now = self._clock()
        if self._told is not None and now - self._told < QUIET_SECONDS:
            return 0
        count, self._count, self._told = self._count, 0, now
        return count


class Refusals(_Seldom):
    """The log of refused requests."""

    def note(self, address: str, why: str) -> None:
        """Count one refusal."""
        if count := self._due():
            log.warning("refused %d requests; the last from %s: %s", count, address or "nowhere", why)


class Failures(_Seldom):
    """The log of unexpected exceptions, with their tracebacks."""

    def note(self, scope: Any) -> None:
        """Count one failure. Call it in the handler of the exception."""
        if count := self._due():
            log.exception("%d requests failed; the last: %s %s", count, scope["method"], scope["path"])
