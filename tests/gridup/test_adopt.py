"""Data that an earlier node of the name has left: a new one takes them over where somebody says so."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from gridup_infra.errors import DeadlineError
from gridup_infra.spec import NEW_DATA
from gridup_infra.targets.base import Retained
from support.fake_target import FakeTarget
from support.inside import Inside, spec_of

LEFT = Retained("crater-7", "the crater 7", "2026-11-29T10:11:12+00:00", 12_300_000_000)
DEPLOY = ("deploy", "Inst", "--cloud", "moon", "--allow-cidr", "203.0.113.0/24")
PREVIEW = ("preview", *DEPLOY[1:])


@pytest.fixture
def left(moon: type[FakeTarget], monkeypatch: pytest.MonkeyPatch) -> type[FakeTarget]:
    monkeypatch.setattr(FakeTarget, "left", LEFT)
    # Whatever is waited for is there.
    monkeypatch.setattr("gridup.deploy_flow.health.wait_healthy", lambda *_words, **_named: [_Up()])
    monkeypatch.setattr("gridup.deploy_flow.health.show", lambda *_words: None)
    monkeypatch.setattr("gridup.probes.to_json", lambda _results: [])
    return moon


class _Up:
    up = True


@pytest.mark.parametrize("words", [(), ("--yes",), ("--json",)])
def test_a_script_must_say_what_becomes_of_them(
    inside: Inside, left: type[FakeTarget], words: tuple[str, ...]
) -> None:
    ended = inside(*DEPLOY, *words)
    assert (ended.code, ended.out) == (2, "")
    assert 'An earlier "Inst" has left its data: the crater 7, kept 2026-11-29 10:11, 12.3 GB.' in ended.err
    assert "--adopt" in ended.err and "--new-data" in ended.err
    assert inside.engine.calls == []


@pytest.mark.parametrize("answer", ["", "n", "what?"])
def test_no_is_the_default_and_nothing_is_done(
    inside: Inside, left: type[FakeTarget], person: list[str], answer: str
) -> None:
    person.append(answer)
    ended = inside(*DEPLOY)
    assert ended.code == 8
    assert "with --new-data the node begins with none" in ended.err
    assert inside.engine.calls == []


def test_yes_takes_them_over_for_good_once_the_node_is_healthy(
    inside: Inside, left: type[FakeTarget], person: list[str]
) -> None:
    # What visitors read comes first; the last question is whether to make the node.
    person += ["", "", "y", "y"]
    inside(*DEPLOY).ok()
    spec = spec_of(inside)
    assert (spec.adopted, spec.adopting, spec.keeps) == ("crater-7", False, True)
    assert inside.engine.calls == ["up", "up"]
    assert "Nothing changed" in inside("deploy", "Inst", "--no-wait").ok().err


def test_until_then_they_are_kept_whatever_ends_it(
    inside: Inside, left: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_words: object, **_named: object) -> None:
        raise DeadlineError("Inst was not up.")

    with monkeypatch.context() as patch:
        patch.setattr("gridup.deploy_flow.health.wait_healthy", down)
        assert inside(*DEPLOY, "--adopt").code == 9
    assert (spec_of(inside).adopting, spec_of(inside).keeps) == (True, True)
    inside("deploy", "Inst", "--no-wait").ok()
    assert spec_of(inside).adopting, "nobody has looked"
    inside("deploy", "Inst", "--no-node").ok()
    assert spec_of(inside).adopting, "a host is no node"
    inside("deploy", "Inst").ok()
    assert (spec_of(inside).adopted, spec_of(inside).adopting) == ("crater-7", False)


def test_who_wants_none_of_them_leaves_them(inside: Inside, left: type[FakeTarget]) -> None:
    done = inside(*DEPLOY, "--new-data", "--json").ok()
    assert done.json["adopted"] == ""
    spec = spec_of(inside)
    assert (spec.adopted, spec.adopting) == (NEW_DATA, False)
    assert inside.engine.calls == ["up"]


def test_json_tells_what_was_taken_over(inside: Inside, left: type[FakeTarget]) -> None:
    assert inside(*DEPLOY, "--adopt", "--json").ok().json["adopted"] == "crater-7"


def test_a_preview_tells_and_asks_nothing(inside: Inside, left: type[FakeTarget]) -> None:
    assert "It asks about the crater 7" in inside(*PREVIEW).ok().out
    assert "It takes over the crater 7" in inside(*PREVIEW, "--adopt").ok().out
    assert "It leaves the crater 7" in inside(*PREVIEW, "--new-data").ok().out
    told = inside(*PREVIEW, "--adopt", "--json").ok().json
    assert (told["retained"], told["adopts"]) == (asdict(LEFT), True)
    assert inside(*PREVIEW, "--json").ok().json["adopts"] is False


def test_what_is_not_there_can_not_be_taken_over(inside: Inside, moon: type[FakeTarget]) -> None:
    ended = inside(*DEPLOY, "--no-wait", "--adopt")
    assert ended.code == 2
    assert 'no data of an earlier "Inst" was kept here' in ended.err
    inside(*DEPLOY, "--no-wait", "--new-data").ok()
    for word in ("--adopt", "--new-data"):
        refused = inside("deploy", "Inst", "--no-wait", word)
        assert refused.code == 2
        assert '"Inst" is deployed' in refused.err


def test_what_changed_after_the_question_is_not_taken_over(
    inside: Inside, left: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([LEFT, Retained("crater-8", "the crater 8")])
    monkeypatch.setattr(FakeTarget, "retained", lambda _self, _spec: next(found))
    ended = inside(*DEPLOY, "--adopt")
    assert ended.code == 1
    assert "were changed meanwhile" in ended.err
    assert inside.engine.calls == []


def test_hagrids_words_know_it_too(inside: Inside, left: type[FakeTarget]) -> None:
    words = ("launch", "Inst", "to", "moon", "--allow-cidr", "203.0.113.0/24")
    assert inside(*words).code == 2
    inside(*words, "--adopt").ok()
    assert spec_of(inside).adopted == "crater-7"


FORMER = replace(LEFT, admin_email="ada@inst.example", node_type="network")


@pytest.mark.parametrize("words", [("--adopt",), ()])
def test_who_logged_in_still_does_and_what_was_kept_stays_kept(
    inside: Inside,
    left: type[FakeTarget],
    person: list[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr(FakeTarget, "left", FORMER)
    person += ["", "", "y", "y"]
    told = inside(*DEPLOY, *words).ok().err
    spec = spec_of(inside)
    assert (spec.admin_email, spec.node_type, spec.keep_data) == ("ada@inst.example", "network", True)
    assert "Log in as ada@inst.example" in " ".join(told.split())
    inside("deploy", "Inst", "--no-wait").ok()
    assert spec_of(inside).admin_email == "ada@inst.example"


def test_what_is_asked_for_counts(
    inside: Inside, left: type[FakeTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTarget, "left", FORMER)
    inside(*DEPLOY, "--adopt", "--admin-email", "it@inst.example", "--no-keep-data").ok()
    spec = spec_of(inside)
    assert (spec.admin_email, spec.node_type, spec.keep_data) == ("it@inst.example", "network", False)


def test_data_of_which_less_is_known_are_taken_over_as_they_are(
    inside: Inside, left: type[FakeTarget]
) -> None:
    inside(*DEPLOY, "--adopt", "--type", "network").ok()
    spec = spec_of(inside)
    assert (spec.admin_email, spec.node_type, spec.keep_data) == ("admin@example.org", "network", True)


@pytest.mark.parametrize("words", [DEPLOY, PREVIEW])
def test_data_of_another_type_are_not_taken_over(
    inside: Inside, left: type[FakeTarget], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(FakeTarget, "left", FORMER)
    ended = inside(*words, "--adopt", "--type", "domain")
    assert ended.code == 2
    assert "the crater 7 is of a network node; its data are no domain node's" in " ".join(ended.err.split())
    assert inside.engine.calls == []
    inside(*DEPLOY, "--new-data", "--type", "domain").ok()
    assert (spec_of(inside).node_type, spec_of(inside).keep_data) == ("domain", False)
