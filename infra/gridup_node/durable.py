"""Files that are written whole or not at all, and outlive a power cut. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all, whatever the umask; it is on the disk when this returns."""
    fresh = beside(path, data, mode)
    try:
        fresh.replace(path)
    except BaseException:
        fresh.unlink()
        raise
    sync(path.parent)


def beside(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Write what is to take the place of `path` to a file of another name in its folder; returns that."""
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
    """So that a file, or the names in a folder, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
