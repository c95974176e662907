"""Reading the state as it lies on the disk: whole, half-made or damaged, and nothing is made by looking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gridup.state import FileBackend, State, resource_name
from gridup_infra.errors import NotFoundError, StateError, UsageError
from gridup_infra.spec import DeploySpec
from support.checkpoints import RESOURCES, checkpoint_path, deployment, outputs_for, write_checkpoint

SPEC = DeploySpec(name="My Lab_2", stack_id="0123456789abcdef", port=8081)


def whole(spec: DeploySpec = SPEC) -> dict[str, Any]:
    return deployment(spec, outputs=outputs_for(spec).exports())


def lay(root: Path, *names: str) -> State:
    for name in names:
        spec = DeploySpec(name=name, stack_id=f"{len(name):016x}")
        write_checkpoint(root, spec.stack, whole(spec))
    return State(FileBackend(root))


def everything(root: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("zipped", [False, True])
def test_a_deployed_node_is_read_whole(tmp_path: Path, zipped: bool) -> None:
    write_checkpoint(tmp_path, SPEC.stack, whole(), zipped=zipped)
    state = State(FileBackend(tmp_path))
    assert state.stacks() == ["my-lab-2"]
    record = state.read("my-lab-2")
    assert record is not None
    assert (record.name, record.target, record.resources, record.pending) == (
        "My Lab_2",
        "local",
        RESOURCES,
        (),
    )
    assert record.outputs == outputs_for(SPEC)
    assert not record.incomplete
    assert record.identity is not None
    assert (record.identity.stack_id, record.identity.facts["name"]) == (SPEC.stack_id, "My Lab_2")
    assert "__provider" not in record.identity.facts


def test_one_whose_making_was_broken_off_is_known_by_its_owner(tmp_path: Path) -> None:
    made = deployment(SPEC, ["owner", "runtime"], pending=[("creating", "node")])
    write_checkpoint(tmp_path, SPEC.stack, made)
    record = State(FileBackend(tmp_path)).find("My Lab_2")
    assert record.outputs is None
    assert (record.incomplete, record.pending) == (True, ("creating node",))
    assert (record.name, record.target) == ("My Lab_2", "local")
    assert record.resources == ("owner", "runtime")


def test_an_update_that_was_broken_off_is_half_made_though_it_has_its_outputs(tmp_path: Path) -> None:
    made = deployment(SPEC, outputs=outputs_for(SPEC).exports(), pending=[("updating", "services")])
    write_checkpoint(tmp_path, SPEC.stack, made)
    record = State(FileBackend(tmp_path)).find("My Lab_2")
    assert record.outputs is not None
    assert record.incomplete


def test_one_broken_off_at_its_very_first_step_is_found_by_its_stack(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SPEC.stack, deployment(SPEC, [], pending=[("creating", "owner")]))
    record = State(FileBackend(tmp_path)).find("my-lab-2")
    assert (record.name, record.identity, record.target) == ("my-lab-2", None, "")


@pytest.mark.parametrize("latest", [None, {}, deployment(SPEC, [])])
def test_an_empty_stack_is_none(tmp_path: Path, latest: Any) -> None:
    write_checkpoint(tmp_path, SPEC.stack, latest)
    state = State(FileBackend(tmp_path))
    assert state.read(SPEC.stack) is None
    assert state.records() == []
    with pytest.raises(NotFoundError):
        state.find("My Lab_2")


def test_no_state_at_all_is_no_error(tmp_path: Path) -> None:
    state = State(FileBackend(tmp_path / "none"))
    assert (state.stacks(), state.records(), state.read("inst")) == ([], [], None)


def _checkpoint(latest: object) -> bytes:
    return json.dumps({"version": 3, "checkpoint": {"latest": latest}}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"checkpoint": null}',
        b'{"checkpoint": []}',
        _checkpoint("x"),
        _checkpoint({"resources": [{}]}),
        _checkpoint({"resources": ["x"]}),
        _checkpoint({"resources": {"a": 1}}),
        _checkpoint({"resources": [], "pending_operations": [{"type": "creating"}]}),
    ],
)
def test_a_damaged_checkpoint_is_said_to_be_so(tmp_path: Path, raw: bytes) -> None:
    path = checkpoint_path(tmp_path, "inst")
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    with pytest.raises(StateError, match=r"inst.* is damaged"):
        State(FileBackend(tmp_path)).read("inst")


@pytest.mark.parametrize("cut", ["short", "garbled", "plain"])
def test_a_damaged_compressed_checkpoint_is_said_to_be_so(tmp_path: Path, cut: str) -> None:
    path = write_checkpoint(tmp_path, "inst", whole(), zipped=True)
    raw = bytearray(path.read_bytes())
    if cut == "short":
        del raw[-40:]
    elif cut == "garbled":
        raw[20:60] = b"\xff" * 40
    path.write_bytes(b"{}" if cut == "plain" else bytes(raw))
    with pytest.raises(StateError, match="is damaged"):
        State(FileBackend(tmp_path)).read("inst")


def test_a_damaged_export_is_an_error_of_the_state(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SPEC.stack, deployment(SPEC, outputs={"node": "{"}))
    with pytest.raises(StateError, match="output 'node'"):
        State(FileBackend(tmp_path)).read(SPEC.stack)


def test_a_node_is_found_by_its_name_and_a_stack_by_its_own(tmp_path: Path) -> None:
    state = lay(tmp_path, "My Lab_2", "Other")
    assert state.find("My Lab_2").stack == state.find_stack("my-lab-2").stack == "my-lab-2"
    for none in ("My Lab_2", "my-lab", "", "../my-lab-2"):
        with pytest.raises(NotFoundError, match="no stack called"):
            state.find_stack(none)


def test_a_stack_that_was_renamed_is_found_by_the_name_of_its_node(tmp_path: Path) -> None:
    state = lay(tmp_path, "Inst", "Other")
    checkpoint_path(tmp_path, "inst").rename(checkpoint_path(tmp_path, "t2"))
    assert state.find("Inst").stack == "t2"
    assert state.find("Other").stack == "other"
    with pytest.raises(NotFoundError):
        state.find("t2")


def test_two_stacks_with_a_node_of_one_name_are_told_apart_by_the_stack_alone(tmp_path: Path) -> None:
    state = lay(tmp_path, "Inst")
    raw = checkpoint_path(tmp_path, "inst").read_bytes()
    checkpoint_path(tmp_path, "inst").unlink()
    for stack in ("t1", "t2"):
        checkpoint_path(tmp_path, stack).write_bytes(raw)
    with pytest.raises(UsageError, match="t1 and t2"):
        state.find("Inst")
    assert state.find_stack("t2").name == "Inst"


@pytest.mark.parametrize("text", ["My Lab 2", "MY-LAB-2", "my lab_2", "my-lab-2"])
def test_another_name_of_the_same_slug_is_another_node_and_the_near_one_is_named(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(NotFoundError, match="no deployment called") as caught:
        lay(tmp_path, "My Lab_2", "Other").find(text)
    assert caught.value.suggestion == 'Did you mean "My Lab_2"? (Its stack is my-lab-2.)'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Isnt", 'Did you mean "Inst"?'),
        ("inst1", 'Did you mean "Inst"?'),
        ("Hub", "`gridup status` lists all deployments."),
        ("…", "`gridup status` lists all deployments."),
        ("", "`gridup status` lists all deployments."),
    ],
)
def test_an_unknown_name_gets_near_ones_or_the_way_to_them(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        lay(tmp_path, "Inst").find(text)
    assert caught.value.suggestion == said
    assert caught.value.exit_code == 6


def test_where_there_is_nothing_yet_the_first_step_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        State(FileBackend(tmp_path)).find("Inst")
    assert "gridup deploy" in caught.value.suggestion


def test_one_damaged_stack_does_not_hide_that_another_name_is_unknown(tmp_path: Path) -> None:
    state = lay(tmp_path, "Inst")
    checkpoint_path(tmp_path, "broken").write_bytes(b"{")
    with pytest.raises(NotFoundError) as caught:
        state.find("Insp")
    assert caught.value.suggestion == 'Did you mean "Inst"?'


def test_looking_makes_and_changes_nothing(tmp_path: Path) -> None:
    state = lay(tmp_path / "state", "Inst")
    before = everything(tmp_path)
    state.records()
    state.find("Inst")
    for text in ("Hub", "../inst", "/etc/passwd"):
        with pytest.raises(NotFoundError):
            state.find(text)
    assert everything(tmp_path) == before
    with pytest.raises(NotFoundError):
        State(FileBackend(tmp_path / "none")).find("Hub")
    assert everything(tmp_path) == before


def test_backups_beside_a_checkpoint_are_no_stacks(tmp_path: Path) -> None:
    state = lay(tmp_path, "Inst")
    for name in ("inst.json.bak", "old.json.attrs", "x.tmp"):
        checkpoint_path(tmp_path, "inst").with_name(name).write_bytes(b"{")
    assert state.stacks() == ["inst"]


def test_a_resource_is_called_as_in_the_program() -> None:
    assert resource_name("urn:pulumi:inst::gridup::a:b:C$d:e:F::my name") == "my name"
