"""What people see: whole URLs, plain pipes, JSON alone, and no question where nobody can answer."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyte
import pytest
from rich.cells import cell_len
from rich.console import Console

from gridup.reporter import Phase, ResourceEvent
from gridup.ui import Ui, describe, plural, still
from gridup_infra.errors import DeclinedError, GridupError, UsageError
from support.cli import Cli

URL = "https://a-very-long-name-of-an-institution.example.org:18443/login?and=more&and=more&and=more"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Terminal, Terminal]]:
    """Somebody at a terminal; what they type goes into the first, what they see is in the second."""
    typed, seen = Terminal(), Terminal()
    monkeypatch.setattr("gridup.ui.sys", SimpleNamespace(stdin=typed, stdout=Terminal(), stderr=seen))
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield typed, seen


@pytest.mark.parametrize("columns", ["40", "1", "200"])
def test_a_table_in_a_pipe_has_every_url_whole_and_no_escape_code(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    Ui().table(["My [bold]Lab[/] :smile:", "Info"], [["UI", URL], ["api", "[red]x[/red] :smile:"]])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert any(URL in line for line in out.splitlines())
    assert "[red]x[/red] :smile:" in out, "a cell is text and no markup"
    assert not [line for line in out.splitlines() if line != line.rstrip()]


def test_a_title_is_text_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Ui().table(["My [bold]Lab[/bold]"], [["x"]])
    assert "My [bold]Lab[/bold]" in capsys.readouterr().out


def test_json_is_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui(json=True, quiet=True)
    with ui.progress() as reporter:
        reporter.step("Working")
        reporter.note("by the way")
        reporter.resource(ResourceEvent("node", "create", Phase.DONE))
    ui.say("done")
    ui.result({"name": "Zürich 🧬"}, lambda: pytest.fail("that is for people"))
    out, err = capsys.readouterr()
    assert json.loads(out + err) == {"name": "Zürich 🧬"}


def test_a_result_for_people_is_what_was_to_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui()
    ui.result({"a": 1}, lambda: ui.line("a is 1"))
    assert capsys.readouterr() == ("a is 1\n", "")


def test_an_error_says_what_happened_the_details_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    Ui(quiet=True).error(GridupError("It broke.", "Mend it.", ("a", "b")))
    assert capsys.readouterr() == ("", "Error: It broke.\n  | a\n  | b\nMend it.\n")


class TestProgressInAPipe:
    """A line an event, nothing to erase."""

    def test_lines_are_plain(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Ui().progress() as reporter:
            reporter.step("Deploying")
            reporter.resource(ResourceEvent("node", "create", Phase.STARTED))
            reporter.detail("runtime", "installing")
            reporter.resource(ResourceEvent("node", "create", Phase.DONE, seconds=1.25))
            reporter.resource(ResourceEvent("services", "update", Phase.FAILED, changed=("ports",)))
            reporter.warn("hm")
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines() == [
            "Deploying",
            "  node: creating",
            "  runtime: installing",
            "  node: created (1.2 s)",
            "  services: changing failed",
            "Warning: hm",
        ]

    @pytest.mark.parametrize("verbose", [False, True])
    def test_what_is_only_looked_at_is_shown_when_asked_for(
        self, verbose: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Ui(verbose=verbose).progress() as reporter:
            reporter.resource(ResourceEvent("node", "refresh", Phase.DONE))
            reporter.detail("runtime", "+ syft==0.9.5")
        assert bool(capsys.readouterr().err) is verbose

    def test_drift_is_always_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Ui().progress() as reporter:
            reporter.resource(ResourceEvent("node", "refresh", Phase.DONE, changed=("drift",)))
        assert capsys.readouterr().err == "  node: looked at: drift\n"

    def test_quiet_leaves_only_warnings(self, capsys: pytest.CaptureFixture[str]) -> None:
        ui = Ui(quiet=True)
        with ui.progress() as reporter:
            reporter.step("Working")
            reporter.note("x")
            reporter.warn("hm")
        ui.say("x")
        ui.warn("oh")
        assert capsys.readouterr() == ("", "Warning: hm\nWarning: oh\n")


class TestProgressOnATerminal:
    """Live, and gone afterwards but for what was done."""

    def test_what_was_done_stays(
        self, at_terminal: tuple[Terminal, Terminal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TERM", "xterm")
        with Ui().progress() as reporter:
            reporter.step("Deploying [it]")
            reporter.resource(ResourceEvent("node", "create", Phase.STARTED))
            reporter.detail("node", "x" * 500)
            reporter.resource(ResourceEvent("node", "create", Phase.DONE))
            reporter.resource(ResourceEvent("services", "create", Phase.FAILED))
            reporter.note("[by] the way")
        seen = at_terminal[1].getvalue()
        assert "\x1b[" in seen
        for text in ("Deploying [it]", "✔ node: created", "❌ services: creating failed", "[by] the way"):
            assert text in seen

    def test_the_clock_waits_for_who_is_just_writing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else it erases lines that are not there yet, and what stood above in their place."""
        waiting, render, seen = threading.Event(), Console.render, Terminal()

        def slow(console: Console, what: Any, options: Any = None) -> Any:
            if "✔" in str(what):
                waiting.wait(0.5)  # In which the clock would go on several times.
            return render(console, what, options)

        monkeypatch.setattr(Console, "render", slow)
        monkeypatch.setattr(sys, "stdout", Terminal())
        monkeypatch.setattr(sys, "stderr", seen)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "40")
        seen.write("asked above\n")
        with Ui().progress() as reporter:
            reporter.step("Destroying")
            for name in ("services", "node", "owner"):
                for phase in (Phase.STARTED, Phase.DONE):
                    reporter.resource(ResourceEvent(name, "delete", phase))
        screen = pyte.Screen(40, 20)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed(seen.getvalue())
        done = [f"✔ {name}: deleted" for name in ("services", "node", "owner")]
        assert [line.rstrip() for line in screen.display if line.strip()] == ["asked above", *done]

    @pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
    def test_a_terminal_that_wants_it_plain_gets_it_plain(
        self, at_terminal: tuple[Terminal, Terminal], monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, {"NO_COLOR": "1", "TERM": "dumb"}[variable])
        with Ui().progress() as reporter:
            reporter.step("Deploying")
        assert at_terminal[1].getvalue() == "Deploying\n"


