"""The command line within the test's own process, over the fake engine."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gridup.__main__ import run
from gridup.session import Session
from gridup.settings import Settings
from gridup.state import State
from gridup_infra.outputs import NodeOutputs
from gridup_infra.paths import Home
from gridup_infra.spec import DeploySpec
from support.checkpoints import RESOURCES, deployment, outputs_for, write_checkpoint
from support.cli import Ended
from support.fake_engine import FakeEngine


@dataclass
class Inside:
    """`gridup` over a GRIDUP_HOME whose engine is the fake one."""

    home: Home
    engine: FakeEngine
    capsys: pytest.CaptureFixture[str]

    @property
    def state(self) -> Path:
        return self.home.state

    def __call__(self, *words: str) -> Ended:
        self.capsys.readouterr()
        code = run(list(words))
        out, err = self.capsys.readouterr()
        return Ended(code, out, err)

    def lay(self, name: str, *, half: bool = False, **fields: object) -> DeploySpec:
        """A node that is deployed as far as the state knows (`half`: interrupted); nothing of it is there."""
        spec = self.spec(name, **fields)
        if half:
            latest = deployment(spec, RESOURCES[:2], pending=[("creating", "node")])
            write_checkpoint(self.state, spec.stack, latest)
        else:
            self.lay_outputs(outputs_for(spec, self.home.node(spec.stack)))
        return spec

    @staticmethod
    def spec(name: str, **fields: object) -> DeploySpec:
        """Of a node to be laid."""
        return DeploySpec(name=name, stack_id=f"{len(name):016x}", bind="127.0.0.1", **fields)  # type: ignore[arg-type]

    def outputs(self, stack: str) -> NodeOutputs:
        """Of a node that is deployed."""
        record = State.of(Settings.load()).read(stack)
        assert record is not None and record.outputs is not None
        return record.outputs

    def lay_outputs(self, outputs: NodeOutputs) -> None:
        """A node that is deployed with just these outputs."""
        write_checkpoint(self.state, outputs.spec.stack, deployment(outputs.spec, outputs=outputs.exports()))


def spec_of(inside: Inside, stack: str = "inst") -> DeploySpec:
    """What the state has."""
    checkpoint = json.loads((inside.state / f".pulumi/stacks/gridup/{stack}.json").read_text())
    found = NodeOutputs.from_exports(checkpoint["checkpoint"]["latest"]["resources"][0]["outputs"])
    assert found
    return found.spec


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """A fresh one."""
    root = tmp_path / "a home #1"
    monkeypatch.setenv("GRIDUP_HOME", str(root))
    settings = Settings.load()
    settings.ensure_state()
    engine = FakeEngine(settings)
    monkeypatch.setattr(Session, "engine", lambda _session, _reporter, _wait=0: engine)
    monkeypatch.setattr(sys, "argv", ["gridup"])
    # `run` takes SIGTERM for itself; the test run gets it back.
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda _number, _handler: before)
    return Inside(settings.home, engine, capsys)
