"""What the programs share that a deployer calls on a machine: one at a time, and their lines of JSON."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def emit(**told: Any) -> None:
    """A line for the deployer, if it is still there."""
    try:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the program's end


@contextlib.contextmanager
def exclusive(
    lock: Path,
    seconds: float,
    say: Callable[[str], None],
    failed: Callable[[str], Exception],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """One run at a time; one that was left alone by its deployer goes on to its end.

    Args:
        failed: makes what is raised where another run was still busy after `seconds`.
    """
    with lock.open("w", encoding="utf-8") as file:
        waited = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited >= seconds:
                    raise failed(f"another run was still busy on the machine after {waited:g} s") from None
                if not waited:
                    say("another run is busy on the machine, waiting for its end")
                sleep(1)
                waited += 1
        yield
