"""The way in: one try/except turns every error into a line, a suggestion and an exit code."""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType

from gridup_infra.errors import GridupError, InterruptedError_

GLOBAL_FLAGS = ("-v", "--verbose", "-q", "--quiet", "--debug")


def main() -> None:
    """Run the command line and exit.

    Exit codes: the table in `gridup_infra.errors`; 0 for success.
    """
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command. Returns its exit code."""
    words = hoist(argv)
    debug = "--debug" in words[: _own(words)]
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A stream that knows only ASCII gets an escape for a mark; it must not end the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _call(words)
        # What is left to write must fail here, where it is known what a reader that has gone means.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        sys.stderr.write("Error: Stopped.\n")
        return InterruptedError_.exit_code
    except GridupError as error:
        if debug:
            raise
        from gridup.ui import Ui

        Ui().error(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone, as with `| head`; nothing more can be said.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        from gridup.log import record

        path = record(error)
        first = (str(error).splitlines() or [""])[0]
        sys.stderr.write(f"Error: an unexpected {type(error).__name__}: {first}\n")
        sys.stderr.write(f"This is a fault of Gridup; its traceback is in {path}.\n")
        return 1


def _call(words: list[str]) -> int:
    from gridup.app import build

    try:
        build(words)(args=words, prog_name="gridup")
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            # Typer would make an exit code 1 of it.
            raise stop.__context__ from None
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def _own(argv: list[str]) -> int:
    """How many words are ours: what follows a `--` is a command for a node."""
    return argv.index("--") if "--" in argv else len(argv)


def hoist(argv: list[str]) -> list[str]:
    """The global flags first, so that they may stand anywhere before a `--`."""
    end = _own(argv)
    head, tail = argv[:end], argv[end:]
    flags = [word for word in head if word in GLOBAL_FLAGS]
    return [*flags, *(word for word in head if word not in GLOBAL_FLAGS), *tail]


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # A service manager's or CI's way to say Ctrl-C.
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
