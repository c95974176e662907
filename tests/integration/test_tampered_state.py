"""A state that somebody changed: the real engine runs nothing of it, in no command."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pytest

from gridup.engine import PulumiEngine
from gridup.settings import Settings
from gridup.setup.engine import ensure_engine
from gridup_infra.paths import Home
from gridup_infra.spec import DeploySpec
from gridup_infra.vm.resources import ManagementKey
from support.cache import shared_home
from support.checkpoints import checkpoint_path, outputs_for
from support.cli import Cli

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine]

SPEC = DeploySpec(name="Inst", stack_id="0123456789abcdef", bind="127.0.0.1", port=8089)

COMMANDS = [
    ("preview", "--name", "Inst"),
    ("deploy", "--name", "Inst", "--no-preflight", "--no-wait", "--yes"),
    ("refresh", "Inst"),
    ("destroy", "Inst", "--yes"),
]


@dataclass
class Payload:
    """What runs where it is unpickled."""

    left: Path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.left}'",)

    @property
    def provider(self) -> str:
        return base64.b64encode(pickle.dumps(self)).decode()


@dataclass
class Stack:
    """A home with one stack, which the real engine has made: a key, by a provider of ours."""

    cli: Cli
    made: dict[str, Any]

    @property
    def path(self) -> Path:
        return checkpoint_path(self.cli.home / "state", SPEC.stack)

    def lay(self, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
        """Write the state anew, with a change to what it is and to its key."""
        state = copy.deepcopy(self.made)
        latest = state["checkpoint"]["latest"]
        (key,) = [row for row in latest["resources"] if row["urn"].endswith("::key")]
        change(latest, key)
        self.path.write_text(json.dumps(state))
        return self.path.read_bytes()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cache: Path, engine: Path) -> Iterator[Stack]:
    home = shared_home(tmp_path_factory.mktemp("tampered") / "home", cache)
    cli = Cli(home)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cli.env().items():
            patch.setenv(name, value)
        settings = Settings.load()
        settings.ensure_state()

        def program() -> None:
            ManagementKey("key", {"stack": SPEC.stack, "stack_id": SPEC.stack_id})
            for key, value in outputs_for(SPEC).exports().items():
                pulumi.export(key, value)

        opened = PulumiEngine(settings, ensure_engine(Home(home), lambda _text: None))._open(SPEC.stack, SPEC)
        opened.workspace.program = program
        opened.up()
    found = Stack(cli, {})
    found.made = json.loads(found.path.read_text())
    yield found


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(tmp_path / "it ran")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize("where", ["inputs", "outputs", "pending"])
def test_a_provider_that_is_not_ours_is_never_run(
    stack: Stack, payload: Payload, words: tuple[str, ...], where: str
) -> None:
    def change(latest: dict[str, Any], key: dict[str, Any]) -> None:
        if where == "pending":
            other = {**key, "inputs": {**key["inputs"], "__provider": payload.provider}}
            latest["pending_operations"] = [{"type": "updating", "resource": other}]
        else:
            key[where]["__provider"] = payload.provider

    before = stack.lay(change)
    ended = stack.cli(*words)
    assert not payload.left.exists()
    assert ended.code == 1
    assert "The state of inst has what this Gridup did not write: the provider of key." in ended.err
    assert "restore a backup" in ended.err
    assert stack.path.read_bytes() == before


def test_the_one_that_wrote_the_state_may_go_on(stack: Stack) -> None:
    stack.lay(lambda _latest, _key: None)
    assert stack.cli("refresh", "Inst", "--json").ok().json["changes"] == []


def test_a_key_in_another_case_is_the_engines_too(stack: Stack, payload: Payload) -> None:
    def change(_latest: dict[str, Any], key: dict[str, Any]) -> None:
        key["Outputs"] = {**key["outputs"], "__provider": payload.provider}

    stack.lay(change)
    ended = stack.cli("refresh", "Inst")
    assert not payload.left.exists()
    assert "the provider of key" in ended.err


def test_of_a_key_that_is_there_twice_the_engine_merges_both(stack: Stack, payload: Payload) -> None:
    stack.lay(lambda _latest, key: key.update(outputs={"__provider": payload.provider}, twice=1))
    stack.path.write_text(stack.path.read_text().replace('"twice": 1', '"outputs": {}'))
    ended = stack.cli("refresh", "Inst")
    assert not payload.left.exists()
    assert "the provider of key" in ended.err


def test_a_newer_file_beside_the_state_is_what_counts(stack: Stack, payload: Payload) -> None:
    """The engine reads the newest of `inst.json`, `inst.json.gz` and `inst.json.zst`."""
    beside = stack.path.with_name("inst.json.gz")
    stack.lay(lambda _latest, key: key["outputs"].update(__provider=payload.provider))
    beside.write_bytes(gzip.compress(stack.path.read_bytes()))
    stack.lay(lambda _latest, _key: None)
    os.utime(stack.path, (1, 1))
    try:
        ended = stack.cli("refresh", "Inst")
    finally:
        beside.unlink()
    assert not payload.left.exists()
    assert "the provider of key" in ended.err
