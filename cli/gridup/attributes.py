"""The attribute files of the engine's file backend: `NAME.attrs` next to each file `NAME`.

The engine writes an attribute file in place. If the engine is killed at that moment, an empty attribute file
remains, and the file `NAME` can't be read any more ("failed to load checkpoint: EOF"). Attribute files hold
nothing that is needed. So Gridup's engines write none, and Gridup deletes damaged ones before it starts an
engine.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from gridup import engine_locks
from gridup_infra.spec import PROJECT

SUFFIX = ".attrs"
WITHOUT = "metadata=skip"
"""Parameter of a backend's URL that switches attribute files off
(https://pkg.go.dev/gocloud.dev/blob/fileblob#URLOpener)."""


def without(url: str) -> str:
    """Return a file backend's URL with attribute files switched off; any other URL unchanged."""
    if not url.startswith("file://") or "metadata=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{WITHOUT}"


def mend(root: Path | None, stack: str) -> None:
    """Delete damaged attribute files of a stack. The engine works without attribute files.

    Args:
        root: folder of the file backend; None if the backend is not a folder.
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
