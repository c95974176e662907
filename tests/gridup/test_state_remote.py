"""Reading the state of a backend that only the engine can read: what it is asked, and how often."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gridup import state as state_module
from gridup.settings import BACKEND, Settings
from gridup.setup import engine as setup
from gridup.setup.binary import Engine
from gridup.state import EngineBackend, State
from gridup_infra.errors import NotFoundError, StateError
from gridup_infra.paths import Home
from gridup_infra.spec import DeploySpec
from support.checkpoints import deployment, outputs_for
from support.fake_pulumi import FakePulumi
from support.inside import Inside

CLOUD = "https://api.pulumi.example"


def held(name: str, **fields: Any) -> dict[str, Any]:
    spec = DeploySpec(name, stack_id=f"{len(name):016x}", **fields)
    return deployment(spec, outputs=outputs_for(spec).exports())


@pytest.fixture
def pulumi(tmp_path: Path) -> FakePulumi:
    return FakePulumi(tmp_path / "an engine")


Read = Callable[..., State]


@pytest.fixture
def read(pulumi: FakePulumi, tmp_path: Path) -> Read:
    """The state that it holds."""

    def made(url: str = "s3://states", **environment: str) -> State:
        settings = Settings(
            Home(tmp_path / "home"), {"PATH": os.environ["PATH"], BACKEND: url, **environment}
        )
        backend = EngineBackend(settings, lambda: pulumi.root)
        return State(backend, backend.secret)

    return made


NAMES = ("Inst", "Lab One", "Zürich")
OURS = {
    f"organization/gridup/{stack}": held(name)
    for stack, name in zip(("inst", "lab-one", "zurich"), NAMES, strict=True)
}


def test_a_list_is_one_process_and_each_stack_one_more_all_at_once(pulumi: FakePulumi, read: Read) -> None:
    # None of them ends before all have begun.
    pulumi.hold(OURS | {"organization/other/theirs": {}}, together=3)
    assert [record.name for record in read().records()] == list(NAMES)
    assert [words[1] for words in pulumi.calls] == ["ls", "export", "export", "export"]
    assert sorted(words[words.index("--stack") + 1] for words in pulumi.calls[1:]) == [
        "inst",
        "lab-one",
        "zurich",
    ]


def test_one_node_is_one_process_also_where_there_is_none(pulumi: FakePulumi, read: Read) -> None:
    pulumi.hold(OURS)
    assert read().find("Lab One").stack == "lab-one"
    assert read().read("none") is None
    assert [words[1] for words in pulumi.calls] == ["export", "export"]


def test_an_unknown_name_reads_each_stack_once(pulumi: FakePulumi, read: Read) -> None:
    pulumi.hold(OURS)
    with pytest.raises(NotFoundError) as caught:
        read().find("Isnt")
    assert caught.value.suggestion == 'Did you mean "Inst"?'
    assert sorted(words[1] for words in pulumi.calls) == ["export"] * 4 + ["ls"]


def test_a_stack_by_its_own_name_is_two(pulumi: FakePulumi, read: Read) -> None:
    pulumi.hold(OURS)
    assert read().find_stack("inst").name == "Inst"
    assert [words[1] for words in pulumi.calls] == ["ls", "export"]


def test_a_damaged_stack_hides_no_other(pulumi: FakePulumi, read: Read) -> None:
    pulumi.hold(OURS | {"organization/gridup/bad": {"resources": [{}]}})
    problems = {record.name: bool(record.problem) for record in read().records()}
    assert problems == {"bad": True, **dict.fromkeys(NAMES, False)}


def test_what_the_engine_fails_at_is_told_and_is_no_missing_stack(pulumi: FakePulumi, read: Read) -> None:
    pulumi.hold({})
    (pulumi.root / "stacks.json").write_text("{")
    with pytest.raises(StateError, match=r"The backend s3://states can't be read"):
        read().read("inst")


CLOUDS = {
    "ada/gridup/inst": held("Inst", port=8081),
    "acme/gridup/inst": held("Inst", port=8082),
    "acme/gridup/lab": held("Lab"),
    "ada/website/inst": {},
}


@pytest.mark.parametrize(
    ("organization", "there", "port"),
    [("", ["inst"], 8081), ("acme", ["inst", "lab"], 8082), ("moon", [], 0)],
)
def test_on_pulumi_cloud_the_stacks_are_those_of_the_default_organization(
    pulumi: FakePulumi, read: Read, organization: str, there: list[str], port: int
) -> None:
    """The engine takes the account's own where none is set."""
    pulumi.account = "ada"
    pulumi.hold(CLOUDS)
    state = read(CLOUD, **({"PULUMI_DEFAULT_ORGANIZATION": organization} if organization else {}))
    assert state.stacks() == there
    record = state.read("inst")
    assert (record.outputs.spec.port if record and record.outputs else 0) == port
    if record:
        assert state.secret("inst", "name") == "Inst"
    assert [one.stack for one in state.records()] == there
    with pytest.raises(NotFoundError, match="no stack called"):
        state.find_stack("acme/lab" if organization != "acme" else "ada/inst")


def test_whatever_folder_it_is_run_in(
    pulumi: FakePulumi, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's own project may be there."""
    (tmp_path / "Pulumi.yaml").write_text("name: website\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    pulumi.account = "ada"
    pulumi.hold(CLOUDS)
    assert read(CLOUD).stacks() == ["inst"]
    assert read(CLOUD).find("Inst").outputs


def test_who_breaks_off_waits_for_no_stack_that_is_still_being_read(
    pulumi: FakePulumi, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "READ_SECONDS", 10.0**6)
    pulumi.hold(OURS, together=2)
    state = read()
    backend = state._backend

    def one(stack: str) -> None:
        if stack == "inst":
            backend.deployment(stack)  # Alone it never ends.
        while not list(pulumi.root.glob("reading-*")):
            threading.Event().wait(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.each(one, ["zurich", "inst"])


def test_status_of_many_nodes_is_one_process_more_than_nodes(
    inside: Inside, pulumi: FakePulumi, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Engine(pulumi.root, "3.0.0", "PATH")
    monkeypatch.setattr(setup, "ensure_engine", lambda *_: found)
    monkeypatch.setenv(BACKEND, "s3://states")
    many = {f"organization/gridup/n{i}": held(f"n{i}") for i in range(12)}
    pulumi.hold(many)
    shown = inside("status", "--no-probe", "--json").ok().json
    assert {row["name"] for row in shown} == {f"n{i}" for i in range(12)}
    assert len(pulumi.calls) == len(many) + 1
