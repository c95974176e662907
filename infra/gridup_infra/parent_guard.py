"""Starts a guard process and then becomes the given program. The guard ends the program when its parent ends.

    python parent_guard.py TEMP_DIR PROGRAM WORD...

`processes.OwnedProcess` runs this file as a script, in a session of its own. Standard library only.

Standard input is a pipe, and only the parent holds its other end. When the parent ends, even by `kill -9`,
the kernel closes that end. Then the guard deletes TEMP_DIR, a folder of files, and kills the program and all
processes that it started.

The alternative without a pipe does not work: Linux sends its parent-death signal when a thread ends, and
macOS has no such signal.
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
        # A reader waits for the end of the program's output. The guard must not keep that output open.
        os.dup2(null, 1)
        os.dup2(null, 2)
        _guard(Path(litter), group)
    os.dup2(null, 0)
    # Python ignores these two signals, and the program would inherit that.
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
    # The guard is in the group, so the system can't have given the group's id to another one. This also ends
    # the guard.
    os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
