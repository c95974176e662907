"""All paths below GRIDUP_HOME, the folder for Gridup's files on this machine, and checks of that folder."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gridup_infra.errors import StateError
from gridup_node import durable


def default_home() -> Path:
    """Return `GRIDUP_HOME`, else the platform's folder for user data."""
    given = os.environ.get("GRIDUP_HOME")
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("gridup", appauthor=False)


@dataclass(frozen=True)
class Home:
    """The folder tree of one `GRIDUP_HOME`. Its members return paths and create nothing."""

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
        """Pulumi engines: one folder per version, each with `bin/pulumi`."""
        return self.root / "engine"

    @property
    def runtimes(self) -> Path:
        """Python environments of nodes, shared by the nodes of this machine."""
        return self.root / "runtimes"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    def node(self, stack: str) -> Path:
        """Return the folder of a local node."""
        return self.nodes / stack

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def stacks(self) -> Path:
        return self.root / "stacks"

    @property
    def project(self) -> Path:
        """The folder for plain `pulumi`."""
        return self.root / "pulumi"

    def stack(self, stack: str) -> Path:
        """Return a stack's working folder, with its Pulumi.yaml, configuration and lock."""
        return self.stacks / stack


def ensure_home(home: Home) -> None:
    """Create GRIDUP_HOME for its owner only. An existing one keeps its mode, because others may use it too.

    Raises:
        StateError: the folder can't be created, or other users may replace files in it.
    """
    if not home.root.exists():
        try:
            ensure_private(home.root)
        except OSError as error:
            raise unusable(home, error) from error
        return
    found = home.root.stat()
    # In a sticky folder, such as /tmp, nobody can replace another user's files.
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise StateError(
            f"{home.root} may be changed by others (mode {stat.S_IMODE(found.st_mode):o}), and has secrets.",
            f"`chmod go-w {shlex.quote(str(home.root))}`, or set GRIDUP_HOME to a folder of your own in it.",
        )


def check_usable(home: Home) -> None:
    """Check that GRIDUP_HOME is a folder. If the user has set it, it may be missing but must be creatable.

    Raises:
        StateError: it is not a folder, or can't be created.
    """
    try:
        home.root.stat()
        os.listdir(home.root)  # noqa: PTH208 - no Path for each entry
    except FileNotFoundError:
        if not os.environ.get("GRIDUP_HOME"):
            return
        there = next(path for path in home.root.parents if path.exists())
        try:
            # Try it: the mode lets root write in /proc, and also says nothing about a full or read-only disk.
            Path(tempfile.mkdtemp(prefix=".gridup-", dir=there)).rmdir()
        except OSError as error:
            raise unusable(home, error) from error
    except PermissionError:
        return  # `check_owner` reports whose folder it is.
    except OSError as error:
        raise unusable(home, error) from error


def unusable(home: Home, error: OSError) -> StateError:
    """Return the error for a GRIDUP_HOME that can't be created or written."""
    return StateError(
        f"GRIDUP_HOME, {home.root}, can't be made or written: {error.strerror}.",
        "Set GRIDUP_HOME to a folder that you may write.",
    )


def check_owner(home: Home) -> None:
    """Check that this account may use GRIDUP_HOME, and that its files will belong to the owner of the folder.

    Raises:
        StateError: the folder belongs to another account, or root runs this in another user's home folder.
    """
    # Not `Path.exists`: it raises an error if a folder may not be entered.
    there = next(path for path in (home.root, *home.root.parents) if os.path.exists(path))  # noqa: PTH110
    try:
        owner = there.stat().st_uid
    except OSError:
        return
    us = os.geteuid()
    if us == 0 and owner != 0 and not os.environ.get("GRIDUP_HOME"):
        raise StateError(
            f"This run is root's, and {there} is {account(owner)}'s: what it made there, they could not use.",
            "Run it without sudo, as root with root's own HOME (`sudo -H`), or set GRIDUP_HOME.",
        )
    if there == home.root and owner != us and not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise not_ours(there)


def not_ours(path: Path) -> StateError:
    """Return the error for a path that another account has created and this account can't use."""
    try:
        owner = account(path.lstat().st_uid)
    except OSError:
        owner = "another account"
    words = ["sudo", "chown", "-R", str(os.geteuid()), str(path)]
    return StateError(
        f"{path} is {owner}'s, and this account may not use it.",
        f"An earlier run as {owner} has made it. `{shlex.join(words)}` gives it to this account.",
    )


def account(uid: int) -> str:
    """Return an account's name in the system's database, or its number. Ignores USER and LOGNAME."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def ensure_private(folder: Path) -> Path:
    """Create `folder` and its missing parents; only the owner may enter it (mode 0700 from the start)."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file atomically, with exactly the given mode, whatever the umask.

    By default only the owner may read it. The data is on the disk when this returns: if a power cut emptied
    the passphrase's file, the state would be lost.
    """
    durable.write(path, data, mode)
