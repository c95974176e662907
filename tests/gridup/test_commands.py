"""What each command prints and how it ends, over an engine that makes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gridup.app import COMMANDS
from gridup_infra.locking import locked
from gridup_infra.targets.base import Inspection
from gridup_infra.targets.base import Power as State
from gridup_infra.targets.local import LocalTarget
from support.checkpoints import PORTS, RESOURCES
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
            "Error: There is no deployment called 'Isnt'.",
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
        assert "Two names were given: 'Inst' and --name 'Other'." in ended.err

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
            rf"Error: Inst is busy: a deploy by process {os.getpid()} since [\d:]{{8}}\.", said[0]
        )
        assert "Traceback" not in ended.err

    @pytest.mark.parametrize("command", ["outputs", "ssh", "logs", "check", "start", "stop", "open"])
    def test_one_that_was_broken_off_says_how_to_complete_it(self, inside: Inside, command: str) -> None:
        inside.lay("Inst", half=True)
        ended = inside(command, "Inst")
        assert ended.code == 4
        assert "The deploy of Inst was not completed." in ended.err
        assert '`gridup deploy --name "Inst"` completes it.' in ended.err

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
        assert "Inst is busy: a deploy by process" in ended.err
        assert inside.engine.calls == []

    def test_a_weak_password_is_refused_and_not_shown(self, inside: Inside, tmp_path: Path) -> None:
        (tmp_path / "p").write_text("aaaaaaaaaaaa\n")
        ended = inside("deploy", "Inst", "--admin-password-file", str(tmp_path / "p"))
        assert ended.code == 2
        assert "is refused" in ended.err
        assert "aaaaaaaaaaaa" not in ended.err


class TestPreview:
    """gridup preview."""

    def test_a_new_node_is_shown_and_not_made(self, inside: Inside) -> None:
        ended = inside("preview", "--name", "Inst").ok()
        for name in RESOURCES:
            assert re.search(rf"create\s.*{name}", ended.out)
        assert "this machine" in ended.out
        assert inside("status", "--json").ok().json == []
        found = inside("preview", "Inst", "--json").ok().json
        assert [change["operation"] for change in found["changes"]] == ["create"] * 4

    def test_no_change_says_so(self, inside: Inside) -> None:
        inside.lay("Inst")
        assert inside("preview", "Inst").ok().out == "No change.\n"
        assert inside("preview", "Inst", "--port", "9001", "--json").ok().json["changes"] != []

    def test_the_impossible_is_refused(self, inside: Inside) -> None:
        assert inside("preview", "…").code == 2
        assert inside("preview", "Inst", "--port", "70000").code == 2
        assert "--name is missing" in inside("preview").err


class TestDestroy:
    """gridup destroy, and land."""

    def test_yes_never_asks_and_takes_the_stack_away(self, inside: Inside) -> None:
        inside.lay("My Lab")
        ended = inside("destroy", "--name", "My Lab", "--yes").ok()
        assert ended.out == '"My Lab" is destroyed.\n'
        assert inside.engine.calls == ["destroy", "forget"]
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
        assert "forget" not in inside.engine.calls

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
        assert "❌ gone" in ended.out
        assert '`gridup deploy --name "Inst"` repairs it.' in ended.out
        row = inside("status", "Inst", "--json").ok().json[0]
        assert (row["state"], row["right"], row["target"]) == ("gone", False, "local")

    def test_status_of_nothing(self, inside: Inside) -> None:
        assert "There are no deployments yet" in inside("status").ok().out
        assert inside("status", "--json").ok().json == []

    def test_status_lists_whole_and_half_made(self, inside: Inside) -> None:
        inside.lay("Inst")
        inside.lay("Other", half=True)
        rows = {row["name"]: row for row in inside("status", "--json").ok().json}
        assert rows["Other"]["problems"] == ["its deploy was not completed (broken off while creating node)"]
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
        inside.lay("Inst")
        ended = inside("outputs", "--show-secrets")
        assert (ended.code, ended.out) == (4, "")
        assert "is gone" in ended.err

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
        assert "Inst has no service 'database'" in ended.err
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
        assert '`gridup deploy --name "Inst"` repairs it.' in ended.out
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


class TestPower:
    """gridup start and stop."""

    def test_a_stopped_node_says_how_it_is_started(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []
        monkeypatch.setattr(LocalTarget, "stop", lambda _self, outputs: seen.append(outputs.spec.name))
        inside.lay("My Lab")
        assert '`gridup start "My Lab"` starts it.' in inside("stop").ok().out
        assert inside("stop", "My Lab", "--json").ok().json == {"name": "My Lab", "state": "stopped"}
        assert seen == ["My Lab"] * 2

    def test_start_waits_and_shows_the_table(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LocalTarget, "start", lambda _self, _outputs: None)
        monkeypatch.setattr(LocalTarget, "inspect", lambda _self, _outputs: Inspection(State.STARTING))
        inside.lay("Inst")
        ended = inside("start", "--timeout", "0.5")
        assert ended.code == 9
        assert "Inst was not up within 0.5 s" in ended.err

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
