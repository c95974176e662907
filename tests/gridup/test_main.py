"""How the command line ends: exit codes, one line for what is unexpected, and what is not even imported."""

from __future__ import annotations

import itertools
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gridup import __main__ as entry
from gridup.__main__ import globals_first
from gridup.app import COMMANDS, build
from gridup.commands.parsing import FREE_TEXT
from gridup.session import Session
from gridup_infra.errors import GridupError, NotOfferedError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import wait_until
from gridup_infra.targets import target
from support import http_rig as rig
from support.checkpoints import PORTS, outputs_for
from support.cli import REPOSITORY, Cli
from support.inside import Inside, spec_of

ENGINE = Session.engine
"""The real one's."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("status", "status"),
        ("status --debug -q", "--debug -q status"),
        ("-v deploy Inst --json -q", "-v -q deploy Inst --json"),
        ("ssh Inst -- ls -v", "ssh Inst -- ls -v"),
        ("ssh Inst ls -v", "ssh Inst ls -v"),
        ("ssh -q Inst ls -v --debug", "-q ssh Inst ls -v --debug"),
        ("ssh --name Inst -v ls", "-v ssh --name Inst ls"),
        ("ssh --name Inst ls -v", "ssh --name Inst ls -v"),
        ("ssh --stack=inst ls -v", "ssh --stack=inst ls -v"),
        ("-v ssh", "-v ssh"),
        ("--quiet ssh Inst -- x --debug -- -q", "--quiet ssh Inst -- x --debug -- -q"),
        ("", ""),
    ],
)
def test_the_global_flags_may_stand_anywhere_before_two_dashes(line: str, expected: str) -> None:
    assert globals_first(line.split()) == expected.split()


class TestExitCodes:
    """Through a process of its own, as a shell sees it."""

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["bogus"], 'There is no command "bogus"'),
            (["ls"], "Did you mean `gridup status`?"),
            (["up"], "Did you mean `gridup deploy`?"),
            (["rm", "Inst"], "Did you mean `gridup destroy`?"),
            (["down"], "Did you mean `gridup destroy`?"),
            (["list"], "Did you mean `gridup status`?"),
            (["restart", "Inst"], "`gridup stop` and `gridup start` do it. `gridup --help` lists all."),
            (["upgrade"], "`gridup deploy` does it: `--tag` for another syft"),
            (["help"], "Did you mean `gridup --help`?"),
            (["depoly", "Inst"], "Did you mean `gridup deploy`?"),
            (["destroy", "--name", "--yes"], "--name has no value before --yes."),
            (["deploy", "--name", "-x"], "--name has no value before -x."),
            (["status", "--bogus"], "No such option: --bogus"),
            (["outputs", "Inst", "--name", "Other"], "Two names were given"),
            (["destroy"], "Which node?"),
            (["deploy"], "--name is missing"),
            (["check", "--timeout", "soon"], "'soon' is not a valid float"),
            (["launch", "Inst"], "launch NAME... [domain|network] to TARGET[:PORT]"),
        ],
    )
    def test_a_wrong_line_exits_2_and_makes_nothing(self, bare_cli: Cli, words: list[str], said: str) -> None:
        ended = bare_cli(*words, timeout=60)
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.err
        assert "Traceback" not in ended.err
        assert not bare_cli.home.exists()

    @pytest.mark.parametrize("command", COMMANDS)
    def test_no_option_takes_another_for_its_value(self, inside: Inside, command: str) -> None:
        known = build([command]).commands[command].params  # type: ignore[attr-defined]
        options = [one for one in known if one.param_type_name == "option" and not one.is_flag]
        before = sorted(inside.home.root.rglob("*"))
        words = ["-h", "--help", *(word for one in known for word in one.opts if word[0] == "-")]
        # Each option before some word, and each word behind some option.
        pairs = itertools.islice(zip(itertools.cycle(options), itertools.cycle(words)), len(words) + 1)
        for option, other in pairs if options else ():
            ended = inside(command, option.opts[0], other)
            assert (ended.code, ended.out) == (2, ""), (option, other)
            assert f"{option.opts[0]} has no value before {other}." in ended.err
        for option in options:
            text = option.name in FREE_TEXT
            assert ("has no value" in inside(command, option.opts[0], "--bogus", "--help").err) is not text
        assert sorted(inside.home.root.rglob("*")) == before

    def test_a_value_with_dashes_is_taken_where_it_is_meant(self, inside: Inside) -> None:
        for words in (["--description=--yes"], ["--description", "-- ours --"]):
            inside("deploy", "Inst", "--no-wait", *words).ok()
            assert spec_of(inside).description == words[-1].removeprefix("--description=")

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_home_that_can_not_be_is_named_by_its_variable(
        self, inside: Inside, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Session, "engine", ENGINE)
        (tmp_path / "file").write_text("")
        needed = {"launch": ["Inst", "to", "local"]}
        words = needed.get(command, [] if command in ("doctor", "prune", "version") else ["Inst"])
        if command in ("destroy", "land", "rotate"):
            words.append("--yes")
        for root in ("/proc/nope", tmp_path / "file", tmp_path / "file" / "home"):
            monkeypatch.setenv("GRIDUP_HOME", str(root))
            ended = inside(command, *words)
            assert (ended.code, ended.out) == (1, ""), root
            head, *rest = ended.err.splitlines()
            assert head.startswith(f"Error: GRIDUP_HOME, {root}, can't be made or written: ")
            assert rest == ["Set GRIDUP_HOME to a folder that you may write."]
            inside(command, "-h").ok()

    def test_what_can_not_be_written_in_it_is_no_fault_of_ours(self, inside: Inside) -> None:
        inside.home.stacks.write_text("")
        ended = inside("deploy", "Inst", "--no-wait")
        assert ended.code == 1
        assert ended.err.startswith(f"Error: GRIDUP_HOME, {inside.home.root}, can't be made or written: ")

    def test_an_unknown_name_exits_6(self, bare_cli: Cli) -> None:
        ended = bare_cli("destroy", "Inst", "--yes", timeout=60)
        assert (ended.code, ended.out) == (6, "")
        assert not bare_cli.home.exists()

    def test_help_and_version_exit_0(self, bare_cli: Cli) -> None:
        shown = bare_cli("--help").ok().out
        for name, text in COMMANDS.items():
            assert re.search(rf"^  {name}\s+{re.escape(text[:20])}", shown, re.MULTILINE)
        assert "Exit codes: 0 ok" in shown
        assert re.fullmatch(r"gridup \d+\.\d+\S*\n", bare_cli("--version").ok().out)
        assert bare_cli("-h").ok().out == shown

    def test_without_a_word_help_is_shown(self, bare_cli: Cli) -> None:
        ended = bare_cli()
        assert "Commands:" in ended.out + ended.err

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_has_help_with_an_example(self, inside: Inside, command: str) -> None:
        ended = inside(command, "-h").ok()
        assert ended.out.startswith("Usage: gridup")
        if command not in ("version",):
            assert f"gridup {command}" in ended.out.partition("Examples:")[2]

    def test_a_reader_that_goes_away_is_no_error(self, bare_cli: Cli) -> None:
        with subprocess.Popen(
            [*bare_cli.argv, "--help"],
            env=bare_cli.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            err = process.stderr.read()
        assert err == ""
        assert process.returncode == 0

    def test_a_stream_that_knows_only_ascii_is_no_error(self, bare_cli: Cli) -> None:
        ended = bare_cli("check", "127.0.0.1:1", "--timeout", "1", env={"PYTHONIOENCODING": "ascii"})
        assert ended.code == 10
        assert "unexpected" not in ended.err
        assert "127.0.0.1:1" in ended.out

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_exits_130_with_one_line(self, bare_cli: Cli, number: int) -> None:
        with rig.serve(rig.silent) as server:
            address = f"127.0.0.1:{server.port}"
            with bare_cli.start("check", address, "--wait", "--timeout", "600") as process:
                assert process.stderr is not None
                assert "Waiting" in process.stderr.readline()
                assert wait_until(lambda: server.connections > 0, timeout=60)
                process.send_signal(number)
                out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (130, "")
        # What was waited for goes on: the person learns by which command to wait again.
        assert err.splitlines() == [
            f'Error: Stopped waiting for "{address}"; nothing else was stopped.',
            f"`gridup check {address} --wait` goes on waiting.",
        ]


class TestTheUnexpected:
    """A fault of ours: one line for the person, the traceback in the log."""

    @pytest.fixture
    def broken(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Inside:
        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError("what a pity\nand more of it")

        monkeypatch.setattr("gridup.commands.status.look", fail)
        inside.lay("Inst")
        return inside

    def test_is_two_lines_and_a_log_with_the_traceback_for_its_owner_alone(self, broken: Inside) -> None:
        umask = os.umask(0)
        try:
            ended = broken("status")
        finally:
            os.umask(umask)
        log = broken.home.logs / "gridup.log"
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.splitlines() == [
            "Error: an unexpected ZeroDivisionError: what a pity",
            f"This is a fault of Gridup; its traceback is in {log}.",
        ]
        assert "Traceback" in log.read_text() and "what a pity" in log.read_text()
        assert log.stat().st_mode & 0o777 == 0o600
        assert log.parent.stat().st_mode & 0o777 == 0o700

    def test_is_shown_whole_with_debug(self, broken: Inside) -> None:
        with pytest.raises(ZeroDivisionError):
            broken("status", "--debug")

    def test_debug_for_the_other_sides_command_is_not_for_us(self, broken: Inside) -> None:
        ended = broken("status", "--", "--debug")
        assert 'no deployment called "--debug"' in ended.err

    def test_is_said_even_where_no_log_can_be_written(
        self, broken: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken.home.logs.write_text("in the way")
        assert "an unexpected ZeroDivisionError" in broken("status").err

    def test_a_long_log_is_put_aside(self, broken: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gridup.log.LIMIT", 10)
        broken("status"), broken("status")
        assert {path.name for path in broken.home.logs.iterdir()} == {"gridup.log", "gridup.old.log"}


class TestOurErrors:
    """What a person can act on: the message, the details, the suggestion; a traceback only with --debug."""

    @pytest.fixture
    def failing(self, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Inside:
        def fail(*_: object, **__: object) -> None:
            raise ResourceError("node: no room.", "Free some space.", ("df: full",))

        monkeypatch.setattr("gridup.commands.status.look", fail)
        inside.lay("Inst")
        return inside

    def test_are_a_line_details_and_a_suggestion(self, failing: Inside) -> None:
        ended = failing("status")
        assert (ended.code, ended.out) == (4, "")
        assert ended.err == "Error: node: no room.\n  | df: full\nFree some space.\n"
        assert not (failing.home.logs / "gridup.log").exists()

    def test_are_shown_whole_with_debug(self, failing: Inside) -> None:
        with pytest.raises(GridupError):
            failing("--debug", "status")


def test_ctrl_c_before_a_command_has_begun_exits_130(monkeypatch: pytest.MonkeyPatch, inside: Inside) -> None:
    def interrupt(_argv: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gridup.app.build", interrupt)
    ended = inside("status")
    assert (ended.code, ended.err) == (130, "Error: Stopped.\n")


def test_main_ends_the_process_with_the_code(monkeypatch: pytest.MonkeyPatch, inside: Inside) -> None:
    monkeypatch.setattr(sys, "argv", ["gridup", "outputs", "Inst"])
    with pytest.raises(SystemExit) as stop:
        entry.main()
    assert stop.value.code == 6


class TestImports:
    """A command imports what it needs: each of these costs a tenth of a second or more."""

    HEAVY = ("pulumi", "rich", "psutil", "requests", "yaml", "slugify", "pydantic", "asyncio")

    def imported(self, bare_cli: Cli, *words: str) -> set[str]:
        code = (
            "import sys; from gridup.__main__ import run; run(sys.argv[1:])\n"
            "sys.stderr.write('IMPORTED ' + ' '.join(m for m in sys.modules if '.' not in m))"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, *words],
            env=bare_cli.env(),
            capture_output=True,
            text=True,
            check=True,
        )
        return {*ended.stderr.partition("IMPORTED ")[2].split()} & {*self.HEAVY}

    @pytest.mark.parametrize(
        "words", [["--help"], ["--version"], ["status"], ["status", "--json"], ["deploy", "--help"]]
    )
    def test_a_quick_command_imports_nothing_slow(self, bare_cli: Cli, words: list[str]) -> None:
        assert self.imported(bare_cli, *words) == set()

    def test_a_look_at_a_node_imports_only_what_it_shows(self, bare_cli: Cli, inside: Inside) -> None:
        inside.lay("Inst")
        bare_cli.home = inside.home.root
        assert self.imported(bare_cli, "status", "--json") == set()
        assert "pulumi" not in self.imported(bare_cli, "status")
        assert "pulumi" not in self.imported(bare_cli, "outputs", "Inst")


class TestSsh:
    """`gridup ssh` hands over to OpenSSH's client; a shim records what it is given."""

    @pytest.fixture
    def shim(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside) -> Path:
        folder = tmp_path / "shim"
        folder.mkdir()
        ssh = folder / "ssh"
        ssh.write_text(f'#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done > {folder}/argv\nexit 7\n')
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(signal, "signal", lambda *_: signal.SIG_DFL)
        return folder / "argv"

    @pytest.mark.parametrize(
        ("words", "sent"),
        [
            (["Inst", "--", "sh", "-c", "exit 7"], "sh -c 'exit 7'"),
            (["--name", "Inst", "--", "df", "-h"], "df -h"),
            (["Inst", "df", "-h"], "df -h"),
            (["Inst", "df", "-v", "--debug"], "df -v --debug"),
            (["Inst", "--", "whoami; pwd"], "whoami; pwd"),
            (["--", "true"], "true"),
            (["--", "git", "checkout", "--", "a  b"], "git checkout -- 'a  b'"),
            (["Inst", "--", "prog", "--debug", "-v"], "prog --debug -v"),
        ],
    )
    def test_the_command_arrives_and_its_exit_code_is_ours(
        self, inside: Inside, shim: Path, words: list[str], sent: str
    ) -> None:
        inside.lay("Inst")
        ended = inside("ssh", *words)
        assert ended.code == 7, ended.err
        assert shim.read_text().splitlines()[-2:] == ["--", sent]

    def test_without_a_command_it_logs_in(self, inside: Inside, shim: Path) -> None:
        inside.lay("Inst")
        assert inside("ssh").code == 7
        assert shim.read_text().splitlines()[-1] == "127.0.0.1"

    def test_a_node_of_this_machine_without_sshd_is_entered_by_a_shell(
        self, inside: Inside, shim: Path
    ) -> None:
        folder = inside.home.node("inst")
        folder.mkdir(parents=True)
        without = {"ssh": "no sshd on this machine"}
        inside.lay_outputs(replace(outputs_for(inside.spec("Inst"), folder), not_offered=without))
        told = 'pwd >told; echo "$GRIDUP_NODE_HOME" "$PATH" >>told; exit 5'
        assert inside("ssh", "Inst", "--", told).code == 5
        where, environment = (folder / "told").read_text().splitlines()
        assert where == str(folder)
        assert environment.startswith(f"{folder} /nowhere/runtime/bin{os.pathsep}")
        assert inside("ssh", "Inst", "--", "touch", "a  b").code == 0
        assert (folder / "a  b").exists()
        assert not shim.exists()
        (folder / "stopped").touch()
        ended = inside("ssh", "Inst", "--", "touch", "c")
        assert (ended.code, (folder / "c").exists()) == (10, False)
        assert '"Inst" is stopped.' in ended.err

    def test_where_there_is_no_ssh_and_no_other_way_the_exit_code_says_so(self) -> None:
        outputs = NodeOutputs(
            Inside.spec("Inst", target="docker"),
            "127.0.0.1",
            PORTS,
            not_offered={"ssh": "left out"},
            facts={"host": "tcp://127.0.0.1:1", "project": "gridup-inst"},
        )
        access = target("docker").access(outputs)
        assert access.shell() is None
        with pytest.raises(NotOfferedError, match="This node has no ssh: left out") as caught:
            access.ssh()
        assert caught.value.exit_code == 7


