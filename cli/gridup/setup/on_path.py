"""The person's own Pulumi, where it can serve.

Asking an engine for its version costs a process, so the answer is kept for as long as the file is the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from gridup.setup.binary import PROVIDER, Engine, ask_version, is_compatible
from gridup_infra.paths import write_private
from gridup_infra.processes import which

CACHE = "on-path.json"


def find(engines: Path) -> Engine | None:
    """The engine on PATH, when it is new enough, has its provider host and can be named by its folder.

    Args:
        engines: where the answer is kept; nothing is kept while that folder is not there.
    """
    found = which("pulumi")
    if found is None:
        return None
    path = Path(found).absolute()
    real = path.resolve()
    root = next((place.parent.parent for place in (path, real) if place.parent.name == "bin"), None)
    if root is None or not _has_provider(path, real):
        return None
    version = _version(real, engines / CACHE)
    return Engine(root, version, "PATH") if version and is_compatible(version) else None


def _has_provider(path: Path, real: Path) -> bool:
    beside = any(os.access(place.with_name(PROVIDER), os.X_OK) for place in (path, real))
    return beside or which(PROVIDER) is not None


def _version(real: Path, cache: Path) -> str | None:
    status = real.stat()
    key = [str(real), status.st_mtime_ns, status.st_size]
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and kept.get("key") == key:
            return str(kept["version"])
    version = ask_version(real)
    if version and cache.parent.is_dir():
        # Only a saving: a read-only home still works.
        with contextlib.suppress(OSError):
            write_private(cache, json.dumps({"key": key, "version": version}).encode())
    return version
