"""Entry point. A single try/except turns every error into a message, a suggestion and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from types import FrameType

from gridup import streams
from gridup_infra.errors import GridupError, StoppedError

GLOBAL_FLAGS = ("-v", "--verbose", "-q", "--quiet", "--debug")


def main() -> None:
    """Run the command line and exit.

    The exit code is 0 for success, else one from the table in `gridup_infra.errors`.
    """
    streams.use_utf8()
    sys.exit(run(streams.words()))


def run(argv: list[str]) -> int:
    """Run one command. Returns its exit code."""
    words = globals_first(argv)
    debug = "--debug" in words[: _own(words)]
    signal.signal(signal.SIGTERM, _interrupt)
    streams.guard()
    try:
        code = _call(words)
        streams.finish()
        return code
    except KeyboardInterrupt:
        sys.stderr.write("Error: Stopped.\n")
        return StoppedError.exit_code
    except GridupError as error:
        if debug:
            raise
        from gridup.ui import Ui

        Ui().error(error)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in REFUSED and (told := _home_refused(error)):
            from gridup.ui import Ui

            Ui().error(told)
            return told.exit_code
        from gridup.log import record

        path = record(error)
        first = (str(error).splitlines() or [""])[0]
        where = f"its traceback is in {path}" if path else "--debug shows its traceback"
        sys.stderr.write(f"Error: an unexpected {type(error).__name__}: {first}\n")
        sys.stderr.write(f"This is a fault of Gridup; {where}.\n")
        return 1


REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC)
"""The error numbers of the operating system for a file or folder that can't be written."""


def _home_refused(error: OSError) -> GridupError | None:
    """Return the error for a path in GRIDUP_HOME that can't be written; None if the path is elsewhere."""
    from pathlib import Path

    from gridup_infra.paths import Home, not_ours, unusable

    path, home = Path(str(error.filename or "")), Home.default().root
    within = path == home or home in path.parents
    while path != path.parent and (path == home or home in path.parents):
        # The file may be missing because its folder belongs to another account: check each parent too.
        with contextlib.suppress(OSError):
            if path.lstat().st_uid != os.geteuid():
                return not_ours(path)
        path = path.parent
    return unusable(Home(home), error) if within else None


def _call(words: list[str]) -> int:
    from gridup.app import build

    try:
        build(words)(args=words, prog_name="gridup")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def _own(argv: list[str]) -> int:
    """Return how many words of the command line Gridup reads.

    The words after `--`, or after the node's name in `gridup ssh`, are a command that runs on the node.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    at = next((i for i, word in enumerate(argv[:end]) if not word.startswith("-")), end)
    if argv[at : at + 1] != ["ssh"]:
        return end
    at += 1
    named = False
    while at < end and argv[at].startswith("-"):
        word, has_value, _ = argv[at].partition("=")
        takes = word in ("--name", "--stack")
        named = named or takes
        at += 2 if takes and not has_value else 1
    return min(at if named else at + 1, end)


def globals_first(argv: list[str]) -> list[str]:
    """Move the global flags to the front, so that users may write them anywhere before `--`."""
    end = _own(argv)
    head, tail = argv[:end], argv[end:]
    flags = [word for word in head if word in GLOBAL_FLAGS]
    return [*flags, *(word for word in head if word not in GLOBAL_FLAGS), *tail]


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # Service managers and CI systems send SIGTERM instead of Ctrl-C: handle both in the same way.
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
