"""Where Gridup keeps things on this machine: one place for every path below GRIDUP_HOME."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def default_home() -> Path:
    """`GRIDUP_HOME`, else the platform's folder for a user's data."""
    given = os.environ.get("GRIDUP_HOME")
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("gridup", appauthor=False)


@dataclass(frozen=True)
class Home:
    """The folder tree of one `GRIDUP_HOME`. Making a path here creates nothing."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        return cls(default_home())

    @property
    def state(self) -> Path:
        """Pulumi's file backend."""
        return self.root / "state"

    @property
    def passphrase(self) -> Path:
        return self.root / "passphrase"

    @property
    def engine(self) -> Path:
        """Pulumi engines, a folder a version, each with `bin/pulumi`."""
        return self.root / "engine"

    @property
    def runtimes(self) -> Path:
        """Node environments, shared by the nodes of this machine."""
        return self.root / "runtimes"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    def node(self, stack: str) -> Path:
        """A local node's folder."""
        return self.nodes / stack

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def stack(self, stack: str) -> Path:
        """A stack's working folder: its Pulumi.yaml, configuration and lock."""
        return self.root / "stacks" / stack


def ensure_private(folder: Path) -> Path:
    """Make `folder` and its missing parents; only its owner may enter it (0700 from the first moment)."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all, never readable by others, whatever the umask."""
    import tempfile

    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
