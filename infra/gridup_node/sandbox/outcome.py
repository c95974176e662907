"""The end of a job, for the users who wait for it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

MOST_OUTPUT = 1_000_000
"""Characters that a job may print."""


class Reason(Enum):
    """Why there is no result. The job itself reports it, so the values are fixed and can't carry data."""

    RAISED = "raised"
    """The code raised an exception. Only the administrator may read its text, as it may contain data."""
    MEMORY = "memory"
    TIME = "time"
    THREADS = "threads"
    FILES = "files"
    NETWORK = "network"
    SYSTEM = "system"
    RESULT = "result"
    ENDED = "ended"
    """The job ended without a report."""
    AWAY = "away"
    """There is no sandbox."""


SENTENCES: Mapping[Reason, str] = {
    Reason.MEMORY: "It was ended: it needed more memory than a job may have{of}.",
    Reason.TIME: "It was ended: it took longer than a job may{of}.",
    Reason.THREADS: "It was ended: it started more threads than a job may{of}.",
    Reason.FILES: "It wanted a file or folder that code does not see: it has Python's own and an empty one.",
    Reason.NETWORK: "It was refused a connection: code has no network.",
    Reason.SYSTEM: "It was refused what code may not do: start programs or processes, or change the system.",
    Reason.RESULT: "What it returned can't be taken{of}: a job returns numbers, texts, bytes, times, None, "
    "arrays, tables and columns of them, and lists, tuples, sets and dicts of these.",
    Reason.ENDED: "Its process ended before there was a result{of}.",
    Reason.AWAY: "The node's sandbox does not answer{of}; code runs nowhere else.",
}


@dataclass(frozen=True)
class Failure:
    """Why a job has no result.

    Attributes:
        reason: see `Reason`.
        detail: a few words from the sandbox itself, such as the memory limit.
        trace: the code's traceback, for the administrator.
    """

    reason: Reason
    detail: str = ""
    trace: str = ""

    def told(self) -> dict[str, str]:
        """Return the form that is sent."""
        return {"reason": self.reason.value, "detail": self.detail, "trace": self.trace}

    @classmethod
    def of(cls, told: Any) -> Failure:
        """Return the failure that a job reported; the report may be anything."""
        if not isinstance(told, dict):
            return cls(Reason.ENDED)
        found = {key: value for key, value in told.items() if isinstance(value, str)}
        known = {reason.value: reason for reason in Reason}
        reason = known.get(found.get("reason", ""), Reason.ENDED)
        return cls(reason, line(found.get("detail", "")), found.get("trace", ""))

    @property
    def sentence(self) -> str:
        """The message for everybody; empty if only the administrator may read the reason."""
        return SENTENCES.get(self.reason, "").format(of=f" ({self.detail})" if self.detail else "")


def line(text: str) -> str:
    """Return text that a job may have influenced as part of a line: short, and without control characters."""
    return "".join(char for char in text[:200] if char.isprintable())
