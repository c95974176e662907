"""`gridup rotate`: what it asks, in which order it goes, and how one that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gridup import deploy_flow
from gridup.settings import Settings
from gridup.state import State
from gridup_infra.processes import Result
from gridup_infra.targets.base import Inspection, NodeStatus
from support.fake_target import FakeTarget, _NoWay
from support.inside import Inside, spec_of

OPEN = ("--allow-cidr", "203.0.113.0/24")


class Node(_NoWay):
    """A node that does what it is told, unless a test says at what it fails."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.fails_at = ""
        self.came: dict[str, Any] = {"accounts": 2, "locked": 0, "peers": []}

    def programs(self) -> tuple[str, ...]:
        return ("api", "proxy", "jobs", "jupyter")

    def run(  # type: ignore[override]
        self, argv: Sequence[str], *, timeout: float, input: bytes | None = None, service: str = ""
    ) -> Result:
        assert argv[:3] == ["python", "-m", "gridup_node.rotation"]
        assert argv[4] == service
        self.calls.append(f"{argv[3]} {service}")
        self.told.append(json.loads(input or b""))
        if self.calls[-1] == self.fails_at:
            return Result(tuple(argv), 1, "", "gridup_node.rotation: no room\n")
        came = self.came if self.calls[-1] == "settle api" else {}
        return Result(tuple(argv), 0, json.dumps(came), "")

    def restart(self, services: Sequence[str]) -> None:  # type: ignore[override]
        self.calls.append(f"restart {' '.join(services)}")


@pytest.fixture
def node(inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch) -> Node:
    """The node "Inst" on the moon."""
    made = Node()
    inside("deploy", "Inst", "--cloud", "moon", "--no-wait", *OPEN).ok()
    inside.engine.calls.clear()
    monkeypatch.setattr(FakeTarget, "access", lambda _self, _outputs: made)
    monkeypatch.setattr("gridup.rotating.health.wait_healthy", lambda *_words, **_named: None)
    return made


WHOLE = [
    *("renew api", "restart api", "settle api"),
    *("renew proxy", "renew jupyter", "restart proxy jobs jupyter", "settle proxy", "settle jupyter"),
]


def test_the_api_is_first_and_the_state_before_and_after(inside: Inside, node: Node) -> None:
    done = inside("rotate", "Inst", "--yes").ok()
    assert node.calls == WHOLE
    assert inside.engine.calls == ["up", "up"]
    spec = spec_of(inside)
    assert spec.rotated and not spec.rotating
    assert spec.machine_revision == 1, "another machine"
    assert {told["id"] for told in node.told} == {spec.rotated}
    assert not any(told["lock"] for told in node.told)
    assert "gridup outputs Inst --show-secrets" in done.err
    inside("rotate", "Inst", "--yes").ok()
    assert spec_of(inside).rotated > spec.rotated
    assert "Nothing changed" in inside("deploy", "Inst", "--no-wait").err


def test_a_host_without_its_node_has_another_key_and_machine(inside: Inside, node: Node) -> None:
    inside("deploy", "Inst", "--no-node", "--no-wait").ok()
    inside("rotate", "Inst", "--yes").ok()
    spec = spec_of(inside)
    assert (spec.no_node, spec.rotating, spec.machine_revision) == (True, False, 1)


def test_json_tells_what_came_of_it(inside: Inside, node: Node) -> None:
    node.came = {"accounts": 2, "locked": 2, "peers": ["Net"]}
    done = inside("rotate", "Inst", "--yes", "--json", "--lock").ok()
    assert done.json == {
        "name": "Inst",
        "rotated": spec_of(inside).rotated,
        "accounts": 2,
        "locked": 2,
        "associate_again": ["Net"],
        "endpoints": None,
    }
    assert done.err == ""
    assert all(told["lock"] for told in node.told)


def test_without_a_terminal_nothing_is_done_before_yes(inside: Inside, node: Node) -> None:
    refused = inside("rotate", "Inst")
    assert (refused.code, refused.out) == (2, "")
    assert "Give --yes to go on." in refused.err
    assert (inside.engine.calls, node.calls) == ([], [])


@pytest.mark.parametrize("answer", ["", "n", "maybe"])
def test_no_is_the_default(inside: Inside, node: Node, person: list[str], answer: str) -> None:
    person.append(answer)
    ended = inside("rotate", "Inst")
    assert ended.code == 8
    for told in ("It ends all sessions", "Datasets, requests", "Its VM is replaced", "--lock"):
        assert told in ended.err
    assert (inside.engine.calls, node.calls) == ([], [])


