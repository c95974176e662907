"""Writes the log GRIDUP_HOME/logs/gridup.log. Only its owner may read it. It never contains a secret."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

from gridup_infra.paths import Home, ensure_private

LIMIT = 5_000_000
"""Size in bytes from which the log is renamed to gridup.old.log, which replaces the one before."""


def write(text: str) -> Path | None:
    """Append a paragraph, with the time and the command.

    Returns the path of the log; None if the log can't be written. Raises no error then.
    """
    path = Home.default().logs / "gridup.log"
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        ensure_private(path.parent)
        if path.exists() and path.stat().st_size > LIMIT:
            path.replace(path.with_suffix(".old.log"))
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            command = sys.argv[1] if len(sys.argv) > 1 else ""
            file.write(f"{stamp} [{os.getpid()}] gridup {command}\n{text.rstrip()}\n\n")
    except OSError:
        # A log that can't be written must not hide the error that it should record.
        return None
    return path


def record(error: BaseException) -> Path | None:
    """Append an error's traceback. Returns the path of the log; None if the log can't be written."""
    return write("".join(traceback.format_exception(error)))
