"""Becomes the program that it is given, beside a guard that ends it once its starter is no more.

    python parent_guard.py TEMP_DIR PROGRAM WORD...

Run by `processes.OwnedProcess`, in a session of its own, as a script: standard library only. Standard input
is a pipe whose other end the starter alone holds. However the starter ends, by `kill -9` too, the kernel
closes that end; then the guard removes LITTER, a folder of files, and kills the program with all it started.
What needs no such pipe has its faults: the parent-death signal of Linux comes when a thread ends, and
macOS has none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path


def main(litter: str, program: str, *words: str) -> None:
    group = os.getpid()
    null = os.open(os.devnull, os.O_RDWR)
    if os.fork() == 0:
        # Whoever waits for the end of what the program says must not have to wait for the guard.
        os.dup2(null, 1)
        os.dup2(null, 2)
        _guard(Path(litter), group)
    os.dup2(null, 0)
    # Python ignores these two, and the program would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(program, [program, *words])  # noqa: S606 - the words are an argv list


def _guard(litter: Path, group: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    with contextlib.suppress(OSError):
        for file in litter.iterdir():
            file.unlink()
        litter.rmdir()
    # The group is there as long as the guard is, so its number can't be another's. This ends the guard too.
    os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
