"""What all dynamic providers share: they end with their engine."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

PROVIDER = """
import time
from gridup_infra.targets import dynamic
dynamic._watch_engine()
print("watching", flush=True)
time.sleep(60)
"""


@pytest.fixture
def engine() -> Iterator[socket.socket]:
    """What listens where an engine does; no ancestor of a provider is called so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def started(address: str) -> subprocess.Popen[str]:
    """A provider, below a shell that outlives the engine."""
    argv = shlex.join([sys.executable, "-c", PROVIDER, address])
    return subprocess.Popen(["sh", "-c", f"{argv}; exit $?"], stdout=subprocess.PIPE, text=True)


def test_a_provider_whose_engine_is_gone_ends(engine: socket.socket) -> None:
    host, port = engine.getsockname()
    with started(f"{host}:{port}") as provider:
        assert provider.stdout is not None
        assert provider.stdout.readline() == "watching\n"
        with pytest.raises(subprocess.TimeoutExpired):
            provider.wait(timeout=1)
        engine.close()
        assert provider.wait(timeout=20) == 1


def test_one_that_was_gone_before_is_noticed_too(engine: socket.socket) -> None:
    host, port = engine.getsockname()
    engine.close()
    with started(f"{host}:{port}") as provider:
        assert provider.wait(timeout=20) == 1
