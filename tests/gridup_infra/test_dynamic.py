"""What all dynamic providers share: they end with their engine, and tell what a preview can know."""

from __future__ import annotations

import asyncio
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulumi import UNKNOWN
from pulumi.runtime import rpc

from gridup_infra.paths import ensure_private
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import ports
from gridup_infra.targets.dynamic import SHAPE, Provider
from gridup_infra.targets.local.providers import NodeDirProvider, ServicesProvider
from gridup_infra.vm.providers import ContainerHostProvider
from gridup_node.image import bundle_digest

PROVIDER = """
import time
from gridup_infra.targets import dynamic
dynamic._watch_engine()
print("watching", flush=True)
time.sleep(600)
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
        assert provider.wait(timeout=120) == 1


def test_one_that_was_gone_before_is_noticed_too(engine: socket.socket) -> None:
    host, port = engine.getsockname()
    engine.close()
    with started(f"{host}:{port}") as provider:
        assert provider.wait(timeout=120) == 1


def on_the_wire(props: dict[str, Any]) -> dict[str, Any]:
    """Properties as the engine's request brings them to a provider's process."""
    loop = asyncio.new_event_loop()
    try:
        found = rpc.deserialize_properties(loop.run_until_complete(rpc.serialize_properties(props, {})), True)
    finally:
        loop.close()
    assert isinstance(found, dict)
    return found


SERVICES = {"build_id": "1", "fingerprints": {"api": "a"}, "restart_tokens": {"api": "r"}, "https": False}


@pytest.mark.parametrize(
    ("provider", "olds", "unknown", "changed"),
    [
        (ServicesProvider(), SERVICES, {}, False),
        (ServicesProvider(), SERVICES, {"restart_tokens": UNKNOWN}, False),
        (ServicesProvider(), SERVICES, {"restart_tokens": {"api": UNKNOWN}}, False),
        (ServicesProvider(), SERVICES, {"restart_tokens": UNKNOWN, "https": True}, True),
        (ServicesProvider(), SERVICES, {"build_id": UNKNOWN}, True),
        (ServicesProvider(), SERVICES, {"fingerprints": UNKNOWN}, True),
        (ContainerHostProvider(), {"machine": "i-1", SHAPE: "a"}, {"machine": UNKNOWN}, False),
        (ContainerHostProvider(), {"machine": "i-1", SHAPE: "a"}, {"machine": UNKNOWN, SHAPE: UNKNOWN}, True),
        # One that was deployed before it had that input.
        (ContainerHostProvider(), {"machine": "i-1"}, {"machine": UNKNOWN, SHAPE: "a"}, True),
        (ContainerHostProvider(), {"machine": "i-1"}, {SHAPE: "a"}, False),
    ],
)
def test_what_a_preview_cannot_know_is_a_change_where_it_must_be(
    provider: Provider, olds: dict[str, Any], unknown: dict[str, Any], changed: bool
) -> None:
    answer = provider.diff("x", on_the_wire(olds), on_the_wire({**olds, **unknown}))
    assert answer.changes == changed


class TestLocalNode:
    """What a preview knows of a local node's outputs, once it is laid."""

    @pytest.fixture
    def laid(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setattr(ports, "hold", lambda _address, _port: True)
        monkeypatch.setattr(ports, "free", lambda _address, _port, _look=None: True)
        spec = DeploySpec("Inst", target="local", stack_id="0123456789abcdef", bind="127.0.0.1")
        folder = ensure_private(tmp_path / "nodes") / "inst"
        inputs = {"folder": str(folder), "spec": spec.to_config(), "bin": "/x/bin", "bundle": bundle_digest()}
        return self.deployed({**inputs, "syft_version": "0.9.5"})

    @staticmethod
    def checked(inputs: dict[str, Any], **asked: str) -> dict[str, Any]:
        return NodeDirProvider().check({}, {**inputs, "spec": {**inputs["spec"], **asked}}).inputs

    def deployed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {**inputs, **(NodeDirProvider().create(self.checked(inputs)).outs or {})}

    def test_what_its_programs_do_not_read_changes_none_of_them(self, laid: dict[str, Any]) -> None:
        foreseen = self.checked(laid, **{"keep-data": "true"})
        assert foreseen["fingerprints"] == laid["fingerprints"]
        assert NodeDirProvider().diff("x", laid, foreseen).changes
        assert not NodeDirProvider().diff("x", laid, self.checked(laid)).changes

    def test_what_one_of_them_reads_changes_that_one(self, laid: dict[str, Any]) -> None:
        found = self.checked(laid, organization="Lab")["fingerprints"]
        assert {name for name in found if found[name] != laid["fingerprints"][name]} == {"api"}
        assert self.checked(laid, organization="")["fingerprints"]["api"] != laid["fingerprints"]["api"]

    def test_another_port_or_a_file_to_be_put_right_is_foreseen_by_nobody(self, laid: dict[str, Any]) -> None:
        inputs = {key: value for key, value in laid.items() if key not in NodeDirProvider.computed}
        assert "fingerprints" in self.checked(inputs)
        assert "fingerprints" not in self.checked(inputs, port="9123")
        assert "fingerprints" not in NodeDirProvider().check({}, {**inputs, "bin": UNKNOWN}).inputs
        (Path(inputs["folder"]) / "config" / "Caddyfile").write_text("by hand")
        assert "fingerprints" not in self.checked(inputs)
