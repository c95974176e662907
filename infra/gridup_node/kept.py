"""Retained data in a node's folder: the note about them, and their adoption by the next node.

Standard library only: Gridup sends this module to machines.
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
"""A file in the folder with the former owner of the data, and the time from which they are retained. It
exists until another node owns the data."""

ASIDE = ".kept-"
"""In the name of retained data that a new node did not adopt: between the folder's name and a time."""


def read(folder: Path) -> dict[str, Any] | None:
    """Read the note in the folder.

    Returns:
        None if there is no readable note. Else `since`, when the data were retained (ISO 8601, UTC), which
        differs for other data; and facts of the node: its `name`, `stack`, `admin_email`, `node_type`, and
        the data's `size` in bytes.
    """
    file = folder / NOTE
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        changed = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    except (OSError, ValueError):
        return None
    # Notes of earlier versions, which always adopted the data, have no `since`.
    return {**told, "since": told.get("since") or _text(changed)} if isinstance(told, dict) else None


def now() -> str:
    """Return the `since` of data that are retained from now on."""
    return _text(datetime.now(timezone.utc))


def _text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")


def set_aside(folder: Path) -> None:
    """Rename a folder of retained data, so that a node begins without them. They stay next to its folder."""
    if note := read(folder):
        stamp = re.sub(r"[^0-9]", "", str(note["since"]))[:14]
        folder.rename(folder.with_name(f"{folder.name}{ASIDE}{stamp}"))


def settle(folder: Path) -> None:
    """Delete the note: from now on the node owns the data."""
    (folder / NOTE).unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Return the total size of all files in the folder, in bytes."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            # A file may disappear meanwhile.
            with suppress(OSError):
                total += os.lstat(Path(root) / name).st_size
    return total
