"""What is old or vulnerable: `status` says it, `deploy --rebuild` makes it anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gridup import advisories, freshness
from gridup.deploy_flow import resolve
from gridup.settings import Settings
from gridup.state import State
from gridup_infra.errors import UsageError
from gridup_infra.outputs import BUILT, PACKAGES, NodeOutputs
from gridup_infra.program import with_packages
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.local import runtime
from gridup_node import catalog
from support.checkpoints import outputs_for
from support.fake_target import FakeTarget
from support.inside import Inside

TODAY = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
OLD, NEW = "2026-10-29T11:59:59.123456789Z", "2026-10-30T12:00:01+00:00"
SPEC = DeploySpec(name="Inst", target="moon", stack_id="0" * 16)


def node(built: str = NEW, packages: str = "") -> NodeOutputs:
    return NodeOutputs(SPEC, "127.0.0.1", {"proxy": 443}, facts={BUILT: built, PACKAGES: packages})


class TestConcerns:
    def test_after_thirty_days_what_a_node_runs_is_old(self) -> None:
        assert freshness.concerns(node(), TODAY) == []
        assert freshness.concerns(node(OLD), TODAY) == [
            "what it runs was made 31 days ago, and lacks the updates since"
        ]

    @pytest.mark.parametrize("built", ["", "yesterday"])
    def test_what_nobody_has_noted_is_not_guessed(self, built: str) -> None:
        assert freshness.concerns(node(built, "starlette"), TODAY) == []

    def test_a_vulnerable_package_is_named_with_what_is_known_of_it(self) -> None:
        found = freshness.concerns(node(packages="jinja2==3.1.5 requests==2.33.0 idna==3.20"), TODAY)
        assert found == ["jinja2 3.1.5 has known vulnerabilities: CVE-2025-27516"]

    def test_one_that_can_not_be_reached_is_not_named(self) -> None:
        known = [replace(one, reason="Never called.") for one in advisories.load()]
        assert freshness.concerns(node(packages="jinja2==3.1.5"), TODAY, known) == []

    def test_of_many_the_first_are_named(self) -> None:
        one = advisories.load()[0]
        known = [replace(one, package=f"p{number}", affected="<2") for number in range(8)]
        found = freshness.concerns(node(packages=" ".join(f"p{n}==1" for n in range(8))), TODAY, known)
        assert len(found) == freshness.NAMED + 1
        assert found[-1] == "so have 3 further packages"


class TestTold:
    """What a node's outputs say of its packages and their age."""

    def test_they_are_those_of_its_lock(self) -> None:
        told = with_packages(node()).facts[PACKAGES].split()
        assert told == catalog.pins("latest")
        assert "syft==0.9.5" in told and len(told) > 100

    def test_of_a_published_image_or_a_bare_machine_none_are_told(self) -> None:
        for spec in (
            replace(SPEC, image="registry.example/node@sha256:" + "0" * 64),
            replace(SPEC, no_node=True),
        ):
            assert with_packages(replace(node(), spec=spec, facts={})).facts == {}

    def test_an_environment_tells_when_it_was_made(self) -> None:
        assert runtime.built(f"{int(TODAY.timestamp() * 1e9):x}") == "2026-11-29T12:00:00+00:00"
        assert runtime.built("x") == ""


class TestStatus:
    def test_it_names_a_node_that_is_old_or_vulnerable_and_what_cures_it(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(freshness, "now", lambda: TODAY)
        spec = inside.spec("My Lab")
        made = outputs_for(spec, inside.home.node(spec.stack))
        facts = {**made.facts, BUILT: OLD, PACKAGES: "jinja2==3.1.5"}
        inside.lay_outputs(replace(made, facts=facts))
        shown = inside("status").ok().out
        assert "My Lab: what it runs was made 31 days ago" in shown
        assert "My Lab: jinja2 3.1.5 has known vulnerabilities: CVE-2025-27516" in shown
        assert "`gridup deploy --name 'My Lab' --rebuild` makes it anew; the data stays." in shown
        (row,) = inside("status", "--json").ok().json
        assert len(row["updates"]) == 2
        assert not any("days ago" in problem for problem in row["problems"]), (
            "an old node is not a broken one"
        )

    def test_of_a_fresh_one_it_says_nothing(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(freshness, "now", lambda: TODAY)
        spec = inside.spec("Inst")
        made = outputs_for(spec, inside.home.node(spec.stack))
        inside.lay_outputs(replace(made, facts={**made.facts, BUILT: NEW, PACKAGES: "jinja2==3.1.6"}))
        assert "--rebuild" not in inside("status").ok().out
        assert inside("status", "--json").ok().json[0]["updates"] == []


class TestRebuild:
    def deploy(self, inside: Inside, *words: str) -> DeploySpec:
        inside(
            "deploy", "Inst", "--cloud", "moon", "--allow-cidr", "203.0.113.0/24", *words, "--no-wait"
        ).ok()
        record = State.of(Settings.load()).read("inst")
        assert record and record.outputs
        return record.outputs.spec

    def test_each_time_is_another_and_between_them_nothing_changes(
        self, inside: Inside, moon: type[FakeTarget]
    ) -> None:
        assert self.deploy(inside).rebuilt == ""
        first = self.deploy(inside, "--rebuild").rebuilt
        assert first
        assert self.deploy(inside).rebuilt == first, "a later deploy without it keeps what was made"
        assert self.deploy(inside, "--rebuild").rebuilt not in ("", first)

    def test_it_is_the_time_that_the_clock_tells(self, moon: type[FakeTarget]) -> None:
        spec, _ = resolve({"target": "moon", "rebuild": True}, {}, "Inst", None, {}, now=lambda: TODAY)
        assert spec.rebuilt == "2026-11-29T12:00:00.000000+00:00"

    def test_a_published_image_is_not_built_here(self, moon: type[FakeTarget]) -> None:
        published = "registry.example/node@sha256:" + "0" * 64
        with pytest.raises(UsageError, match="runs a published image") as caught:
            resolve({"target": "moon", "rebuild": True, "image": published}, {}, "Inst", None, {})
        assert "--image" in caught.value.suggestion

    def test_a_local_environment_that_is_to_be_made_anew_has_a_place_of_its_own(self, tmp_path: Path) -> None:
        lock = catalog.lock_for("latest")
        places = {runtime.runtime_path(tmp_path, lock, "3.11", when) for when in ("", "a", "b")}
        assert len(places) == 3
        assert runtime.runtime_path(tmp_path, lock, "3.11") in places
        assert timedelta(days=30) == freshness.OLD
