"""What the engine's file backend keeps beside each file, as `NAME.attrs`.

It writes these in place: an engine that is killed at that moment leaves an empty one, and the file that it
belongs to can then not be read ("failed to load checkpoint: EOF"). They hold nothing that is needed. So our
own engines write none, and those that are damaged go before an engine runs.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from gridup import engine_locks
from gridup_infra.spec import PROJECT

SUFFIX = ".attrs"
WITHOUT = "metadata=skip"
"""Of a backend's URL (https://pkg.go.dev/gocloud.dev/blob/fileblob#URLOpener)."""


def without(url: str) -> str:
    """The backend's URL for an engine that writes none of them; of another backend as it is."""
    if not url.startswith("file://") or "metadata=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{WITHOUT}"


def mend(root: Path | None, stack: str) -> None:
    """Remove those that an engine would stumble over; where it has no others it makes do without.

    Args:
        root: the backend's folder; None where it is none.
    """
    if root is None:
        return
    pulumi = root / ".pulumi"
    found = [pulumi / f"meta.yaml{SUFFIX}", *(pulumi / "stacks" / PROJECT).glob(f"{stack}.json*{SUFFIX}")]
    found += engine_locks.folder_of(root, stack).glob(f"*{SUFFIX}")
    for path in found:
        with contextlib.suppress(OSError):
            if not _is_whole(path):
                path.unlink()


def _is_whole(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        return True
    except ValueError:
        return False
