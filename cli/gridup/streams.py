"""Standard output, standard error, and the encoding of files and terminal.

If the reader of a stream goes away, the command continues and its exit code is the result. Files are UTF-8 in
every locale. The terminal gets the encoding of the locale.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
from typing import Any, cast

from gridup_infra.errors import GridupError

_gone: set[int] = set()


def use_utf8() -> None:
    """Read and write every file as UTF-8, also in libraries and in the programs that Gridup starts.

    If the locale has another encoding, this process starts again: Python reads the setting only at its start.
    """
    os.environ["PYTHONUTF8"] = "1"
    if not sys.flags.utf8_mode and codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def words() -> list[str]:
    """Return the command line without the program, decoded as UTF-8, else with the locale's encoding."""
    found = []
    for raw in map(os.fsencode, sys.argv[1:]):
        try:
            found.append(raw.decode())
        except UnicodeDecodeError:
            found.append(raw.decode(_codeset(), errors="surrogateescape"))
    return found


def _codeset() -> str:
    try:
        name = codecs.lookup(locale.nl_langinfo(locale.CODESET)).name
    except LookupError:
        return "utf-8"
    # The locale C means that nobody chose a locale, as in most containers and cron jobs.
    return "utf-8" if name == "ascii" else name


def guard() -> None:
    """Make both streams accept output even if nobody reads them or if they were closed.

    If an encoding lacks one of Gridup's symbols (`MARKS`), the output has a substitute of the same width. Any
    other missing character becomes an escape.
    """
    codecs.register_error(MARKED, _marked)
    given = os.environ.pop("PYTHONIOENCODING", "")
    # Occupy the descriptors of closed streams: else the next opened file gets one, and output goes there.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(spare, True)
    os.close(spare)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as we run
            setattr(sys, name, stream)
        elif type(stream) is io.TextIOWrapper and isinstance(stream.buffer, io.BufferedWriter | io.FileIO):
            stream.flush()
            raw = _Raw(stream.fileno(), "wb", closefd=False)
            # With PYTHONUNBUFFERED there is no middle layer.
            buffered = isinstance(stream.buffer, io.BufferedWriter)
            fresh = io.TextIOWrapper(
                io.BufferedWriter(raw) if buffered else cast("Any", raw),
                encoding=stream.encoding if given else _codeset(),
                errors=MARKED,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, fresh)


MARKED = "gridup-marks"
"""Name of Gridup's error handler (`codecs`) for characters that an encoding lacks."""

MARKS = {
    "✅": "ok",
    "❌": "!!",
    "➖": "--",
    "🔒": "--",
    "⏳": "..",
    "❔": "??",
    "⏹": "#",
    "✔": "+",
    "…": "~",
}
"""Symbol of Gridup's output -> its substitute, with the same number of columns."""


def _marked(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = MARKS.get(error.object[error.start])
    if found is not None:
        return found, error.start + 1
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    return codecs.backslashreplace_errors(one)


def reader_gone() -> bool:
    """Return whether the reader of standard output has gone away, as after `| head`."""
    sys.stdout.flush()
    return 1 in _gone


def finish() -> None:
    """Flush the rest of the result to standard output.

    Raises:
        GridupError: the result can't be written, for example because the disk is full.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # Else Python flushes again at its exit, fails, and sets another exit code.
        _to_nowhere(sys.stdout.fileno())
        raise GridupError(f"The result can't be written: {error.strerror}.") from error


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Raw(io.FileIO):
    """The lowest layer of a stream. It gets all output, and continues without a reader."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # Report a lost result as an error. Lost progress must not end the work.
            if self.fileno() == 1 and not isinstance(error, BrokenPipeError):
                raise
            _gone.add(self.fileno())
            _to_nowhere(self.fileno())
            return super().write(data)
