"""The progress of a machine's first boot, as the program `host` publishes it there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gridup_node.vm.machine import LOG, STATE, UNIT

WAITING, RUNNING, FAILED, DONE = "waiting", "running", "failed", "done"

READ = ("sh", "-c", f"cat {STATE} 2>/dev/null || true")
"""Command that prints the state, for the machine's user; prints nothing if there is no state yet."""

TAIL = ("tail", "-n", "30", LOG)
"""Command that prints the end of the log."""

AGAIN = ("sudo", "systemctl", "restart", UNIT)
"""Command that runs the first boot's program again, after the cause of its failure was removed."""


@dataclass(frozen=True)
class State:
    """The state of a first boot.

    Attributes:
        state: `waiting` before it begins, then `running`, then `done` or `failed`.
        step: the current step, or the one that failed.
        message: why it failed.
        started, ended: UTC, as `2026-01-31T12:00:00Z`; `ended` is empty while it runs.
        boot_id: the boot in which this was published (`/proc/sys/kernel/random/boot_id`).
        seconds: the duration of each step that has ended.
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
        """Whether further waiting is pointless."""
        return self.done or self.failed

    def __str__(self) -> str:
        """Return one line for users."""
        if self.failed:
            return f"the first boot failed at step {self.step}: {self.message}"
        told = {WAITING: "has not begun", RUNNING: f"is at step {self.step}", DONE: "is done"}
        return f"the first boot {told[self.state]}"


def parse(text: str) -> State:
    """Return the state from the output of `READ`.

    Raises:
        ValueError: the text is not a state.
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
