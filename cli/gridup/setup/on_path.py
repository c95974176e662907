"""Finds the user's own Pulumi on PATH and checks that it can be used.

To ask an engine for its version, Gridup must start a process. So the answer is cached until the file changes.
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
    """Return the engine on PATH if it is new enough, is in a folder `bin` and has its provider program.

    Args:
        engines: the folder of the version cache. If the folder does not exist, nothing is cached.
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
        # The cache only saves time, so a read-only GRIDUP_HOME is no error.
        with contextlib.suppress(OSError):
            write_private(cache, json.dumps({"key": key, "version": version}).encode())
    return version
