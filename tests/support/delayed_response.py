"""An answer that is kept back: what a cloud has done, while whoever asked for it is killed."""

from __future__ import annotations

import subprocess
import threading

from gridup_infra.processes import wait_until


class Held:
    """The answer to the first call of an action from now on: the cloud has done it, and nobody is told.

    `wait` until that is so; `drop` closes the connection, as a cable does that breaks.
    """

    def __init__(self, action: str) -> None:
        self.action = action
        self.accepted = threading.Event()
        self.over = threading.Event()

    def wait(self, run: subprocess.Popen[str] | None = None, seconds: float = 120) -> None:
        def come() -> bool:
            return self.accepted.is_set() or (run is not None and run.poll() is not None)

        wait_until(come, timeout=seconds)
        assert self.accepted.is_set(), run.communicate() if run else self.action

    def drop(self) -> None:
        self.over.set()
