"""What all tests share: the part a machine lacks skips with its reason, but never in CI."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import azure_native
from support.arm import Arm
from support.audits import scanners
from support.cache import engine_in, runtime_in, shared_home, test_cache
from support.cli import Cli
from support.docker_rig import Daemon, base_image
from support.moto_rig import Moto
from support.own_network import can_have_one, own_network
from support.tiers import wanted
from support.vm_rig import Rig


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before a whole tier is run in workers, get what takes minutes, where it can be seen."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly or not getattr(config.option, "tx", None):
        return
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    for get in (engine_in, runtime_in):
        # A machine that can't have it skips the tests that need it, or fails them; each says why.
        with contextlib.suppress(pytest.skip.Exception):
            get(test_cache(), lambda text: terminal.write_line(f"Getting ready: {text}"))
    if "gate" in wanted(config) or "deep" in wanted(config):
        # Where a worker has a network of its own, nothing can be fetched.
        with contextlib.suppress(pytest.skip.Exception):
            scanners()


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
    return shared_home(tmp_path / "home", cache, runtimes=True)


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
    runner = Cli(shared_home(tmp_path_factory.mktemp("node") / "home", cache, runtimes=True))
    yield runner
    runner.destroy_all()


def pytest_report_header() -> str:
    return f"gridup: python {sys.version.split()[0]}, sshd {shutil.which('sshd', path='/usr/sbin') or 'none'}"


@pytest.fixture(scope="module")
def own_ports() -> Iterator[None]:
    """For nodes on this machine: a loopback that no other worker's nodes are on."""
    if "PYTEST_XDIST_WORKER" in os.environ and can_have_one():
        with own_network():
            yield
    else:
        yield


# Docker: a daemon of the tests' own, which they may stop, restart and kill.


@pytest.fixture(scope="session")
def docker_daemon(cache: Path) -> Iterator[Daemon]:
    """The daemon, with the node's base image on it. Skips where it can't be had.

    A test that stops or kills it starts it again (`start()`).
    """
    with Daemon(cache / "docker") as daemon:
        base_image(daemon, cache)
        yield daemon


@pytest.fixture(scope="session")
def docker_host(docker_daemon: Daemon) -> str:
    """The daemon's address, as DOCKER_HOST takes it."""
    return docker_daemon.host


@pytest.fixture
def docker_cli(bare_home: Cli, docker_host: str) -> Iterator[Cli]:
    """As `bare_home`, with the tests' own Docker daemon; whatever is left deployed is destroyed."""
    bare_home.environment["DOCKER_HOST"] = docker_host
    yield bare_home
    bare_home.destroy_all()


@pytest.fixture(scope="module")
def module_docker_cli(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, engine: Path, docker_host: str
) -> Iterator[Cli]:
    """As `docker_cli`, for the tests of one module that share a node."""
    home = shared_home(tmp_path_factory.mktemp("docker") / "home", cache)
    runner = Cli(home, {"DOCKER_HOST": docker_host})
    yield runner
    runner.destroy_all()


# Machines that boot.


@pytest.fixture(scope="session")
def vm_rig(cache: Path) -> Iterator[Rig]:
    """Makes machines, and removes what is left of them at the end. Skips where none can be had."""
    with Rig(cache) as rig:
        yield rig


# AWS: moto's server, and a proxy before it.


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """The server, which all tests share."""
    with Moto(tmp_path_factory.mktemp("moto")) as moto:
        yield moto


@pytest.fixture
def moto(moto_server: Moto) -> Moto:
    """An AWS account with nothing in it but what every new one has."""
    moto_server.reset()
    return moto_server


@pytest.fixture
def aws(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    """The same, with this process as its customer."""
    # The product's clients are kept from test to test: making one takes 0.2 s, and its place is the same.
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    return moto


@pytest.fixture
def aws_url(aws: Moto) -> str:
    """Its address, as AWS_ENDPOINT_URL takes it."""
    return aws.url


@pytest.fixture
def aws_cli(bare_home: Cli, moto: Moto) -> Iterator[Cli]:
    """Runs `gridup` with that account; what is left deployed is destroyed."""
    bare_home.environment.update(moto.environment)
    yield bare_home
    moto.proxy.clear()
    bare_home.destroy_all()


@pytest.fixture(scope="session")
def arm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    """An Azure, which all tests share."""
    with Arm(tmp_path_factory.mktemp("arm")) as arm:
        yield arm


@pytest.fixture
def arm(arm_server: Arm) -> Arm:
    """A subscription with nothing in it."""
    arm_server.reset()
    return arm_server


@pytest.fixture
def azure(arm: Arm, monkeypatch: pytest.MonkeyPatch) -> Arm:
    """The same, with this process as its customer."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "ARM_")):
            monkeypatch.delenv(name)
    for name, value in arm.environment.items():
        monkeypatch.setenv(name, value)
    return arm


@pytest.fixture
def azure_url(azure: Arm) -> str:
    """Its address, as AZURE_RESOURCE_MANAGER_URL takes it."""
    return azure.url


@pytest.fixture
def azure_cli(bare_home: Cli, arm: Arm, tmp_path: Path) -> Iterator[Cli]:
    """Runs `gridup` with that subscription and our own provider; what is left deployed is destroyed."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    azure_native.install(plugins)
    path = os.pathsep.join([str(plugins), os.environ["PATH"]])
    bare_home.environment.update({**arm.environment, "PATH": path})
    yield bare_home
    arm.interference.clear()
    bare_home.destroy_all()


@pytest.fixture
def bare_home(tmp_path: Path, cache: Path, engine: Path) -> Cli:
    """A fresh GRIDUP_HOME that shares only the engine: for nodes that do not run on this machine."""
    return Cli(shared_home(tmp_path / "home", cache))
