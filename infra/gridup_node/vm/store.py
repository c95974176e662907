"""Files on a machine, each known by the hash of its bytes: what is there need not be sent again."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

LARGEST = 16 << 20
"""Bytes of one file. The bundle's are some 100 kB."""


class Store:
    """A folder of them.

    Args:
        folder: made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the hashes whose file is not there, or is damaged."""
        return [name for name in names if not self._whole(name)]

    def upload(self, stream: IO[bytes]) -> int:
        """Keep the files of a tar whose members are called by their hash. Returns how many there were.

        Raises:
            ValueError: one of them is not what its name says; those before it are kept.
        """
        taken = 0
        with tarfile.open(fileobj=stream, mode="r|gz") as tar:
            for member in tar:
                file = tar.extractfile(member)
                data = file.read(LARGEST + 1) if file else b""
                if hashlib.sha256(data).hexdigest() != member.name:
                    raise ValueError(f"the file {member.name[:80]!r} did not arrive whole")
                write(self._folder / member.name, data)
                taken += 1
        return taken

    def read(self, name: str) -> bytes:
        """The file of a hash.

        Raises:
            OSError: it is not there.
        """
        return (self._folder / name).read_bytes()

    def retain_only(self, names: Iterable[str]) -> None:
        """Remove all others."""
        kept = set(names)
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink()

    def _whole(self, name: str) -> bool:
        try:
            return hashlib.sha256(self.read(name)).hexdigest() == name
        except OSError:
            return False


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, its owner's alone; it is on the disk when this returns."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
