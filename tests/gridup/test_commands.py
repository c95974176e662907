"""What each command prints and how it ends, over an engine that makes nothing."""

from __future__ import annotations

import io
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gridup import engine_locks, state
from gridup.app import COMMANDS
from gridup.commands.deploy import read_password
from gridup.commands.doctor import first_deploy
from gridup.engine_api import Change, Report
from gridup.engine_locks import namespace
from gridup.reporter import Foreseeing, Phase, ResourceEvent
from gridup.session import Session, Which
from gridup.settings import Settings
from gridup.setup import build
from gridup_infra import locking, processes, resolving, room, targets
from gridup_infra.errors import PreflightError, ResourceError
from gridup_infra.locking import locked
from gridup_infra.requirements import lock_text
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import docker
from gridup_infra.targets.base import Inspection
from gridup_infra.targets.base import NodeStatus as State
from gridup_infra.targets.local import LocalTarget, runtime
from gridup_node import catalog, services
from support.checkpoints import PORTS, RESOURCES
from support.cli import REPOSITORY, Ended
from support.inside import Inside

NAMED = [
    "destroy",
    "status",
    "outputs",
    "ssh",
    "logs",
    "check",
    "start",
    "stop",
    "rotate",
    "refresh",
    "env",
    "open",
    "land",
]
"""Every command about one node."""


