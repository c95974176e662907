"""Writes files atomically and durably: they survive a power cut. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file atomically, with any umask. The file is on the disk when this returns."""
    fresh = beside(path, data, mode)
    try:
        fresh.replace(path)
    except BaseException:
        fresh.unlink()
        raise
    sync(path.parent)


def beside(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write the future content of `path` to a temporary file in the same folder. Returns that file's path."""
    import tempfile

    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