def test_a_name_is_needed(inside: Inside, node: Node) -> None:
    ended = inside("rotate", "--yes")
    assert ended.code == 2
    assert "gridup rotate NAME" in ended.err


@pytest.mark.parametrize("power", [NodeStatus.STOPPED, NodeStatus.MISSING, NodeStatus.UNKNOWN])
def test_a_node_that_does_not_run_is_refused(
    inside: Inside, node: Node, monkeypatch: pytest.MonkeyPatch, power: NodeStatus
) -> None:
    monkeypatch.setattr(FakeTarget, "inspect", lambda *_: Inspection(power))
    ended = inside("rotate", "Inst", "--yes")
    assert ended.code == 4
    assert ("gridup start" in ended.err) == (power is NodeStatus.STOPPED)
    assert (inside.engine.calls, node.calls) == ([], [])


@pytest.mark.parametrize("step", [call for call in WHOLE if not call.startswith("restart")])
def test_one_that_was_broken_off_goes_on_with_the_same_secrets(inside: Inside, node: Node, step: str) -> None:
    node.fails_at = step
    failed = inside("rotate", "Inst", "--yes")
    assert failed.code == 4
    assert (
        f"The secrets of {step.split()[1]} could not be replaced: gridup_node.rotation: no room" in failed.err
    )
    assert "Run the same command again" in failed.err
    begun = spec_of(inside)
    assert begun.rotating
    assert 'The secrets of "Inst" were not all replaced yet' in inside("deploy", "Inst", "--no-wait").ok().err
    assert spec_of(inside).rotating, "a deploy leaves the former keys in"
    node.fails_at = ""
    inside("rotate", "Inst", "--yes").ok()
    assert {told["id"] for told in node.told} == {begun.rotated}
    assert replace(spec_of(inside), rotating=True) == begun, "no other machine a second time"


def test_ctrl_c_names_the_command_that_goes_on(
    inside: Inside, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("gridup.rotating._rotate_node", ctrl_c)
        ended = inside("rotate", "Inst", "--yes")
    assert ended.code == 130
    assert 'Error: Stopped. The secrets of "Inst" are not all replaced' in ended.err
    assert "`gridup rotate Inst` goes on with it." in ended.err
    begun = spec_of(inside)
    monkeypatch.setattr("gridup.health.wait_healthy", ctrl_c)
    inside("rotate", "Inst", "--yes")
    assert node.calls == WHOLE
    assert spec_of(inside).rotated == begun.rotated


def test_what_has_given_way_is_taken_up_again(inside: Inside, node: Node) -> None:
    node.fails_at = "settle proxy"
    assert inside("rotate", "Inst", "--yes").code == 4
    assert node.calls[-1] == "restart proxy"


def test_one_that_was_broken_off_before_the_state_tells_goes_on_too(inside: Inside, node: Node) -> None:
    """The engine's configuration on this machine is written before anything is done."""
    spec = spec_of(inside)
    stored = {
        f"gridup:{key}": text
        for key, text in replace(
            spec, rotated="2026-11-29T10:00:00.000000+00:00", rotating=True, machine_revision=1
        )
        .to_config()
        .items()
    }
    record = State.of(Settings.load()).read("inst")
    for asked in ({"rotate": True}, {}):
        wanted, _ = deploy_flow.resolve(asked, {}, "Inst", record, stored)
        assert (wanted.rotated, wanted.rotating, wanted.machine_revision) == (
            "2026-11-29T10:00:00.000000+00:00",
            True,
            1,
        )
    other = {**stored, "gridup:stack-id": "another node's"}
    wanted, _ = deploy_flow.resolve({}, {}, "Inst", record, other)
    assert (wanted.rotated, wanted.machine_revision) == ("", 0)


def test_lock_that_comes_too_late_is_told_of(inside: Inside, node: Node) -> None:
    done = inside("rotate", "Inst", "--yes", "--lock").ok()
    assert "keep their passwords" in done.err
    node.came = {"accounts": 2, "locked": 2, "peers": []}
    again = inside("rotate", "Inst", "--yes", "--lock").ok()
    assert "2 accounts need a new password" in again.err