class TestQuestions:
    """The default is No, and nobody there is never a Yes."""

    def test_without_a_terminal_the_flag_is_named(self) -> None:
        with pytest.raises(UsageError) as caught:
            Ui().confirm("Destroy it?\nReally?", yes=False, flag="--really")
        assert caught.value.message == "Destroy it? There is no terminal to ask."
        assert "--really" in caught.value.suggestion
        with pytest.raises(UsageError, match="--name is missing"):
            Ui().ask("Name", "--name")

    def test_yes_never_asks(self, capsys: pytest.CaptureFixture[str]) -> None:
        Ui().confirm("Destroy it?", yes=True)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("typed", "goes_on"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
    )
    def test_only_yes_is_yes(self, at_terminal: tuple[Terminal, Terminal], typed: str, goes_on: bool) -> None:
        at_terminal[0].write(typed)
        at_terminal[0].seek(0)
        if goes_on:
            Ui().confirm("Destroy it?", yes=False)
        else:
            with pytest.raises(DeclinedError) as caught:
                Ui().confirm("Destroy it?", yes=False)
            assert caught.value.exit_code == 8
        assert at_terminal[1].getvalue() == "Destroy it? [y/N] "

    def test_an_answer_is_what_was_typed(self, at_terminal: tuple[Terminal, Terminal]) -> None:
        at_terminal[0].write("  My Lab \n")
        at_terminal[0].seek(0)
        assert Ui().ask("Name", "--name") == "My Lab"

    def test_a_closed_standard_input_is_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", None)
        assert not Ui().interactive


