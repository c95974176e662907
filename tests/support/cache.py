"""What costs minutes and is the same for every test: the engine and the node's environment."""

from __future__ import annotations

import os
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


def engine_in(cache: Path) -> Path:
    """The engine's root. Skips where it can't be had."""
    from gridup.setup.engine import ensure_engine

    try:
        return Path(ensure_engine(Home(cache), print).root)
    except GridupError as error:
        pytest.skip(f"no Pulumi engine: {error.message}")


def runtime_in(cache: Path) -> Path:
    """The node's environment. Skips where it can't be had."""
    from gridup_infra.targets.local import runtime
    from gridup_node import catalog

    try:
        return runtime.ensure(Home(cache).runtimes, catalog.lock_for("latest"), print).path
    except GridupError as error:
        pytest.skip(f"no node environment: {error.message}")
