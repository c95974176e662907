"""Standard output and error, and the encoding of what we read and write.

Their readers may go: the work goes on then, and its result is the exit code. Files are UTF-8 whatever the
locale; the terminal is written to as the locale says.
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
    """Have every file read and written as UTF-8, ours and those of the programs and libraries that we start.

    Where the locale has another encoding this process is begun anew, for Python takes it only at its start.
    """
    os.environ["PYTHONUTF8"] = "1"
    if not sys.flags.utf8_mode and codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606


def words() -> list[str]:
    """The command line, without the program: as UTF-8 where it is that, else as the locale says."""
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
    # The locale C means that nobody chose one, as in most containers and cron jobs.
    return "utf-8" if name == "ascii" else name


def guard() -> None:
    """Have both streams take what is written also where nobody reads it, or where they were closed.

    A mark that a stream's encoding lacks is written as another one that is as wide, a letter as an escape.
    """
    codecs.register_error(MARKED, _marked)
    given = os.environ.pop("PYTHONIOENCODING", "")
    # What is opened next would else get the number of a closed one, and be written to.
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
            # PYTHONUNBUFFERED takes the middle layer away.
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
"""What Python calls our way with characters that an encoding lacks."""

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
"""What stands for a mark of ours, in as many columns."""


def _marked(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = MARKS.get(error.object[error.start])
    if found is not None:
        return found, error.start + 1
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    return codecs.backslashreplace_errors(one)


def reader_gone() -> bool:
    """Whether nobody reads standard output any more, as after `| head`."""
    sys.stdout.flush()
    return 1 in _gone


def finish() -> None:
    """Write what is left of the result.

    Raises:
        GridupError: it can't be written, such as to a full disk.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try once more as it ends, and make an exit code of its own of it.
        _to_nowhere(sys.stdout.fileno())
        raise GridupError(f"The result can't be written: {error.strerror}.") from error


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Raw(io.FileIO):
    """A file whose reader may go. It is one layer of a stream, and all that is written goes through it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What is lost of a result must be told; progress is nothing to end the work for.
            if self.fileno() == 1 and not isinstance(error, BrokenPipeError):
                raise
            _gone.add(self.fileno())
            _to_nowhere(self.fileno())
            return super().write(data)