def test_no_colour_and_no_line_is_broken_in_a_pipe(bare_cli: Cli) -> None:
    for extra in ({}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"NO_COLOR": "1"}):
        ended = bare_cli("check", "127.0.0.1:1", "--timeout", "1", env={"COLUMNS": "40", **extra})
        assert "\x1b" not in ended.out + ended.err
        assert "http://127.0.0.1:1/api/v2" in ended.out


def test_no_colour_on_a_terminal_means_no_escape_code_at_all(bare_cli: Cli) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*bare_cli.argv, "check", "127.0.0.1:1", "--wait", "--timeout", "1"],
        env=bare_cli.env({"NO_COLOR": "1", "TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
    os.close(ours)
    assert process.returncode == 9
    assert b"127.0.0.1:1" in seen
    assert b"\x1b" not in seen


@pytest.mark.parametrize(
    "variables",
    [
        {"GRIDUP_VERSION": "0.4.2"},
        {"GRIDUP_VERSION": "1"},
        {"GRIDUP_QUIET": "maybe"},
        {"GRIDUP_VERBOSE": "2"},
        {"GRIDUP_DEBUG": "1"},
        {"GRIDUP_HELP": "1"},
    ],
    ids=str,
)
def test_no_variable_sets_a_global_switch(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert inside("status", "--json").ok().json == []
    ended = inside("destroy", "nosuch", "--yes")
    assert (ended.code, ended.out) == (6, "")
    assert "Traceback" not in ended.err


NAME = "Zürich 🦉"
PATHS = os.pathsep.join(str(REPOSITORY / folder) for folder in ("infra", "cli", "tests"))


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "de_DE.ISO-8859-1"},
    ],
    ids=str,
)
def test_a_name_is_read_and_shown_in_every_locale(
    inside: Inside, locales: dict[str, str], variables: dict[str, str]
) -> None:
    spec = inside.lay(NAME)
    stored = inside.home.stack(spec.stack) / f"Pulumi.{spec.stack}.yaml"
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(f"config:\n  gridup:name: {NAME}\n", encoding="utf-8")
    for words in (["status", "--no-probe"], ["outputs", NAME], ["deploy", "--name", NAME, "--no-wait"]):
        ended = subprocess.run(
            [sys.executable, "-m", "support.faked", *words],
            env={**Cli(inside.home.root).env(), **locales, **variables, "PYTHONPATH": PATHS},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=600,
        )
        assert ended.returncode == 0, ended
        assert b"Error" not in ended.stderr
    (row,) = inside("status", "--json").ok().json
    assert row["name"] == NAME


def test_a_terminal_of_another_encoding_gets_its_own(inside: Inside, locales: dict[str, str]) -> None:
    inside.lay("Zürich")
    ended = subprocess.run(
        [sys.executable, "-m", "support.faked", "outputs", "Zürich".encode("latin-1")],
        env={**Cli(inside.home.root).env(), **locales, "LC_ALL": "de_DE.ISO-8859-1", "PYTHONPATH": PATHS},
        capture_output=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended
    assert "Zürich".encode("latin-1") in ended.stdout
