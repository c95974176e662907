"""What is done to calls on their way, and the record of those that came."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.arm.errors import ArmError, Refusal
from support.delayed_response import Held


@dataclass(frozen=True)
class Call:
    """One call that came by.

    Attributes:
        action: the right that it took, as a role names it (`Microsoft.Network/publicIPAddresses/write`);
            `token` for one of Entra's addresses.
        actions: that, and those on what it joined to.
        body: as it was sent.
        began, ended: on `time.monotonic`'s clock.
        status: of the answer; 0 when it got none.
        code, refusal: of the error, if it was one; the rule that was broken.
    """

    action: str
    actions: tuple[str, ...]
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    began: float
    ended: float
    status: int
    code: str = ""
    refusal: Refusal | None = None


@dataclass
class Fault:
    """An error in place of what was asked.

    Attributes:
        late: whether the request is accepted first, and its operation ends with the error.
    """

    action: str
    error: ArmError
    count: int = 1_000_000
    late: bool = False
    when: Callable[[str, Any], bool] = lambda _path, _body: True
    met: int = 0


@dataclass
class Interference:
    """All that is done to calls."""

    faults: list[Fault] = field(default_factory=list)
    holds: list[Held] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        for hold in self.holds:
            hold.drop()
        self.faults.clear()
        self.holds.clear()

    def fault_for(self, action: str, path: str, body: Any) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if matches(fault.action, action) and fault.met < fault.count and fault.when(path, body):
                    fault.met += 1
                    return fault
        return None

    def hold_for(self, action: str) -> Held | None:
        with self.lock:
            for held in self.holds:
                if matches(held.action, action) and not held.accepted.is_set():
                    # Taken: a second call of the action goes through.
                    held.accepted.set()
                    return held
        return None


def matches(pattern: str, action: str) -> bool:
    """Whether an action is meant: with `*` for any part, as in a role, and without regard to case."""
    return fnmatch.fnmatchcase(action.lower(), pattern.lower())
