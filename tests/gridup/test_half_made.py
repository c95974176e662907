"""A node whose first deploy ended after its machine was made: it costs money, and is found and stopped."""

from __future__ import annotations

import pytest

from gridup_infra.outputs import NOT_COMPLETED, NodeOutputs
from gridup_infra.targets.base import PUBLIC_IP, Inspection, NodeStatus
from support.fake_target import FakeTarget
from support.inside import Inside

WHERE = {PUBLIC_IP: "203.0.113.9", "region": "sea", "instance": "m-1", "size": "large", "volume": "v-1"}


@pytest.fixture
def half(inside: Inside, moon: type[FakeTarget]) -> type[FakeTarget]:
    """ "Lab One", of which the state has its machine, and no outputs."""
    spec = inside.lay("Lab One", half=True, target="moon")
    absent = dict.fromkeys(("ui", "api", "jupyter"), NOT_COMPLETED)
    ports = {"proxy": 1, "ssh": 2, "jupyter": 3}
    moon.machine = NodeOutputs(spec, "203.0.113.9", ports, not_offered=absent, facts={"machine": "m-1"})
    moon.where = dict(WHERE)
    return moon


def test_status_shows_its_address_and_that_it_runs(inside: Inside, half: type[FakeTarget]) -> None:
    told = inside("status").ok().out
    assert "203.0.113.9" in told and "Public IP" in told
    assert "Lab One: its deploy was not completed (interrupted while creating node)" in told
    assert "its machine runs, and costs money: `gridup stop 'Lab One'` stops it" in told
    assert "`gridup deploy --name 'Lab One'` completes it." in told
    assert "repairs" not in told
    (row,) = inside("status", "Lab One", "--json").json
    assert (row["state"], row["machine"], row["right"]) == ("degraded", "running", False)
    assert {key: row[key] for key in WHERE} == WHERE
    half.power = NodeStatus.STOPPED
    assert "its machine is stopped." in inside("status").out


def test_one_that_cannot_be_looked_at_is_told_of_all_the_same(inside: Inside, half: type[FakeTarget]) -> None:
    from gridup_infra.errors import CredentialsError

    half.refuses = CredentialsError("There are no credentials here.")
    told = inside("status").ok().out
    assert "203.0.113.9" in told
    assert "its machine can't be looked at: There are no credentials here." in told
    assert "its machine may run, and costs money" in told


def test_it_is_stopped_and_started_and_its_outputs_and_boot_log_are_shown(
    inside: Inside, half: type[FakeTarget]
) -> None:
    inside("stop", "Lab One").ok()
    assert half.calls[-1] == "stop m-1"
    ended = inside("start", "Lab One").ok()
    assert half.calls[-1] == "start m-1"
    assert 'The machine of "Lab One" is started.' in ended.out
    assert "`gridup deploy --name 'Lab One'` completes it." in ended.out
    ended = inside("outputs", "Lab One", "--json").ok()
    assert {key: ended.json[key] for key in WHERE} == WHERE
    assert ended.json["complete"] is False
    assert ended.json["ssh_address"] == "203.0.113.9:2"
    assert "completes it" in inside("outputs", "Lab One").ok().err
    assert "Linux on the moon" in inside("logs", "Lab One", "--boot").ok().out


def test_what_needs_a_node_says_what_is_missing(inside: Inside, half: type[FakeTarget]) -> None:
    for words in (["check", "Lab One"], ["outputs", "Lab One", "--show-secrets"], ["open", "Lab One"]):
        ended = inside(*words)
        assert (ended.code, "was not completed" in ended.err) == (4, True), words


def test_refresh_never_says_that_all_is_well(inside: Inside, half: type[FakeTarget]) -> None:
    ended = inside("refresh", "Lab One").ok()
    assert "no drift" not in ended.out
    assert NOT_COMPLETED in ended.out
    assert inside("refresh", "Lab One", "--json").json["problems"] == [NOT_COMPLETED]