class TestAnyCommandAboutANode:
    """The same for all of them."""

    def test_the_list_is_whole(self) -> None:
        others = {"deploy", "preview", "doctor", "prune", "launch", "version"}
        assert set(NAMED) | others == set(COMMANDS)

    @pytest.mark.parametrize("command", NAMED)
    def test_an_unknown_name_exits_6_with_near_ones_and_makes_no_stack(
        self, inside: Inside, command: str
    ) -> None:
        inside.lay("Inst")
        before = sorted(inside.home.root.rglob("*"))
        ended = inside(command, "Isnt", *(["--yes"] if command == "destroy" else []))
        assert (ended.code, ended.out) == (6, "")
        assert ended.err.splitlines() == [
            'Error: There is no deployment called "Isnt".',
            'Did you mean "Inst"?',
        ]
        assert sorted(inside.home.root.rglob("*")) == before
        assert inside.engine.calls == []

    @pytest.mark.parametrize(
        "command", [name for name in NAMED if name not in ("check", "logs", "ssh", "land")]
    )
    def test_two_different_names_are_refused(self, inside: Inside, command: str) -> None:
        inside.lay("Inst")
        ended = inside(command, "Inst", "--name", "Other")
        assert (ended.code, ended.out) == (2, "")
        assert 'Two names were given: "Inst" and --name "Other".' in ended.err

    @pytest.mark.parametrize("command", ["status", "outputs", "check", "refresh", "env", "open"])
    def test_the_same_name_twice_is_one(
        self, inside: Inside, command: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gridup.commands.env.Session.binary", lambda _s, _r: _Binary)
        inside.lay("Inst")
        once = inside(command, "--name", "Inst", "--json").json
        twice = inside(command, "Inst", "--name", "Inst", "--json").json
        assert len(twice) == len(once)
        assert twice[0]["name"] == "Inst" if command in ("check", "status") else twice == once

    @pytest.mark.parametrize("command", ["destroy", "start", "stop", "refresh"])
    def test_a_busy_node_exits_1_with_one_line_on_who_holds_it(self, inside: Inside, command: str) -> None:
        inside.lay("Inst")
        lock = inside.home.stack("inst") / "lock"
        with locked(lock, "a deploy", wait=0, busy=""):
            ended = inside(command, "Inst", "-q", *(["--yes"] if command == "destroy" else []))
        assert (ended.code, ended.out) == (1, "")
        said = ended.err.splitlines()
        assert re.fullmatch(
            rf'Error: "Inst" is busy: a deploy by process {os.getpid()} since [\d:]{{8}}\.', said[0]
        )
        assert "Traceback" not in ended.err

    @pytest.mark.parametrize("command", ["destroy", "land", "start", "check", "outputs"])
    def test_one_that_is_just_being_made_is_busy_and_not_unknown(self, inside: Inside, command: str) -> None:
        lock = inside.home.stack("my-lab") / "lock"
        with locked(lock, "a deploy", wait=0, busy="", about="My Lab"):
            ended = inside(command, "My Lab", *(["--yes"] if command in ("destroy", "land") else []))
            other = inside(command, "my lab", *(["--yes"] if command in ("destroy", "land") else []))
            unknown = inside(command, "Hub", *(["--yes"] if command in ("destroy", "land") else []))
        assert (ended.code, ended.out) == (1, "")
        assert f'"My Lab" is busy: a deploy by process {os.getpid()} since' in ended.err
        assert (other.code, unknown.code) == (6, 6)

    def test_a_destroy_waits_for_a_deploy_that_is_not_in_the_state_yet(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock, held, is_free = inside.home.stack("inst") / "lock", ExitStack(), locking._try
        held.enter_context(locked(lock, "a deploy", wait=0, busy="", about="Inst"))

        def tried(fd: int) -> bool:
            if is_free(fd):
                return True
            # The destroy has met the lock. Now the deploy ends.
            inside.lay("Inst")
            held.close()
            return False

        monkeypatch.setattr(locking, "_try", tried)
        # It tries again by --wait-lock alone.
        monkeypatch.setattr(locking, "LOOK_SECONDS", 0.0)
        inside("destroy", "Inst", "--yes", "--wait-lock", "600").ok()
        assert inside.engine.calls == ["destroy", "remove_stack"]

    def test_one_whose_deploy_ends_just_after_the_state_was_read_is_found(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock, held, find = inside.home.stack("inst") / "lock", ExitStack(), Session._find
        held.enter_context(locked(lock, "a deploy", wait=0, busy="", about="Inst"))

        def found(session: Session, which: Which) -> state.Record:
            try:
                return find(session, which)
            finally:
                inside.lay("Inst")
                held.close()

        monkeypatch.setattr(Session, "_find", found)
        inside("outputs", "Inst").ok()

    @pytest.mark.parametrize("laid", [None, "whole", "half"])
    def test_status_tells_what_is_under_way_and_no_damage(self, inside: Inside, laid: str | None) -> None:
        if laid:
            inside.lay("Inst", half=laid == "half")
        with locked(inside.home.stack("inst") / "lock", "a deploy", wait=0, busy="", about="Inst"):
            shown = inside("status").ok()
            (row,) = inside("status", "--json").ok().json
        assert "⏳ a deploy" in shown.out and "Inst: a deploy by process" in shown.out
        assert "repairs" not in shown.out and "degraded" not in shown.out
        assert (row["name"], row["state"], row["busy"]["operation"]) == ("Inst", "unknown", "a deploy")
        assert row["busy"]["pid"] == os.getpid()
        if laid == "whole":
            assert inside("status", "--json", "--no-probe").ok().json[0]["busy"] is None

    def test_one_that_is_being_made_elsewhere_was_not_broken_off(self, inside: Inside) -> None:
        inside.lay("Inst", half=True)
        locks = inside.state / ".pulumi/locks/organization/gridup/inst"
        locks.mkdir(parents=True)
        (locks / "1.json").write_text(json.dumps({"pid": 7, "hostname": "another.example"}))
        shown = inside("status").ok().out
        assert "⏳ an update" in shown and "Inst: an update by process 7 on another.example since" in shown
        assert "completes it" not in shown and "not completed" not in shown
        ended = inside("outputs", "Inst")
        assert ended.code == 1
        assert 'Error: "Inst" is busy: an update by process 7 on another.example since' in ended.err
        # One whose engine has ended here holds nothing.
        dead = 2**22 + 1
        (locks / "1.json").write_text(json.dumps({"pid": dead, "hostname": socket.gethostname()}))
        note = inside.home.stack("inst") / engine_locks.FOLDER / f"{dead}.{processes.boot()}.{namespace()}"
        note.parent.mkdir(parents=True)
        note.touch()
        assert inside("outputs", "Inst").code == 4
        assert "completes it" in inside("status").ok().out

    def test_where_no_lock_can_be_seen_it_may_be_under_way(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside.lay("Inst", half=True)
        (record,) = state.State.of(Settings.load()).records()
        monkeypatch.setattr(state.State, "find", lambda _self, _name: record)
        monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
        told = "was not completed, or is still under way elsewhere"
        assert f'The deploy of "Inst" {told}.' in inside("outputs", "Inst").err
        assert f"its deploy {told} (interrupted while" in inside("status", "Inst").ok().out

    @pytest.mark.parametrize(
        "command", ["outputs", "ssh", "logs", "check", "start", "stop", "rotate", "open"]
    )
    def test_one_that_was_broken_off_says_how_to_complete_it(self, inside: Inside, command: str) -> None:
        inside.lay("Inst", half=True)
        ended = inside(command, "Inst")
        assert ended.code == 4
        assert 'The deploy of "Inst" was not completed.' in ended.err
        assert "`gridup deploy --name Inst` completes it." in ended.err

    @pytest.mark.parametrize("command", ["outputs", "ssh", "logs", "start", "stop", "refresh", "env", "open"])
    def test_without_a_name_several_are_listed_and_none_is_chosen(self, inside: Inside, command: str) -> None:
        inside.lay("Inst")
        inside.lay("My Lab")
        ended = inside(command)
        assert ended.code == 2
        assert 'There are "Inst", "My Lab".' in ended.err


class _Binary:
    root = "/nowhere/engine"


class TestDeploy:
    """gridup deploy."""

    @pytest.fixture(autouse=True)
    def _room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LocalTarget, "preflight", lambda *_: None)

    @pytest.mark.parametrize("name", ["Inst", "My Lab_2", "2nd node", "all", "stoic_to_from", "Институт"])
    def test_a_name_is_shown_as_it_was_typed(self, inside: Inside, name: str) -> None:
        ended = inside("deploy", "--name", name, "--no-wait", "--json").ok()
        assert ended.json["name"] == name
        assert [change["resource"] for change in ended.json["changes"]] == list(RESOURCES)
        assert inside("outputs", name, "--json").ok().json["name"] == name

    def test_the_same_again_says_that_nothing_changed(self, inside: Inside) -> None:
        first = inside("deploy", "Inst", "--no-wait").ok()
        assert "Done: 4 resources made or changed." in first.err
        again = inside("deploy", "--name", "Inst", "--no-wait").ok()
        assert "Nothing changed: the node is as asked." in again.err
        assert inside("deploy", "Inst", "--no-wait", "--json").ok().json["changes"] == []

    def test_an_option_that_is_not_given_keeps_its_value(self, inside: Inside) -> None:
        inside("deploy", "Inst", "--no-wait", "--port", "9001", "--keep-data", "--type", "network").ok()
        inside("deploy", "Inst", "--no-wait", "--admin-email", "it@inst.example").ok()
        found = inside("outputs", "Inst", "--json").ok().json
        assert (found["ui_url"], found["type"], found["admin_email"]) == (
            "http://127.0.0.1:9001/login",
            "network",
            "it@inst.example",
        )
        inside("deploy", "Inst", "--no-wait", "--no-keep-data").ok()

    @pytest.mark.parametrize(("had", "wanted"), [("network", "domain"), ("domain", "network")])
    def test_a_nodes_type_is_never_changed(self, inside: Inside, had: str, wanted: str) -> None:
        inside("deploy", "Inst", "--no-wait", "--type", had).ok()
        ended = inside("deploy", "Inst", "--no-wait", "--type", wanted, "--yes")
        assert ended.code == 2
        assert f'"Inst" is deployed as a {had} node' in ended.err
        assert inside("outputs", "Inst", "--json").ok().json["type"] == had
        inside("deploy", "Inst", "--no-wait", "--type", had).ok()

    def test_a_name_of_the_same_slug_is_refused_naming_the_first(self, inside: Inside) -> None:
        inside("deploy", "My Lab_2", "--no-wait").ok()
        ended = inside("deploy", "my lab 2", "--no-wait")
        assert ended.code == 2
        assert '"my lab 2" and the deployed "My Lab_2" would share the stack my-lab-2.' in ended.err
        assert inside.engine.calls == ["up"]

    def test_so_is_it_after_a_first_deploy_that_was_broken_off(self, inside: Inside) -> None:
        inside.lay("My Lab_2", half=True)
        assert 'the deployed "My Lab_2"' in inside("deploy", "my lab 2", "--no-wait").err

    def test_one_that_was_broken_off_goes_on_with_its_own_mark(self, inside: Inside) -> None:
        spec = inside.lay("Inst", half=True)
        inside("deploy", "Inst", "--no-wait").ok()
        text = (inside.state / ".pulumi" / "stacks" / "gridup" / "inst.json").read_text()
        assert spec.stack_id in text

    @pytest.mark.parametrize("name", ["", "…", "🧬"])
    def test_an_impossible_name_is_refused_before_anything_is_made(self, inside: Inside, name: str) -> None:
        ended = inside("deploy", "--name", name)
        assert ended.code == 2
        assert "a name has at least one letter or digit" in ended.err
        assert (inside.engine.calls, list(inside.home.root.glob("stacks/*"))) == ([], [])

    def test_without_a_name_and_nobody_to_ask_the_flag_is_named(self, inside: Inside) -> None:
        ended = inside("deploy")
        assert (ended.code, ended.err.splitlines()[0]) == (2, "Error: --name is missing.")

    def test_without_a_name_a_person_is_asked(self, inside: Inside, person: list[str]) -> None:
        person.append("My Lab")
        ended = inside("deploy", "--no-wait").ok()
        assert "Name of the node: " in ended.err
        assert inside("outputs", "My Lab").code == 0

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--port", "70000"], "--port 70000: a port is a number from 1 to 65535"),
            (["--port", "0"], "--port 0: a port is a number from 1 to 65535"),
            (["--type", "gateway"], "a node is a domain or a network"),
            (["--cloud", "moon"], "'moon' is unknown"),
            (["--tag", "0.0.1"], "--tag 0.0.1"),
            (["--region", "eu-west-1"], "has no --region"),
            (["--allow-cidr", "10.0.0.0/8"], "has no --allow-cidr"),
            (["--no-node"], "has no --no-node"),
            (["--disk-size", "64"], "has no --disk-size"),
            (["--ssh-key", "/no/such.pub"], "--ssh-key /no/such.pub can't be read"),
            (["--admin-password-file", "/no/such"], "--admin-password-file /no/such can't be read"),
        ],
    )
    def test_the_impossible_is_refused_before_anything_is_made(
        self, inside: Inside, words: list[str], said: str
    ) -> None:
        ended = inside("deploy", "Inst", "--no-wait", *words)
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.err
        assert inside.engine.calls == []

    def test_a_node_is_not_moved_to_another_target(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside.lay("Inst")
        there = "gridup_infra.targets.local:LocalTarget"
        monkeypatch.setattr("gridup_infra.targets._REGISTRY", {"local": there, "moon": there})
        ended = inside("deploy", "Inst", "--cloud", "moon")
        assert ended.code == 2
        assert '"Inst" is deployed on local; it can\'t be moved to moon.' in ended.err
        assert inside.engine.calls == []

    def test_a_failed_resource_exits_4_with_its_reason_and_can_be_gone_on_with(self, inside: Inside) -> None:
        inside.engine.fail_at = ("node", "Port 8080 is in use.")
        ended = inside("deploy", "Inst", "--no-wait")
        assert (ended.code, ended.out) == (4, "")
        assert "Error: node: Port 8080 is in use.\n" in ended.err
        assert "deploy was not completed" in inside("status", "--no-probe").out
        inside.engine.fail_at = None
        inside("deploy", "Inst", "--no-wait").ok()

    def test_a_busy_node_is_waited_for_as_long_as_is_said(self, inside: Inside) -> None:
        with locked(inside.home.stack("inst") / "lock", "a deploy", wait=0, busy=""):
            ended = inside("deploy", "Inst", "--no-wait", "--wait-lock", "0.3")
        assert ended.code == 1
        assert '"Inst" is busy: a deploy by process' in ended.err
        assert inside.engine.calls == []

    def test_it_is_busy_from_before_it_is_planned_which_may_take_minutes(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Ended] = []

        def install(_session: Session, _target: object) -> None:
            if not seen:
                seen.append(inside("destroy", "My Lab", "--yes"))
                seen.append(inside("status", "--json"))

        monkeypatch.setattr(Session, "prepare", install)
        inside("deploy", "My Lab", "--no-wait").ok()
        destroyed, status = seen
        assert destroyed.code == 1
        assert f'"My Lab" is busy: a deploy by process {os.getpid()} since' in destroyed.err
        (row,) = status.ok().json
        assert (row["name"], row["busy"]["operation"]) == ("My Lab", "a deploy")

    def test_one_that_is_refused_leaves_no_folder(self, inside: Inside) -> None:
        for words in (["--region", "sea"], ["--cloud", "docker", "--adopt", "--port", "0"]):
            assert inside("deploy", "My Lab", *words).code == 2
            assert not inside.home.stack("my-lab").exists()

    def test_what_is_in_the_way_is_told_before_an_engine_is_had(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_room(*_: object) -> None:
            raise PreflightError("Too small.")

        monkeypatch.setattr(LocalTarget, "preflight", no_room)
        monkeypatch.setattr(Session, "engine", lambda *_: pytest.fail("it may take minutes"))
        ended = inside("deploy", "Inst", "--no-wait")
        assert "Error: Too small.\n" in ended.err

    @pytest.mark.parametrize(
        ("content", "read"),
        [
            ("\ufeffS3cret!x9Qz\r\n".encode(), "S3cret!x9Qz"),
            ("Zwölf Grüße 9\n".encode(), "Zwölf Grüße 9"),
            (b" S3cret!x9Qz ", " S3cret!x9Qz "),
        ],
    )
    @pytest.mark.parametrize("by", ["file", "-"])
    def test_a_password_is_what_stands_in_the_file_without_an_editors_marks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, read: str, by: str
    ) -> None:
        (tmp_path / "file").write_bytes(content)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert read_password(tmp_path / by if by == "file" else Path("-")) == read

    def test_a_password_file_that_is_no_text_is_told(self, inside: Inside, tmp_path: Path) -> None:
        (tmp_path / "p").write_bytes("Zwölf Grüße 9".encode("latin-1"))
        ended = inside("deploy", "Inst", "--admin-password-file", str(tmp_path / "p"))
        assert ended.code == 2
        assert "is no text in UTF-8" in ended.err

    def test_a_weak_password_is_refused_and_not_shown(self, inside: Inside, tmp_path: Path) -> None:
        (tmp_path / "p").write_text("aaaaaaaaaaaa\n")
        ended = inside("deploy", "Inst", "--admin-password-file", str(tmp_path / "p"))
        assert ended.code == 2
        assert "is refused" in ended.err
        assert "aaaaaaaaaaaa" not in ended.err

    def test_a_password_that_is_all_that_changes_is_said_to_be_changed(
        self, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_to: list[str] = []
        monkeypatch.setattr("gridup.secrets.change_password", lambda _way, word: set_to.append(word))
        monkeypatch.setattr("gridup.health.wait_healthy", lambda *_, **__: [])
        inside("deploy", "Inst", "--no-wait").ok()
        (tmp_path / "p").write_text("S3cret!x9Qz\n")
        told = inside("deploy", "Inst", "--admin-password-file", str(tmp_path / "p")).ok().err
        assert set_to == ["S3cret!x9Qz"]
        assert "The administrator's password was changed to the one that was given.\nNothing else cha" in told
        assert "Nothing changed" not in told
        assert "Nothing changed: the node is as asked." in inside("deploy", "Inst", "--no-wait").ok().err


class TestTheLookBefore:
    """What would stop a deploy is told before anything is fetched."""

    def test_what_costs_nothing_is_looked_at_before_anything_is_fetched(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        order: list[str] = []

        def noted(word: str, answer: object = None) -> Callable[..., Any]:
            return lambda *_: order.append(word) or answer

        def no_engine(*_: object) -> None:
            raise ResourceError("No engine.")

        monkeypatch.setattr(room, "lacking", noted("disk"))
        monkeypatch.setattr(LocalTarget, "glance", noted("ports"))
        found = lock_text(("humanize",), catalog.lock_for("latest").read_bytes(), [])
        monkeypatch.setattr(resolving, "lock", noted("packages", found))
        monkeypatch.setattr(runtime, "find_python", noted("Python"))
        monkeypatch.setattr(Session, "engine", no_engine)
        (tmp_path / "science.txt").write_text("humanize\n")
        words = ("deploy", "Inst", "--no-wait", "--packages", str(tmp_path / "science.txt"))
        inside.home.root.chmod(0o777)
        assert "may be changed by others" in inside(*words).err
        assert order == []
        inside.home.root.chmod(0o700)
        assert "Error: No engine.\n" in inside(*words).err
        assert order == ["disk", "ports", "packages", "ports", "Python"]
        order.clear()
        inside(*words, "--no-preflight")
        assert order == ["packages"]

    def test_readme_docs_doctor_and_the_look_before_a_deploy_name_the_same_disk(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "disk", lambda _folder: 1)
        needed = room.total(first_deploy(Settings.load()))
        for page in ("README.md", "docs/local.md"):
            (said,) = re.findall(r"some (\d+) GB of disk", (REPOSITORY / page).read_text())
            assert int(said) == math.ceil(needed / 1e9), page
        figure, free = f"{needed / 1e9:.1f} GB", needed
        monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free))
        ok, detail = self.disk(inside)
        assert (ok, figure in detail) == (True, True)
        inside("deploy", "Inst", "--no-wait").ok()
        free -= 1
        ok, detail = self.disk(inside)
        assert (ok, f"need {figure}" in detail) == (False, True)
        monkeypatch.setattr(Session, "engine", lambda *_: pytest.fail("it may take minutes"))
        ended = inside("deploy", "Another", "--no-wait")
        assert (ended.code, f"need {figure}" in ended.err) == (1, True)

    @staticmethod
    def disk(inside: Inside) -> tuple[bool, str]:
        (found,) = (row for row in inside("doctor", "--json").json if row["name"] == "disk")
        return found["ok"], found["detail"]

    @pytest.mark.parametrize(
        ("page", "said", "needed"),
        [
            ("README.md", r"\((\d+) GB while the\s+engine is built", build.NEEDED_BYTES),
            ("docs/local.md", r"To build the engine takes (\d+) GB", build.NEEDED_BYTES),
            ("docs/local.md", r"it takes ([\d.]+) GB there", runtime.CACHED_BYTES),
            ("README.md", r"with\s+(\d+) GB of disk; Python and ssh", docker.IMAGE_BYTES),
            ("docs/docker.md", r"A build needs (\d+) GB", docker.IMAGE_BYTES),
            ("docs/docker.md", r"a node ([\d.]+) GB", docker.NODE_BYTES),
        ],
    )
    def test_so_do_the_pages_of_what_else_takes_disk(self, page: str, said: str, needed: int) -> None:
        (figure,) = re.findall(said, (REPOSITORY / page).read_text())
        digits = 1 if "." in figure else 0
        assert float(figure) == math.ceil(needed / 1e9 * 10**digits) / 10**digits


class TestPreview:
    """gridup preview."""

    def test_a_new_node_is_shown_and_not_made(self, inside: Inside) -> None:
        ended = inside("preview", "--name", "Inst").ok()
        for name in RESOURCES:
            assert re.search(rf"would create\s.*{name}", ended.out)
        assert "this machine" in ended.out
        assert inside("status", "--json").ok().json == []
        found = inside("preview", "Inst", "--json").ok().json
        assert [change["operation"] for change in found["changes"]] == ["create"] * 4
        whole = " ".join(ended.out.split())
        assert all(" ".join(line.split()) in whole for line in found["makes"])
        assert str(inside.home.node("inst")) in " ".join(found["makes"])

    def test_it_names_the_ports(self, inside: Inside) -> None:
        front, jupyter = (str(services.service(name).port) for name in (services.PROXY, "jupyter"))
        for words, at in (((), front), (("--port", "9007"), "9007")):
            made = inside("preview", "Inst", "--json", *words).ok().json["makes"]
            (line,) = [line for line in made if line.startswith("ports: ")]
            assert set(re.findall(r"\d+", line)) >= {at, jupyter}
            assert (front in line) is (at == front)
            spec = DeploySpec("Inst", target="docker", port=9007 if words else 0)
            assert targets.target("docker").listens(spec) == (line,)

    def test_an_update_says_what_changes(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        inside.lay("Inst")
        changes = [Change("node", "update", ("ports", "files")), Change("services", "update")]
        monkeypatch.setattr(inside.engine, "preview", lambda *_, **__: Report(changes))
        ended = inside("preview", "Inst", "--port", "9001").ok()
        assert re.search(r"would update\s.*node: ports, files", ended.out)
        assert re.search(r"would update\s+\S*\s*services\s", ended.out)
        assert inside("preview", "Inst", "--port", "9001", "--json").ok().json["makes"] == []

    def test_no_change_says_so(self, inside: Inside) -> None:
        inside.lay("Inst")
        assert inside("preview", "Inst").ok().out == "No change.\n"
        assert inside("preview", "Inst", "--port", "9001", "--json").ok().json["changes"] != []

    def test_the_impossible_is_refused(self, inside: Inside) -> None:
        assert inside("preview", "…").code == 2
        assert inside("preview", "Inst", "--port", "70000").code == 2
        assert "--name is missing" in inside("preview").err

    def test_it_leaves_no_folder_and_what_would_be_done_is_no_progress(
        self, inside: Inside, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = sorted(inside.home.root.rglob("*"))
        inside("preview", "--name", "Inst").ok()
        assert sorted(inside.home.root.rglob("*")) == before
        told = []
        foreseeing = Foreseeing(SimpleNamespace(resource=told.append))  # type: ignore[arg-type]
        events = [
            ResourceEvent("node", "create", Phase.STARTED),
            ResourceEvent("node", "create", Phase.DONE),
            ResourceEvent("node", "refresh", Phase.DONE),
            ResourceEvent("node", "create", Phase.FAILED),
        ]
        for event in events:
            foreseeing.resource(event)
        assert told == events[2:]


class TestThePassphrase:
    """Of a state with stacks in it."""

    @pytest.mark.parametrize("words", [["deploy", "Hub", "--no-wait"], ["destroy", "Inst", "--yes"]])
    def test_a_missing_one_is_told_and_not_made_anew(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, words: list[str]
    ) -> None:
        inside.lay("Inst")
        monkeypatch.undo()
        monkeypatch.setenv("GRIDUP_HOME", str(inside.home.root))
        inside.home.passphrase.unlink()
        ended = inside(*words)
        assert (ended.code, ended.out) == (3, "")
        assert f"The passphrase {inside.home.passphrase} is missing" in ended.err and "inst" in ended.err
        assert not inside.home.passphrase.exists()


class TestDestroy:
    """gridup destroy, and land."""

    @pytest.mark.parametrize("command", ["destroy", "land", "start", "stop", "refresh"])
    @pytest.mark.parametrize("name", ["lab-one", "LAB_ONE", "lab one"])
    def test_what_changes_a_node_never_takes_another_of_the_same_slug(
        self, inside: Inside, command: str, name: str
    ) -> None:
        inside.lay("Lab One")
        ended = inside(command, name, *(["--yes"] if command in ("destroy", "land") else []))
        assert (ended.code, ended.out, inside.engine.calls) == (6, "", [])
        assert 'Did you mean "Lab One"? (Its stack is lab-one.)' in ended.err
        assert [row["name"] for row in inside("status", "--json").ok().json] == ["Lab One"]

    def test_a_stack_is_destroyed_by_its_own_name_where_that_is_asked_for(self, inside: Inside) -> None:
        inside.lay("Lab One")
        inside.lay("lab")
        assert inside("destroy", "--stack", "lab-on", "--yes").code == 6
        assert inside("destroy", "lab", "--stack", "lab-one", "--yes").code == 2
        inside("destroy", "--stack", "lab-one", "--yes").ok()
        assert [row["name"] for row in inside("status", "--json").ok().json] == ["lab"]

    def test_yes_never_asks_and_takes_the_stack_away(self, inside: Inside) -> None:
        inside.lay("My Lab")
        ended = inside("destroy", "--name", "My Lab", "--yes").ok()
        assert ended.out == '"My Lab" is destroyed.\n'
        assert inside.engine.calls == ["destroy", "remove_stack"]
        assert inside("status", "--json").ok().json == []
        assert inside("destroy", "My Lab", "--yes").code == 6

    @pytest.mark.parametrize("words", [["destroy", "Inst"], ["land", "Inst"], ["destroy", "Inst", "--json"]])
    def test_with_nobody_to_ask_it_exits_2_naming_the_flag_and_deletes_nothing(
        self, inside: Inside, words: list[str]
    ) -> None:
        inside.lay("Inst")
        ended = inside(*words)
        assert (ended.code, ended.out) == (2, "")
        assert "--yes" in ended.err
        assert inside.engine.calls == []

    @pytest.mark.parametrize("answer", ["", "n", "no", "maybe", "yess"])
    def test_no_is_the_default_and_exits_8(self, inside: Inside, person: list[str], answer: str) -> None:
        inside.lay("Inst")
        person.append(answer)
        ended = inside("destroy", "Inst")
        assert (ended.code, ended.out) == (8, "")
        assert 'Destroy "Inst"? [y/N]' in ended.err
        assert "This deletes" in ended.err and "It keeps" in ended.err
        assert inside.engine.calls == []

    @pytest.mark.parametrize("answer", ["y", "Y", "yes", " YES "])
    def test_yes_goes_on(self, inside: Inside, person: list[str], answer: str) -> None:
        inside.lay("Inst")
        person.append(answer)
        inside("destroy", "Inst").ok()

    def test_without_a_name_nothing_is_chosen_not_even_the_only_one(self, inside: Inside) -> None:
        inside.lay("Inst")
        ended = inside("destroy", "--yes")
        assert ended.code == 2
        assert "Which node?" in ended.err
        assert inside.engine.calls == []

    def test_a_name_is_no_pattern(self, inside: Inside) -> None:
        inside.lay("Inst")
        for name in ("all", "*", "In", "INST"):
            assert inside("destroy", name, "--yes").code == 6
        assert inside.engine.calls == []

    def test_what_could_not_be_deleted_exits_4_and_is_listed(self, inside: Inside) -> None:
        inside.lay("Inst")
        inside.engine.fail_at = ("node", "Permission denied.")
        ended = inside("destroy", "Inst", "--yes")
        assert (ended.code, ended.out) == (4, "")
        assert "Error: node: Permission denied." in ended.err
        assert "left in the state: owner" in ended.err
        assert "left in the state: node" in ended.err
        assert "left in the state: services" not in ended.err
        inside.engine.fail_at = None
        inside("destroy", "Inst", "--yes").ok()

    def test_what_still_bears_the_stacks_marks_is_left_too(self, inside: Inside) -> None:
        spec = inside.lay("Inst")
        config = inside.home.node("inst") / "config"
        config.mkdir(parents=True)
        (config / "node.json").write_text(json.dumps({"stack_id": spec.stack_id}))
        ended = inside("destroy", "Inst", "--yes")
        assert ended.code == 4
        assert f"left: folder {inside.home.node('inst')}" in ended.err
        assert "remove_stack" not in inside.engine.calls

    def test_one_that_was_broken_off_can_be_taken_away(self, inside: Inside) -> None:
        inside.lay("Inst", half=True)
        assert inside("destroy", "Inst", "--yes", "--json").ok().json["destroyed"] == ["owner", "runtime"]

    def test_the_words_of_hagrid(self, inside: Inside) -> None:
        inside.lay("My Institution Name")
        inside("land", "My", "Institution", "Name", "--force").ok()


class TestShowing:
    """status, outputs, open, logs, refresh, env."""

    def test_status_sees_that_a_node_is_gone(self, inside: Inside) -> None:
        inside.lay("Inst")
        ended = inside("status").ok()
        assert "❌ missing" in ended.out
        assert "its data are lost: `gridup deploy --name Inst` makes an empty node." in ended.out
        row = inside("status", "Inst", "--json").ok().json[0]
        assert (row["state"], row["right"], row["target"]) == ("missing", False, "local")

    def test_status_of_nothing(self, inside: Inside) -> None:
        assert "There are no deployments yet" in inside("status").ok().out
        assert inside("status", "--json").ok().json == []

    def test_status_lists_whole_and_half_made(self, inside: Inside) -> None:
        inside.lay("Inst")
        inside.lay("Other", half=True)
        rows = {row["name"]: row for row in inside("status", "--json").ok().json}
        assert rows["Other"]["problems"] == ["its deploy was not completed (interrupted while creating node)"]
        assert rows["Other"]["endpoints"] is None

    def test_outputs_mask_what_is_secret_and_give_each_address(self, inside: Inside) -> None:
        inside.lay("My Lab", port=8081)
        found = inside("outputs", "--json").ok().json
        assert found["ui_url"] == "http://127.0.0.1:8081/login"
        assert found["ssh_address"] == f"127.0.0.1:{PORTS['ssh']}"
        assert (found["admin_password"], found["jupyter_token"]) == ("[secret]", "[secret]")
        human = inside("outputs", "My Lab").ok().out
        assert "http://127.0.0.1:8081/login" in human

    def test_outputs_can_not_read_the_secrets_of_a_node_that_is_gone(self, inside: Inside) -> None:
        inside.lay("My Lab")
        ended = inside("outputs", "--show-secrets")
        assert (ended.code, ended.out) == (4, "")
        assert "is gone.\n`gridup deploy --name 'My Lab'` lays it again.\n" in ended.err

    def test_open_prints_the_address_where_there_is_no_screen(self, inside: Inside) -> None:
        inside.lay("Inst")
        assert inside("open").ok().out == "http://127.0.0.1:1/login\n"
        assert inside("open", "--service", "jupyter", "--json").ok().json == {
            "url": f"http://127.0.0.1:{PORTS['jupyter']}",
            "opened": False,
        }
        ended = inside("open", "--service", "ssh")
        assert ended.code == 2
        assert "It has: ui, api, jupyter." in ended.err

    def test_logs_of_a_service_that_is_none(self, inside: Inside) -> None:
        inside.lay("Inst")
        ended = inside("logs", "Inst", "database")
        assert ended.code == 2
        assert '"Inst" has no service "database"' in ended.err
        assert "proxy" in ended.err

    def test_logs_show_whose_line_it_is(self, inside: Inside) -> None:
        inside.lay("Inst")
        logs = inside.home.node("inst") / "logs"
        logs.mkdir(parents=True)
        (logs / "api.log").write_text("one\ntwo\n")
        (logs / "proxy.log").write_text("three\n")
        assert inside("logs", "Inst").ok().out == "proxy   | three\napi     | one\napi     | two\n"
        assert inside("logs", "--name", "Inst", "api", "-n", "1").ok().out == "two\n"
        assert inside("logs", "Inst", "api", "--json").ok().json == [
            {"service": "api", "line": "one"},
            {"service": "api", "line": "two"},
        ]

    def test_refresh_says_what_is_wrong_and_how_it_is_repaired(self, inside: Inside) -> None:
        inside.lay("Inst")
        ended = inside("refresh").ok()
        assert "is gone" in ended.out
        assert "Inst: its data are lost: `gridup deploy --name Inst` makes an empty node." in ended.out
        (inside.home.node("inst") / "data").mkdir(parents=True)
        for command in ("refresh", "status"):
            ended = inside(command).ok()
            assert "is missing" in ended.out
            assert "`gridup deploy --name Inst` repairs it." in ended.out
        assert inside("refresh", "--json").ok().json["changes"] == []

    def test_env_is_what_a_shell_can_take_and_holds_no_secret(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gridup.commands.env.Session.binary", lambda _s, _r: _Binary)
        inside.lay("Inst")
        out = inside("env", "Inst").ok().out
        shell = subprocess.run(["sh", "-c", f"{out}\nenv -0"], capture_output=True, text=True, check=True)
        made = dict(line.split("=", 1) for line in shell.stdout.split("\0") if line)
        told = inside("env", "Inst", "--json").ok().json
        assert told.items() <= made.items()
        assert made["PATH"].endswith(f"/nowhere/engine/bin{os.pathsep}{os.environ['PATH']}")
        assert made["PULUMI_BACKEND_URL"].endswith("/a%20home%20%231/state")
        assert made["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(inside.home.passphrase)
        assert inside.home.passphrase.read_text() not in out


class TestCheck:
    """gridup check."""

    def test_nothing_there_is_unhealthy_and_reported(self, inside: Inside) -> None:
        ended = inside("check", "127.0.0.1:1", "--timeout", "2", "--json")
        assert ended.code == 10
        assert [(row["name"], row["up"]) for row in ended.json] == [("127.0.0.1:1", False)]
        assert "`gridup check 127.0.0.1:1 --wait` waits for it." in ended.err

    def test_ssh_that_is_not_offered_is_no_command_of_the_table(self, inside: Inside) -> None:
        spec = inside.lay("Inst")
        assert "gridup ssh Inst" in inside("check", "--timeout", "1").out
        absent = {"ssh": "no sshd on this machine"}
        inside.lay_outputs(replace(inside.outputs(spec.stack), not_offered=absent))
        shown = inside("check", "--timeout", "1").out
        assert "➖ no sshd on this machine" in shown
        assert "gridup ssh" not in shown

    def test_what_to_do_next_names_the_nodes(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        inside.lay("My Lab")
        inside.lay("Inst")
        again = "`gridup check Inst 'My Lab' --wait`"
        assert f"{again} waits for it." in inside("check", "--timeout", "1").err
        assert f"{again} goes on waiting." in inside("check", "--wait", "--timeout", "0.5").err
        ended = ResourceError("api has ended", "", ("its last words",))
        monkeypatch.setattr(LocalTarget, "terminal_failure", lambda _self, _outputs: ended)
        assert "`gridup logs 'My Lab'` tells more." in inside("check", "My Lab", "--wait").err

    def test_a_wait_that_runs_out_exits_9_with_one_report(self, inside: Inside) -> None:
        ended = inside("check", "127.0.0.1:1", "--wait", "--silent", "--timeout", "1")
        assert ended.code == 9
        assert ended.out.count("127.0.0.1:1") >= 1
        assert ended.out.count("┏") == 1
        assert "Waiting" not in ended.err

    def test_of_no_node_at_all(self, inside: Inside) -> None:
        ended = inside("check")
        assert ended.code == 6
        assert "gridup check HOST[:PORT]" in ended.err

    def test_a_name_given_as_such_is_never_an_address(self, inside: Inside) -> None:
        assert inside("check", "--name", "localhost").code == 6


def _ctrl_c(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


class TestPower:
    """gridup start and stop."""

    def test_a_stopped_node_says_how_it_is_started(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []
        monkeypatch.setattr(LocalTarget, "stop", lambda _self, outputs: seen.append(outputs.spec.name))
        inside.lay("My Lab")
        assert "`gridup start 'My Lab'` starts it." in inside("stop").ok().out
        assert inside("stop", "My Lab", "--json").ok().json == {"name": "My Lab", "state": "stopped"}
        assert seen == ["My Lab"] * 2

    @pytest.mark.parametrize("words", [["check"], ["check", "--wait", "--timeout", "0.5"]])
    def test_a_stopped_node_is_no_riddle(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, words: list[str]
    ) -> None:
        inside.lay("My Lab")
        ended = inside(*words)
        assert "stopped" not in ended.err
        monkeypatch.setattr(LocalTarget, "inspect", lambda _self, _outputs: Inspection(State.STOPPED))
        ended = inside(*words)
        assert ended.code == 10
        assert "Error: \"My Lab\" is stopped.\n`gridup start 'My Lab'` starts it.\n" in ended.err

    def test_a_stopped_node_is_not_waited_for(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        def inspect(_self: LocalTarget, outputs: Any) -> Inspection:
            return Inspection(State.STOPPED if outputs.spec.name == "Inst" else State.STARTING)

        monkeypatch.setattr(LocalTarget, "inspect", inspect)
        inside.lay("Inst")
        inside.lay("Other")
        ended = inside("check", "--wait", "--timeout", "100000")
        assert ended.code == 10
        assert '"Inst" is stopped.' in ended.err

    def test_start_waits_and_shows_the_table(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LocalTarget, "start", lambda _self, _outputs: None)
        monkeypatch.setattr(LocalTarget, "inspect", lambda _self, _outputs: Inspection(State.STARTING))
        inside.lay("Inst")
        ended = inside("start", "--timeout", "0.5")
        assert ended.code == 9
        assert '"Inst" was not up within 0.5 s' in ended.err

    @pytest.mark.parametrize("words", [["start"], ["deploy", "My Lab"], ["check", "--wait"]])
    def test_ctrl_c_in_the_wait_names_what_goes_on_waiting(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, words: list[str]
    ) -> None:
        monkeypatch.setattr(LocalTarget, "start", lambda _self, _outputs: None)
        monkeypatch.setattr("gridup.probes.wait_for", _ctrl_c)
        inside.lay("My Lab")
        ended = inside(*words)
        assert ended.code == 130
        assert 'Error: Stopped waiting for "My Lab"; nothing else was stopped.\n' in ended.err
        assert "`gridup check 'My Lab' --wait` goes on waiting." in ended.err

    @pytest.mark.parametrize("command", ["start", "stop"])
    def test_ctrl_c_in_what_a_machine_takes_names_the_same_command(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        monkeypatch.setattr(LocalTarget, command, _ctrl_c)
        inside.lay("My Lab")
        ended = inside(command)
        assert ended.code == 130
        assert f'Error: Stopped waiting for the {command} of "My Lab".\n' in ended.err
        assert f"`gridup {command} 'My Lab'` goes on with it." in ended.err

    def test_a_target_without_power_says_so(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LocalTarget, "capabilities", frozenset())
        inside.lay("Inst")
        for command in ("start", "stop"):
            ended = inside(command)
            assert ended.code == 2
            assert f"A node on this machine has no {command}." in ended.err


class TestDefaults:
    """Flag over environment over config.yaml over default."""

    @pytest.fixture(autouse=True)
    def _room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LocalTarget, "preflight", lambda *_: None)

    @staticmethod
    def port(inside: Inside) -> Any:
        return inside("outputs", "Inst", "--json").ok().json["ui_url"].split(":")[2].partition("/")[0]

    def test_the_file_reaches_a_command_and_a_flag_wins(self, inside: Inside) -> None:
        (inside.home.root / "config.yaml").write_text(
            "deploy:\n  port: 9001\n  no-wait: true\n  type: network\n"
        )
        inside("deploy", "Inst").ok()
        assert self.port(inside) == "9001"
        inside("deploy", "Inst", "--port", "9002").ok()
        assert self.port(inside) == "9002"

    def test_the_environment_wins_over_the_file_and_a_flag_over_both(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (inside.home.root / "config.yaml").write_text("deploy: {cloud: from-file, no-wait: true}\n")
        assert "'from-file' is unknown" in inside("deploy", "Inst").err
        monkeypatch.setenv("GRIDUP_CLOUD", "from-environment")
        assert "'from-environment' is unknown" in inside("deploy", "Inst").err
        assert "'from-flag' is unknown" in inside("deploy", "Inst", "--cloud", "from-flag").err

    def test_a_value_of_the_wrong_kind_is_a_usage_error(self, inside: Inside) -> None:
        (inside.home.root / "config.yaml").write_text("deploy: {port: many}\n")
        assert inside("deploy", "Inst").code == 2

    @pytest.mark.parametrize("text", ["- deploy", "deploy: 9000", "{"])
    def test_a_malformed_file_is_a_usage_error_naming_it(self, inside: Inside, text: str) -> None:
        (inside.home.root / "config.yaml").write_text(text)
        ended = inside("status")
        assert ended.code == 2
        assert "config.yaml" in ended.err
        assert "Traceback" not in ended.err
