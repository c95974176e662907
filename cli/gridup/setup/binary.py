"""The engine on disk: how to load it, and how to publish it so that an incomplete one is never used."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gridup_infra.errors import SetupError
from gridup_infra.paths import ensure_private
from gridup_infra.processes import run
from gridup_infra.room import free_at

ENGINE_VERSION = "3.274.1"
"""The engine version that Gridup is tested with. `module/go.mod` requires the same (a test compares them)."""

PROVIDER = "pulumi-resource-pulumi-python"
"""The program that runs dynamic providers. The engine looks for it in its own folder and on PATH."""

MARKER = "complete.json"
STAGING = ".making-"


class SourceError(SetupError):
    """One source did not provide an engine; another one may. Its message is a part of a sentence."""


@dataclass(frozen=True)
class Engine:
    """A Pulumi engine that can be used.

    Attributes:
        root: its folder. It contains `bin/pulumi`, as `pulumi.automation.PulumiCommand` requires.
        version: its version, such as 3.274.1.
        source: where it came from: "PATH", "download" or "build".
    """

    root: Path
    version: str
    source: str

    @property
    def pulumi(self) -> Path:
        return self.root / "bin" / "pulumi"


@dataclass(frozen=True, order=True)
class Version:
    """A version that can be compared. A pre-release is older than the release with the same numbers."""

    numbers: tuple[int, int, int]
    final: bool

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """Return the version in the output of `pulumi version`; None if there is none."""
        found = re.search(r"^v?(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?", text.strip(), re.MULTILINE)
        if not found:
            return None
        major, minor, patch = (int(found[group]) for group in (1, 2, 3))
        return cls((major, minor, patch), found[4] is None)


def is_compatible(text: str) -> bool:
    """Return whether an engine version can be used: same major version as `ENGINE_VERSION`, and not older."""
    version, wanted = Version.parse(text), Version.parse(ENGINE_VERSION)
    if version is None or wanted is None:
        return False
    return version.numbers[0] == wanted.numbers[0] and version >= wanted


def ask_version(pulumi: Path, timeout: float = 30) -> str | None:
    """Return the version that the engine reports; None if it does not run."""
    # Without this variable, it first asks Pulumi's servers for a newer version.
    env = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"}
    try:
        result = run([pulumi, "version"], timeout=timeout, env=env)
    except (OSError, TimeoutError):
        return None
    return result.stdout.strip().removeprefix("v") if result.ok else None


def load(folder: Path) -> Engine | None:
    """Return the engine in a folder of GRIDUP_HOME; None if it is missing, incomplete or damaged."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        sizes = marker["sizes"]
        if not all((folder / "bin" / name).stat().st_size == size for name, size in sizes.items()):
            return None
        if not all(
            name in sizes and os.access(folder / "bin" / name, os.X_OK) for name in ("pulumi", PROVIDER)
        ):
            return None
        return Engine(folder, str(marker["version"]), str(marker["source"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def staging(engines: Path) -> Iterator[Path]:
    """Create a temporary folder to make an engine in. Delete it at the end, unless `publish` has moved it."""
    folder = engines / f"{STAGING}{secrets.token_hex(4)}"
    (ensure_private(folder) / "bin").mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def publish(staged: Path, target: Path, source: str) -> Engine:
    """Verify a staged engine, mark it as complete and move it to `target`.

    Raises:
        SourceError: the engine does not run here, has another version, or lacks the provider program.
    """
    version = ask_version(staged / "bin" / "pulumi")
    if version is None:
        raise SourceError(f"the engine from the {source} does not run on this machine")
    if Version.parse(version) != Version.parse(ENGINE_VERSION):
        raise SourceError(f"the engine from the {source} is {version}, not {ENGINE_VERSION}")
    if not (staged / "bin" / PROVIDER).is_file():
        raise SourceError(f"the engine from the {source} has no {PROVIDER}")
    sizes = {path.name: path.stat().st_size for path in (staged / "bin").iterdir()}
    marker = {"version": version, "source": source, "sizes": sizes}
    (staged / MARKER).write_text(json.dumps(marker), encoding="utf-8")
    remove(target)
    staged.rename(target)
    return Engine(target, version, source)


def remove_leftovers(engines: Path) -> None:
    """Remove the folders that interrupted runs left. The caller holds the lock, so nobody else uses them."""
    for folder in engines.glob(f"{STAGING}*"):
        remove(folder)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


ANOTHER_HOME = "set GRIDUP_HOME to a folder on another disk"


def check_room(folder: Path, needed: int, what: str, otherwise: str = ANOTHER_HOME) -> None:
    """Check that the disk has enough free space before a task begins.

    Args:
        needed: bytes.
        what: the task, as the subject of the error message.
        otherwise: what a user who can't free space can do.

    Raises:
        SetupError: less than `needed` bytes are free.
    """
    free = free_at(folder)
    if free < needed:
        raise SetupError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}; {free / 1e9:.1f} GB are free.",
            f"Free some space, or {otherwise}.",
        )


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full_error(where: str, otherwise: str = ANOTHER_HOME) -> SetupError:
    return SetupError(f"The disk of {where} is full.", f"Free some space, or {otherwise}.")
