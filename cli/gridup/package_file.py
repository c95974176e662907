"""A data owner's file of packages: read, and refused line by line before anything is made."""

from __future__ import annotations

from pathlib import Path

from gridup_infra import requirements
from gridup_infra.errors import UsageError

LONGEST = 65_536
"""Bytes of a file of packages at most."""

HINT = "It has a package a line, as a requirements file of pip does: humanize, or humanize>=4,<5."


def read(path: Path) -> tuple[str, ...]:
    """What a file of packages asks for.

    Raises:
        UsageError: it can't be read, or asks for something else; the line's number is told.
    """
    try:
        with path.expanduser().open("rb") as file:
            raw = file.read(LONGEST + 1)
    except OSError as error:
        raise UsageError(f"--packages {path} can't be read: {error.strerror or error}.") from None
    if len(raw) > LONGEST:
        raise UsageError(f"--packages {path} has more than {LONGEST >> 10} KB.", HINT)
    try:
        found = requirements.parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"--packages {path} is no text in UTF-8.", "Save it as UTF-8.") from None
    except ValueError as error:
        raise UsageError(f"--packages {path}: {error}.", HINT) from None
    if not found:
        raise UsageError(f"--packages {path} names no package.", "`--packages none` takes a node's away.")
    return found
