"""Read the last lines of log files, and follow new lines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

POLL = 0.2
"""Seconds between two reads of a followed file."""

BLOCK = 64 * 1024


def tail(files: Mapping[str, Path], lines: int, follow: bool) -> Iterator[tuple[str, str]]:
    """Yield (name, line) for the last `lines` of each file; with `follow`, then each new line, forever.

    Waits for a file that does not exist yet or was rotated away.
    """
    positions: dict[str, int] = {}
    for name, path in files.items():
        last, positions[name] = last_lines(path, lines)
        for line in last:
            yield name, line
    while follow:
        quiet = True
        for name, path in files.items():
            for line in _new_lines(path, positions, name):
                quiet = False
                yield name, line
        if quiet:
            time.sleep(POLL)


def last_lines(path: Path, lines: int) -> tuple[list[str], int]:
    """Return the last lines of a file and the position after them; no lines and 0 if there is no file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            data = b""
            position = end
            while position > 0 and data.count(b"\n") <= lines:
                step = min(BLOCK, position)
                position -= step
                file.seek(position)
                data = file.read(step) + data
    except OSError:
        return [], 0
    found = data.decode(errors="replace").splitlines()
    return (found[-lines:] if lines else []), end


def _new_lines(path: Path, positions: dict[str, int], name: str) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < positions[name]:
                positions[name] = 0  # rotated or emptied
            file.seek(positions[name])
            yield from _whole_lines(file, positions, name)
    except OSError:
        return


def _whole_lines(file: IO[bytes], positions: dict[str, int], name: str) -> Iterator[str]:
    for raw in file:
        if not raw.endswith(b"\n"):
            return  # still being written
        positions[name] += len(raw)
        yield raw.decode(errors="replace").rstrip("\r\n")
