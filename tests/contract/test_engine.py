"""What every engine promises. The fake one serves the tests of commands; this keeps it honest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup.engine import PulumiEngine
from gridup.engine_api import Engine
from gridup.reporter import Silent
from gridup.settings import Settings
from gridup.state import State
from gridup_infra.errors import GridupError, StateError
from gridup_infra.paths import Home
from gridup_infra.spec import DeploySpec
from support.checkpoints import RESOURCES, deployment, outputs_for, write_checkpoint
from support.fake_engine import FakeEngine

SPEC = DeploySpec(name="My Lab_2", stack_id="0123456789abcdef", bind="127.0.0.1")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "a home #1"))
    # The providers are processes of the engine's, and import our packages too.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    made = Settings.load()
    made.ensure_state()
    return made


def _fake(settings: Settings, _request: pytest.FixtureRequest) -> Engine:
    return FakeEngine(settings)


def _real(settings: Settings, request: pytest.FixtureRequest) -> Engine:
    from gridup.setup.engine import ensure_engine

    request.getfixturevalue("engine")
    cache: Path = request.getfixturevalue("cache")
    return PulumiEngine(settings, ensure_engine(Home(cache), lambda _text: None))


@pytest.fixture(params=[_fake, pytest.param(_real, marks=pytest.mark.engine)], ids=["fake", "real"])
def any_engine(request: pytest.FixtureRequest, settings: Settings) -> Engine:
    make: Callable[[Settings, pytest.FixtureRequest], Engine] = request.param
    return make(settings, request)


def state(settings: Settings) -> State:
    return State.of(settings)


class TestAny:
    """What needs no node: the fake and the real one alike."""

    def test_a_preview_of_a_new_node_shows_each_resource_and_makes_no_stack(
        self, any_engine: Engine, settings: Settings
    ) -> None:
        report = any_engine.preview(SPEC, Silent(), new=True)
        assert [(change.name, change.operation) for change in report.changes] == [
            (n, "create") for n in RESOURCES
        ]
        assert state(settings).stacks() == []

    def test_where_nothing_is_locked_there_is_nothing_to_unlock(self, any_engine: Engine) -> None:
        assert any_engine.unlock("my-lab-2") is False

    @pytest.mark.parametrize("word", ["refresh", "import_existing", "destroy", "remove_stack"])
    def test_a_stack_that_is_none_is_an_error_and_makes_none(
        self, any_engine: Engine, settings: Settings, word: str
    ) -> None:
        more: dict[str, tuple[Any, ...]] = {
            "remove_stack": (),
            "import_existing": ({"urn:a": "/a"}, Silent()),
        }
        words = ("my-lab-2", *more.get(word, (Silent(),)))
        with pytest.raises(StateError, match="no stack named"):
            getattr(any_engine, word)(*words)
        assert state(settings).stacks() == []


@pytest.mark.engine
def test_a_preview_of_a_stack_that_exists_writes_nothing_into_its_folder(
    settings: Settings, request: pytest.FixtureRequest
) -> None:
    real = _real(settings, request)
    assert isinstance(real, PulumiEngine)
    # As a first deploy leaves it that was interrupted before it made anything.
    real._open(SPEC.stack, SPEC)
    folder = settings.home.stack(SPEC.stack)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert settings.stack_file(SPEC.stack).name in before
    report = real.preview(replace(SPEC, port=9001, organization="Previewed"), Silent(), new=False)
    assert [change.name for change in report.changes] == list(RESOURCES)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert [path.name for path in folder.glob("engines/*")] == []
    assert "Previewed" not in "".join(settings.stored_config(SPEC.stack).values())


class TestFake:
    """What would start a node: the fake alone; `tests/integration` does it with the real one."""

    @pytest.fixture
    def fake(self, settings: Settings) -> Iterator[FakeEngine]:
        yield FakeEngine(settings)

    def test_a_life(self, fake: FakeEngine, settings: Settings) -> None:
        made = fake.up(SPEC, Silent())
        assert [change.name for change in made.changes] == list(RESOURCES)
        record = state(settings).find("My Lab_2")
        assert record.outputs is not None
        assert record.outputs.spec == SPEC
        assert fake.up(SPEC, Silent()).unchanged
        assert fake.preview(SPEC, Silent(), new=False).unchanged
        moved = replace(SPEC, port=9001)
        assert not fake.preview(moved, Silent(), new=False).unchanged
        assert {change.operation for change in fake.up(moved, Silent()).changes} == {"update"}
        gone = fake.destroy("my-lab-2", Silent())
        assert [change.name for change in gone.changes] == list(reversed(RESOURCES))
        assert state(settings).read("my-lab-2") is None
        fake.remove_stack("my-lab-2")
        assert state(settings).stacks() == []

    def test_a_create_that_fails_leaves_what_was_made_before(
        self, fake: FakeEngine, settings: Settings
    ) -> None:
        fake.fail_at = ("node", "no room")
        with pytest.raises(GridupError, match="node: no room"):
            fake.up(SPEC, Silent())
        record = state(settings).find("My Lab_2")
        assert (record.resources, record.outputs) == (("owner", "runtime"), None)
        fake.fail_at = None
        assert [change.name for change in fake.up(SPEC, Silent()).changes][-2:] == ["node", "services"]

    def test_its_checkpoints_are_what_the_state_reads(self, settings: Settings) -> None:
        root = settings.file_backend
        assert root is not None
        write_checkpoint(root, SPEC.stack, deployment(SPEC, outputs=outputs_for(SPEC).exports()))
        record = state(settings).read(SPEC.stack)
        assert record is not None
        assert record.outputs == outputs_for(SPEC)
