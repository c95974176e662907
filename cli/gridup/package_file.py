"""Reads a data owner's file of packages, and refuses invalid lines before anything is created."""

from __future__ import annotations

from pathlib import Path

from gridup_infra import requirements
from gridup_infra.errors import UsageError

LONGEST = 65_536
"""Maximum size of a file of packages, in bytes."""

HINT = "It has a package a line, as a requirements file of pip does: humanize, or humanize>=4,<5."


def read(path: Path) -> tuple[str, ...]:
    """Return the packages that a file asks for.

    Raises:
        UsageError: the file can't be read, names no package, or has an invalid line; the message has the line
            number.
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
        raise UsageError(f"--packages {path} names no package.", "`--packages none` removes a node's.")
    return found
