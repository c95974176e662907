"""What a program writes, line by line, until it has ended or its time is over: whoever else holds its pipe,
such as a program that it has left behind, holds nobody up. Standard library only."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Iterator

LOOK_SECONDS = 0.2
"""Between two looks at whether a program that says nothing has ended."""

CHUNK = 65536


def lines(process: subprocess.Popen[bytes], end: float) -> Iterator[str]:
    """The lines of its output, without their ends.

    Args:
        end: by `time.monotonic`.

    Raises:
        TimeoutError: it had not ended by then.
    """
    assert process.stdout is not None
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            # Asked before the look: what it wrote before it ended is there by then.
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
    """The exit code of one that has closed its output.

    Raises:
        TimeoutError: it had not ended by `end`.
    """
    try:
        return process.wait(max(end - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