def test_an_operation_the_engine_may_add_is_shown_by_its_own_name() -> None:
    assert describe(ResourceEvent("x", "import", Phase.STARTED)) == "x: import"


def test_counting() -> None:
    assert [plural(n, "resource") for n in (0, 1, 2)] == ["0 resources", "1 resource", "2 resources"]


HOSTILE = "In\x1b]0;t\x07st\r\x9b2J\u202ed\u2066\u200f"


def test_what_is_shown_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    ui = Ui()
    ui.line(HOSTILE)
    ui.say(HOSTILE)
    ui.warn(HOSTILE)
    ui.error(GridupError(HOSTILE, HOSTILE, (HOSTILE,)))
    ui.table(["Name"], [[HOSTILE]])
    with ui.progress() as reporter:
        reporter.step(HOSTILE)
        reporter.note(HOSTILE)
        reporter.warn(HOSTILE)
    out, err = capsys.readouterr()
    for moving in set(HOSTILE) - set("In]0;t2Jsd"):
        assert moving not in out + err
    assert "\\x1b" in out and "\\u202e" in err
    assert still("Zürich 🦉\tx\n") == "Zürich 🦉\tx\n"


def test_json_says_what_was_there_by_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    Ui(json=True).result({"name": HOSTILE, "also": "Zürich 🦉"}, lambda: None)
    out, _ = capsys.readouterr()
    assert "\x9b" not in out and "\u202e" not in out
    assert "Zürich 🦉" in out
    assert json.loads(out) == {"name": HOSTILE, "also": "Zürich 🦉"}


LONG = "Universitätsklinikum Nord-West"
STATUS = (
    ["Name", "Target", "State", "UI"],
    [[LONG, "local", "✅ running", URL], ["Inst", "aws", "⏹ stopped", ""]],
)
NODE = (
    [LONG, "Info", ""],
    [["UI", URL, "✅"], ["Jupyter", "gridup ssh Inst", "❌ connection refused by a machine"]],
)
DOCTOR = (
    ["", "What", "Found"],
    [["✅", "system", "Linux"], ["➖", "ssh", "no sshd: the node will have no ssh. " * 5]],
)


@pytest.mark.parametrize("width", [200, 80, 60, 40, 20])
@pytest.mark.parametrize(("head", "rows"), [STATUS, NODE, DOCTOR], ids=["status", "node", "doctor"])
def test_a_table_fits_the_terminal_and_breaks_no_word(
    width: int,
    head: list[str],
    rows: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("gridup.ui._width", lambda _stream: width)
    Ui().table(head, rows)
    lines = capsys.readouterr().out.splitlines()
    longest = max(cell_len(word) for row in (head, *rows) for cell in row for word in cell.split())
    assert max(map(cell_len, lines)) <= max(width, longest + 6)
    words = {word for line in lines for word in re.split(r"[\s│┃]+", line)}
    for word in (word for row in (head, *rows) for cell in row for word in cell.split()):
        assert word in words or f"{word}:" in words, "no word is broken, and none is left out"


def test_on_a_real_terminal_of_40_columns_each_row_is_lines_of_its_own(tmp_path: Path) -> None:
    script = f"from gridup.ui import Ui; Ui().table({STATUS[0]!r}, {STATUS[1]!r})"
    ended = subprocess.run(
        ["script", "-qec", f"stty cols 40; {shlex.join([sys.executable, '-c', script])}", "/dev/null"],
        env={**Cli(tmp_path).env(), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.stdout.splitlines() == [
        "Name",
        LONG,
        "  Target: local",
        "  State: ✅ running",
        "  UI:",
        f"    {URL}",
        "Inst",
        "  Target: aws",
        "  State: ⏹ stopped",
    ]
