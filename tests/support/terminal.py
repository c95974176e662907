"""A person's terminal: what a program shows in so many columns, as one reads it, and what is typed."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte

LINES = 400
"""Of the screen; nothing scrolls away."""

LONGEST = 300.0

CTRL_C = "\x03"


@dataclass(frozen=True)
class Shown:
    """What was on the screen at the end, and how the program ended."""

    code: int
    screen: str


def play(
    argv: Sequence[str],
    *,
    columns: int,
    environment: Mapping[str, str],
    cwd: Path,
    answers: Sequence[tuple[str, str]] = (),
    encoding: str = "utf-8",
) -> Shown:
    """Run a program on a terminal of its own.

    Args:
        answers: what the screen must end with, and what the person then types, in order. Nothing stands for
            anything at all; `CTRL_C` is typed without Enter.

    Raises:
        AssertionError: it did not end, or did not ask.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    process = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
        cwd=cwd,
        start_new_session=True,
        # Its own in every sense: a Ctrl-C reaches whoever runs on it.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    screen = pyte.Screen(columns, LINES)
    stream = pyte.Stream(screen)
    # A character may come in two parts.
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    left, end = list(answers), time.monotonic() + LONGEST
    try:
        while _read(ours, stream, decoder):
            assert time.monotonic() < end, _text(screen)
            # On a narrow terminal a question is on several lines.
            seen = "".join(_text(screen).split())
            if left and seen and seen.endswith("".join(left[0][0].split())):
                typed = left.pop(0)[1]
                os.write(ours, typed.encode() if typed == CTRL_C else f"{typed}\n".encode())
        code = process.wait(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(ours)
    assert not left, f"it never asked {left[0][0]!r}:\n{_text(screen)}"
    return Shown(code, _text(screen))


def _read(ours: int, stream: pyte.Stream, decoder: codecs.IncrementalDecoder) -> bool:
    """Show what has come; False once nobody holds the terminal any more."""
    if not select.select([ours], [], [], 0.2)[0]:
        return True
    try:
        data = os.read(ours, 65536)
    except OSError:
        return False
    stream.feed(decoder.decode(data))
    return bool(data)


def _text(screen: pyte.Screen) -> str:
    return "\n".join(line.rstrip() for line in screen.display).rstrip() + "\n"


COMMAND = re.compile(r"`(gridup [^`]+)`|│ (gridup [^│]*[^│ ]) *│")
"""In a sentence, or alone in a cell of a table."""


def commands(screen: str, columns: int) -> list[str]:
    """The commands that a screen shows to be copied, each as one line: a full line goes on in the next."""
    text = "".join(line + ("" if len(line) == columns else "\n") for line in screen.splitlines())
    return [" ".join((one or other).split()) for one, other in COMMAND.findall(text)]
