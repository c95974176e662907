"""What all tests share: the part a machine lacks skips with its reason, but never in CI."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cache import engine_in, runtime_in, test_cache
from support.cli import Cli


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's reaches a test."""
    for name in list(os.environ):
        if name.startswith(("GRIDUP_", "PULUMI_")) and name not in ("GRIDUP_REQUIRE", "GRIDUP_TEST_CACHE"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cache() -> Path:
    """A GRIDUP_HOME that outlives the run: the engine and the node's environment, made once."""
    return test_cache()


@pytest.fixture(scope="session")
def engine(cache: Path) -> Path:
    """The real engine's root, by the product's own set-up."""
    return engine_in(cache)


@pytest.fixture(scope="session")
def runtime(cache: Path) -> Path:
    """The node's environment, by the product's own target."""
    return runtime_in(cache)


@pytest.fixture
def home(tmp_path: Path, cache: Path, engine: Path, runtime: Path) -> Path:
    """A fresh GRIDUP_HOME that shares only the engine and the node's environment."""
    root = tmp_path / "home"
    root.mkdir(mode=0o700)
    for shared in ("engine", "runtimes"):
        (root / shared).symlink_to(cache / shared)
    return root


@pytest.fixture
def cli(home: Path) -> Iterator[Cli]:
    """Runs `gridup` as a person would; whatever is left deployed afterwards is destroyed."""
    runner = Cli(home)
    yield runner
    runner.destroy_all()


@pytest.fixture
def bare_cli(tmp_path: Path) -> Cli:
    """Runs `gridup` in an empty GRIDUP_HOME, for what needs neither engine nor node."""
    return Cli(tmp_path / "home")


@pytest.fixture(scope="module")
def module_cli(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, engine: Path, runtime: Path
) -> Iterator[Cli]:
    """As `cli`, for the tests of one module that share a node."""
    root = tmp_path_factory.mktemp("home")
    root.chmod(0o700)
    for shared in ("engine", "runtimes"):
        (root / shared).symlink_to(cache / shared)
    runner = Cli(root)
    yield runner
    runner.destroy_all()


def pytest_report_header() -> str:
    return f"gridup: python {sys.version.split()[0]}, sshd {shutil.which('sshd', path='/usr/sbin') or 'none'}"
