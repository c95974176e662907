"""Data that a node has left in its folder: the note beside them, and who goes on with them.

Standard library only: it is sent to machines.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

NOTE = "kept.json"
"""In the folder: whose the data were, and since when. It is there until they are another node's own."""

ASIDE = ".kept-"
"""Between the folder's name and a time, where a node began with data of its own."""


def read(folder: Path) -> dict[str, Any] | None:
    """What the note in the folder tells; None where there is none.

    Returns:
        `since` when the data are kept (ISO 8601, UTC), another one for other data; and what was noted of the
        node: its `name`, `stack`, `admin_email`, `node_type`, and the data's `size` in bytes.
    """
    file = folder / NOTE
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        changed = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    except (OSError, ValueError):
        return None
    # Before there was a way to say no, the note said less.
    return {**told, "since": told.get("since") or _text(changed)} if isinstance(told, dict) else None


def now() -> str:
    """The `since` of data that are kept from now on."""
    return _text(datetime.now(timezone.utc))


def _text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")


def set_aside(folder: Path) -> None:
    """Let a node begin with none of the data that are kept, which stay beside its own."""
    if note := read(folder):
        stamp = re.sub(r"[^0-9]", "", str(note["since"]))[:14]
        folder.rename(folder.with_name(f"{folder.name}{ASIDE}{stamp}"))


def settle(folder: Path) -> None:
    """The data are the node's own from here on."""
    (folder / NOTE).unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Bytes of all files in it."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            # It may go while it is looked at.
            with suppress(OSError):
                total += os.lstat(Path(root) / name).st_size
    return total
