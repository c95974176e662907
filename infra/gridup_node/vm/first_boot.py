"""How the first boot of a machine goes, as the program `host` publishes it there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gridup_node.vm.machine import LOG, STATE, UNIT

WAITING, RUNNING, FAILED, DONE = "waiting", "running", "failed", "done"

READ = ("sh", "-c", f"cat {STATE} 2>/dev/null || true")
"""Tells the state, to be run on the machine as its user; nothing as long as there is none."""

TAIL = ("tail", "-n", "30", LOG)
"""Tells the end of the log."""

AGAIN = ("sudo", "systemctl", "restart", UNIT)
"""Makes the machine try again, after what was in its way has been removed."""


@dataclass(frozen=True)
class State:
    """How far it is.

    Attributes:
        state: `waiting` before it began, then `running`, then `done` or `failed`.
        step: the present step, or the one that failed.
        message: why it failed.
        started, ended: UTC, as `2026-01-31T12:00:00Z`; `ended` is empty while it runs.
        boot_id: of the boot that this was published in (`/proc/sys/kernel/random/boot_id`).
        seconds: how long each step took that has ended.
    """

    state: str
    step: str = ""
    message: str = ""
    started: str = ""
    ended: str = ""
    boot_id: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.state == DONE

    @property
    def failed(self) -> bool:
        return self.state == FAILED

    @property
    def settled(self) -> bool:
        """Whether waiting longer changes nothing."""
        return self.done or self.failed

    def __str__(self) -> str:
        """For people, in a line."""
        if self.failed:
            return f"the first boot failed at step {self.step}: {self.message}"
        told = {WAITING: "has not begun", RUNNING: f"is at step {self.step}", DONE: "is done"}
        return f"the first boot {told[self.state]}"


def parse(text: str) -> State:
    """The state from what `READ` printed.

    Raises:
        ValueError: that is not a state.
    """
    if not text.strip():
        return State(WAITING)
    try:
        told: Any = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("state") not in (RUNNING, FAILED, DONE):
        raise ValueError(f"not the state of a first boot: {text.strip()[:200]!r}")
    words = {name: str(told.get(name) or "") for name in ("step", "message", "started", "ended", "boot_id")}
    seconds = told.get("seconds")
    return State(told["state"], seconds=seconds if isinstance(seconds, dict) else {}, **words)
