"""Files on a machine, each named by the hash of its bytes. A file that exists need not be sent again."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

LARGEST = 16 << 20
"""Bytes of one file. The files of the bundle have some 100 kB."""


class Store:
    """A folder of such files.

    Args:
        folder: created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the hashes whose file is missing or damaged."""
        return [name for name in names if not self._whole(name)]

    def upload(self, stream: IO[bytes]) -> int:
        """Store the files of a tar whose members are named by their hash. Return the number of files.

        Raises:
            ValueError: the content of a file does not match its name; the files before it are stored.
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
        """Return the file with this hash.

        Raises:
            OSError: the file does not exist.
        """
        return (self._folder / name).read_bytes()

    def retain_only(self, names: Iterable[str]) -> None:
        """Delete all other files."""
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
    """Write a file completely or not at all, with access for its owner only. On return it is on the disk."""
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