def test_a_deploy_that_fails_after_it_was_made_says_so(inside: Inside, half: type[FakeTarget]) -> None:
    inside.engine.fail_at = ("node", "ssh is blocked")
    ended = inside("deploy", "Lab One", "--allow-cidr", "203.0.113.0/24")
    assert ended.code == 4
    assert "The machine was made, and costs money: 203.0.113.9, sea, m-1, large, v-1." in ended.err
    assert "`gridup destroy 'Lab One'` deletes all of it" in ended.err


class TestPlace:
    """Where a node is, which every command shows."""

    @pytest.fixture(autouse=True)
    def _whole(self, inside: Inside, moon: type[FakeTarget]) -> None:
        inside.lay("Inst", target="moon")
        moon.where = dict(WHERE)

    def test_status_has_a_column_for_the_address(self, inside: Inside, moon: type[FakeTarget]) -> None:
        told = inside("status", "Inst", "--no-probe").ok().out
        assert "Public IP" in told
        assert "Inst: 203.0.113.9, sea, m-1, large, v-1" in told
        (row,) = inside("status", "--no-probe", "--json").json
        assert {key: row[key] for key in WHERE} == WHERE
        moon.where = {}
        assert "Public IP" not in inside("status", "--no-probe").ok().out
        assert inside("status", "--no-probe", "--json").json[0][PUBLIC_IP] is None

    def test_outputs_and_the_end_of_a_deploy_have_it(self, inside: Inside) -> None:
        told = inside("outputs", "Inst", "--json").ok().json
        assert {key: told[key] for key in WHERE} == WHERE
        ended = inside("deploy", "Inst", "--no-wait", "--allow-cidr", "203.0.113.0/24")
        assert "It is at 203.0.113.9, sea, m-1, large, v-1." in ended.ok().err
        ended = inside("deploy", "Inst", "--no-wait", "--json")
        assert {key: ended.json[key] for key in WHERE} == WHERE

    def test_one_that_is_stopped_answers_at_once(
        self, inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[NodeOutputs] = []
        inspect = moon.inspect

        def counted(target: FakeTarget, outputs: NodeOutputs) -> Inspection:
            looks.append(outputs)
            return inspect(target, outputs)

        monkeypatch.setattr(moon, "inspect", counted)
        moon.silent, moon.power = True, NodeStatus.STOPPED
        for words in (["ssh", "Inst"], ["logs", "Inst"], ["check", "Inst"]):
            ended = inside(*words)
            assert (ended.code, '"Inst" is stopped.' in ended.err) == (10, True), words
            # Each look is several calls of a cloud's.
            assert len(looks) == 1, words
            looks.clear()
        (row,) = inside("check", "Inst", "--json").json
        assert {one["detail"] for one in row["endpoints"] if one["service"] == "api"} == {"stopped"}


def test_a_host_without_a_node_has_no_page(inside: Inside, moon: type[FakeTarget]) -> None:
    spec = inside.spec("Inst", target="moon", no_node=True)
    absent = dict.fromkeys(("ui", "api", "jupyter"), "--no-node")
    inside.lay_outputs(
        NodeOutputs(spec, "203.0.113.9", {"proxy": 1, "ssh": 2, "jupyter": 3}, not_offered=absent)
    )
    assert "http" not in inside("status", "--no-probe").ok().out
    ended = inside("open", "Inst")
    assert ended.code == 2
    assert '"Inst" has no page "ui": --no-node. `gridup ssh Inst` enters its machine.' in " ".join(
        ended.err.split()
    )


def test_what_is_announced_is_made(
    inside: Inside, moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(moon, "makes", lambda _self, spec: (seen.append(spec.stack_id) or "it",))
    inside("deploy", "Inst", "--cloud", "moon", "--no-wait", "--yes", "--allow-cidr", "203.0.113.0/24").ok()
    assert seen == [inside.outputs("inst").spec.stack_id]
