"""The way in: one try/except turns every error into a line, a suggestion and an exit code."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from gridup_infra.errors import GridupError

GLOBAL_FLAGS = ("-v", "--verbose", "-q", "--quiet", "--debug")


def main() -> None:
    """Run the command line and exit.

    Exit codes: the table in `gridup_infra.errors`; 0 for success.
    """
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command. Returns its exit code."""
    words = hoist(argv)
    debug = "--debug" in words
    signal.signal(signal.SIGTERM, _interrupt)
    from gridup.app import build

    try:
        build(words)(args=words, prog_name="gridup")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
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
        sys.stderr.write(f"Error: an unexpected {type(error).__name__}: {error}\n")
        sys.stderr.write(f"This is a fault of Gridup; its traceback is in {path}.\n")
        return 1
    return 0


def hoist(argv: list[str]) -> list[str]:
    """The global flags first, so that they may stand anywhere before a `--`."""
    end = argv.index("--") if "--" in argv else len(argv)
    head, tail = argv[:end], argv[end:]
    flags = [word for word in head if word in GLOBAL_FLAGS]
    return [*flags, *(word for word in head if word not in GLOBAL_FLAGS), *tail]


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # A service manager's or CI's way to say Ctrl-C.
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
