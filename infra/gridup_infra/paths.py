"""Where Gridup keeps things on this machine: one place for every path below GRIDUP_HOME."""

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

    @property
    def stacks(self) -> Path:
        return self.root / "stacks"

    @property
    def project(self) -> Path:
        """The folder for plain `pulumi`."""
        return self.root / "pulumi"

    def stack(self, stack: str) -> Path:
        """A stack's working folder: its Pulumi.yaml, configuration and lock."""
        return self.stacks / stack


def ensure_home(home: Home) -> None:
    """Make GRIDUP_HOME, for its owner alone. One that is there keeps its mode: others may use it, too.

    Raises:
        StateError: it can't be made; or others may replace what is kept in it.
    """
    if not home.root.exists():
        try:
            ensure_private(home.root)
        except OSError as error:
            raise unusable(home, error) from error
        return
    found = home.root.stat()
    # Where it is sticky, as /tmp is, nobody replaces what is another's.
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise StateError(
            f"{home.root} may be changed by others (mode {stat.S_IMODE(found.st_mode):o}), and has secrets.",
            f"`chmod go-w {shlex.quote(str(home.root))}`, or set GRIDUP_HOME to a folder of your own in it.",
        )


def check_usable(home: Home) -> None:
    """Nothing, when GRIDUP_HOME is a folder, or, where the person has set it, can be made one.

    Raises:
        StateError: it is none, and can't be.
    """
    try:
        home.root.stat()
        os.listdir(home.root)  # noqa: PTH208 - no Path for each entry
    except FileNotFoundError:
        if not os.environ.get("GRIDUP_HOME"):
            return
        there = next(path for path in home.root.parents if path.exists())
        try:
            # Only to try tells: of /proc root may write, and of a full or read-only disk anybody.
            Path(tempfile.mkdtemp(prefix=".gridup-", dir=there)).rmdir()
        except OSError as error:
            raise unusable(home, error) from error
    except PermissionError:
        return  # Whose it is, `check_owner` tells.
    except OSError as error:
        raise unusable(home, error) from error


def unusable(home: Home, error: OSError) -> StateError:
    """The error for a GRIDUP_HOME that can't be made or written."""
    return StateError(
        f"GRIDUP_HOME, {home.root}, can't be made or written: {error.strerror}.",
        "Set GRIDUP_HOME to a folder that you may write.",
    )


def check_owner(home: Home) -> None:
    """Nothing, when what is made in GRIDUP_HOME will be whose home it is in.

    Raises:
        StateError: it is another's, or this run is root's in the home folder of somebody else.
    """
    # Not `Path.exists`, which fails where a folder may not be entered.
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
    """The error for a path that another account has made, which this one can't use."""
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
    """An account's name as the system has it, whatever USER and LOGNAME say; its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def ensure_private(folder: Path) -> Path:
    """Make `folder` and its missing parents; only its owner may enter it (0700 from the first moment)."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all, never readable by others, whatever the umask.

    It is on the disk when this returns: a state whose passphrase a power cut has emptied is lost.
    """
    durable.write(path, data, mode)
