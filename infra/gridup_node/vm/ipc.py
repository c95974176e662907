"""Shared by the programs that a deployer runs on a machine: output as lines of JSON, one run at a time."""

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
    """Write a line of JSON for the deployer, if it is still connected."""
    try:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the program ends


@contextlib.contextmanager
def exclusive(
    lock: Path,
    seconds: float,
    say: Callable[[str], None],
    failed: Callable[[str], Exception],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Allow one run at a time. A run whose deployer went away continues to its end.

    Args:
        failed: returns the exception to raise if another run is still busy after `seconds`.
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
