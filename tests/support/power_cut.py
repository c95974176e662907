"""What would outlive a power cut: which files and folders were brought to the disk, and when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Disk:
    """Hears each `fsync`, and each rename that follows or precedes it, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[tuple[str, Path]] = []
        fsync, replace = os.fsync, Path.replace

        def heard(descriptor: int) -> None:
            self.did.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        def renamed(path: Path, target: Path) -> Path:
            self.did.append(("rename", Path(path)))
            return replace(path, target)

        monkeypatch.setattr(os, "fsync", heard)
        monkeypatch.setattr(Path, "replace", renamed)

    def has(self, path: Path) -> bool:
        """Whether a file that was last written is there after a power cut, whole: its bytes were on the disk
        before it got its name, and its name after it."""
        renames = [
            n for n, (what, which) in enumerate(self.did) if what == "rename" and path.name in which.name
        ]
        if not renames:
            return False
        at = renames[-1]
        return ("sync", self.did[at][1]) in self.did[:at] and ("sync", path.parent) in self.did[at:]
