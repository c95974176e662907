"""What costs minutes and is the same for every test: the engine and the node's environment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gridup_infra.errors import GridupError
from gridup_infra.paths import Home, ensure_private


def test_cache() -> Path:
    """`GRIDUP_TEST_CACHE`, else a folder in the person's cache."""
    given = os.environ.get("GRIDUP_TEST_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return ensure_private(Path(given) if given else base / "gridup-tests")


test_cache.__test__ = False  # type: ignore[attr-defined]


def engine_in(cache: Path, progress: Callable[[str], None] = print) -> Path:
    """The engine's root: the one that `gridup` itself uses here, or now gets. Skips where none can be had."""
    from gridup.setup import binary
    from gridup.setup.engine import ensure_engine, find_engine

    own = Home(cache)
    try:
        if found := find_engine(own):
            return Path(found.root)
        theirs = ensure_engine(Home.default(), progress)
    except GridupError as error:
        pytest.skip(f"no Pulumi engine: {error.message}")
    if theirs.source != "PATH":
        _link(own.engine / binary.ENGINE_VERSION, Path(theirs.root))
    return Path(theirs.root)


def runtime_in(cache: Path, progress: Callable[[str], None] = print) -> Path:
    """The node's environment; the one that `gridup` itself has made here, or one of our own.

    Skips where none can be had.
    """
    from gridup_infra.targets.local import runtime
    from gridup_node import catalog

    lock = catalog.lock_for("latest")
    try:
        _, version = runtime.find_python()
        ours, theirs = (
            runtime.runtime_path(home.runtimes, lock, version) for home in (Home(cache), Home.default())
        )
        if runtime.load(ours) is None and runtime.load(theirs) is not None:
            _link(ours, theirs)
        return runtime.ensure(ours.parent, lock, progress).path
    except GridupError as error:
        pytest.skip(f"no node environment: {error.message}")


def shared_home(root: Path, cache: Path, *, runtimes: bool = False) -> Path:
    """A GRIDUP_HOME with the engine that all tests share, and with `runtimes` the node's environment too.

    A test may remove the links, never what is behind them.
    """
    root.mkdir(mode=0o700, exist_ok=True)
    (root / "engine").symlink_to(ensure_private(cache / "engine"))
    for folder in (cache / "runtimes").glob("*/") if runtimes else ():
        _link(root / "runtimes" / folder.name, folder)
    return root


def _link(link: Path, folder: Path) -> None:
    """Let `link` lead to a folder; several workers may do so at the same time."""
    ensure_private(link.parent)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    temporary = link.with_name(f".{link.name}-{os.getpid()}")
    temporary.symlink_to(folder)
    temporary.replace(link)
