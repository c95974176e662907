"""Reads the output of a program line by line, until the program ends or its time is over.

Another process that still holds the pipe, such as a child that the program left behind, does not delay the
reader. Standard library only.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Iterator

LOOK_SECONDS = 0.2
"""Time between two checks whether a program without output has ended."""

CHUNK = 65536


def lines(process: subprocess.Popen[bytes], end: float) -> Iterator[str]:
    """Yield the lines of a program's output, without line ends.

    Args:
        end: the deadline, on the clock of `time.monotonic`.

    Raises:
        TimeoutError: the program has not ended by the deadline.
    """
    assert process.stdout is not None
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            # Poll before reading: all output of a program that has ended is then in the pipe.
            ended = process.poll() is not None
            left = end - time.monotonic()
            if left <= 0 and not ended:
                raise TimeoutError
            if not selector.select(0 if ended else min(left, LOOK_SECONDS)):
                if ended:
                    break
                continue
            chunk = os.read(process.stdout.fileno(), CHUNK)
            if not chunk:
                break
            *whole, held = (held + chunk).split(b"\n")
            yield from map(_text, whole)
    if held:
        yield _text(held)


def wait(process: subprocess.Popen[bytes], end: float) -> int:
    """Return the exit code of a program that has closed its output.

    Raises:
        TimeoutError: the program has not ended by `end`.
    """
    try:
        return process.wait(max(end - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
