"""A state file that was cut short, and a stack that was renamed: the way back is told, nothing is made."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest

from support.checkpoints import checkpoint_path, write_checkpoint
from support.inside import Inside

WAY_BACK = re.compile(r"`(cp -p .+)` puts back the engine's own backup")


@pytest.fixture
def cut(inside: Inside) -> Path:
    """The empty state file of "Lab One", beside which is the engine's backup; "Inst" is whole."""
    inside.lay("Lab One")
    inside.lay("Inst")
    path = checkpoint_path(inside.state, "lab-one")
    path.with_name("lab-one.json.bak").write_bytes(path.read_bytes())
    path.write_bytes(b"")
    return path


def advice(text: str) -> str:
    """The command that is given, which a person copies."""
    found = WAY_BACK.search(" ".join(text.split()))
    assert found, text
    return found[1]


def test_status_tells_the_way_back_and_no_deploy(inside: Inside, cut: Path) -> None:
    told = inside("status", "--no-probe").ok().out
    assert "lab-one: The state" in told and "is damaged" in told
    assert not [line for line in told.splitlines() if line.startswith("lab-one") and "gridup deploy" in line]
    subprocess.run(advice(told), shell=True, check=True, timeout=60)
    assert cut.read_bytes() == cut.with_name("lab-one.json.bak").read_bytes()
    assert {row["name"] for row in inside("status", "--no-probe", "--json").json} == {"Inst", "Lab One"}


@pytest.mark.parametrize("raw", [b"", b"{", b"no JSON", b'{"checkpoint": {"latest": {"resources": [{}]}}}'])
def test_every_command_tells_it_and_changes_nothing(inside: Inside, cut: Path, raw: bytes) -> None:
    cut.write_bytes(raw)
    for words in (
        ["deploy", "Lab One", "--no-wait"],
        ["preview", "Lab One"],
        ["destroy", "Lab One", "--yes"],
        ["refresh", "Lab One"],
        ["status", "Lab One"],
        ["check", "Lab One"],
    ):
        ended = inside(*words)
        assert ended.code == 1, words
        assert str(cut) in advice(ended.err), words
        assert "gridup deploy" not in ended.err, words
    assert inside.engine.calls == []
    assert cut.read_bytes() == raw
    subprocess.run(advice(ended.err), shell=True, check=True, timeout=60)
    assert inside.outputs("lab-one").spec.name == "Lab One"


@pytest.mark.parametrize("backup", [None, b"", b"{", b'{"version": 3, "checkpoint": {}}'])
def test_a_backup_that_holds_no_node_is_no_way_back(inside: Inside, cut: Path, backup: bytes | None) -> None:
    beside = cut.with_name("lab-one.json.bak")
    if backup is None:
        beside.unlink()
    else:
        beside.write_bytes(backup)
    told = inside("status", "--no-probe").ok().out
    assert "is damaged" in told and "cp -p" not in told
    assert "lab-one: `gridup deploy" not in told
    assert "cp -p" not in inside("destroy", "Lab One", "--yes").err


def test_a_compressed_one_has_its_backup_too(inside: Inside) -> None:
    inside.lay("Inst")
    plain = checkpoint_path(inside.state, "inst")
    path = plain.with_name("inst.json.gz")
    path.with_name("inst.json.gz.bak").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    path.write_bytes(b"")
    subprocess.run(advice(inside("refresh", "Inst").err), shell=True, check=True, timeout=60)
    assert inside.outputs("inst").spec.name == "Inst"


def test_the_only_node_is_no_broken_off_deploy(inside: Inside) -> None:
    write_checkpoint(inside.state, "bad", None).write_bytes(b"")
    for words in (["outputs"], ["refresh"]):
        ended = inside(*words)
        assert (ended.code, "is damaged" in ended.err) == (1, True), words
        assert "gridup deploy" not in ended.err, words


@pytest.mark.parametrize("command", ["deploy", "preview"])
def test_a_node_whose_stack_was_renamed_gets_no_second_one(inside: Inside, command: str) -> None:
    inside.lay("Lab One")
    checkpoint_path(inside.state, "lab-one").rename(checkpoint_path(inside.state, "t2"))
    ended = inside(command, "Lab One", "--cloud", "local")
    assert ended.code == 2
    told = " ".join(ended.err.split())
    assert '"Lab One" is deployed, in the stack t2' in told
    assert (
        '`eval "$(gridup env --stack t2)" && pulumi -C "$GRIDUP_PROJECT" stack rename -s t2 lab-one`' in told
    )
    assert inside.engine.calls == []
    # What was told, as the engine does it.
    checkpoint_path(inside.state, "t2").rename(checkpoint_path(inside.state, "lab-one"))
    assert inside("deploy", "Lab One", "--no-wait").ok().code == 0


def test_of_several_stacks_with_its_name_none_is_chosen(inside: Inside) -> None:
    inside.lay("Inst")
    raw = checkpoint_path(inside.state, "inst").read_bytes()
    checkpoint_path(inside.state, "inst").unlink()
    for stack in ("t1", "t2"):
        checkpoint_path(inside.state, stack).write_bytes(raw)
    ended = inside("deploy", "Inst")
    assert (ended.code, "t1, t2" in ended.err) == (2, True)
    assert inside.engine.calls == []


def test_a_check_of_all_nodes_names_those_that_it_can_not_check(
    inside: Inside, cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.lay("Half", half=True)
    monkeypatch.setattr("gridup.probes.healthy", lambda _results: True)
    monkeypatch.setattr("gridup.health.unready", lambda *_words: None)
    ended = inside("check")
    assert ended.code == 10
    assert 'The deploy of "Half" was not completed.' in ended.out
    assert str(cut) in advice(ended.out)
    assert "Half, lab-one: not all is up." in ended.err
    rows = {row["name"]: row for row in inside("check", "--json").json}
    assert rows.keys() == {"Inst", "Half", "lab-one"}
    assert (rows["Half"]["up"], "not completed" in rows["Half"]["problem"]) == (False, True)
    inside("check", "Inst").ok()


def test_a_check_where_nothing_can_be_checked_is_no_success(inside: Inside) -> None:
    inside.lay("Half", half=True)
    for words in (["check"], ["check", "--wait", "--timeout", "1"]):
        ended = inside(*words)
        assert (ended.code, 'The deploy of "Half" was not completed.' in ended.out) == (10, True), words


@pytest.fixture
def stopped(inside: Inside) -> Path:
    """The folder of "Inst", which was stopped, and has had a database that is gone."""
    inside.lay("Inst")
    folder = inside.home.node("inst")
    for part in ("data", "secrets", "run"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "secrets" / "had-database").write_text("This node has had a database.\n")
    return folder


def test_of_a_lost_database_no_deploy_is_said_to_repair_it(inside: Inside, stopped: Path) -> None:
    for command in ("status", "refresh"):
        told = " ".join(inside(command, "Inst").ok().out.split())
        assert f"the database {stopped}/data/node.db is missing, and this node has had one" in told, command
        assert "Put a copy of it back. For a node without data: destroy this one and deploy it anew." in told
        assert "repairs" not in told, command
    (stopped / "data" / "node.db").write_text("")
    assert "had one" not in inside("status", "Inst").ok().out


def test_of_a_folder_that_is_gone_the_data_are_said_to_be_lost(inside: Inside) -> None:
    inside.lay("Lab One")
    told = inside("status").ok().out
    assert "Lab One: its data are lost: `gridup deploy --name 'Lab One'` makes an empty node." in told
    assert "repairs" not in told
