"""A newcomer's first hour: each screen as the person sees it, on wide and narrow terminals, in pipes and in
other locales, and every command that a screen shows to be copied.

The screens are in `screens`, each looked at by a person. `GRIDUP_NEW_SCREENS=1` writes what differs anew.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.cache import shared_home
from support.cli import Cli
from support.terminal import CTRL_C, commands, play

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.engine,
    pytest.mark.node,
    pytest.mark.usefixtures("own_ports"),
    pytest.mark.timeout(900),
]

SCREENS = Path(__file__).parent / "screens"
NEW = os.environ.get("GRIDUP_NEW_SCREENS")

KEEPS_IN = re.compile(r"within the node\W+(✅|ok) .*?(?=--- standard error|\Z)", re.DOTALL)
"""What there is to keep code in with: the machine's own, as is the width of the table that it is in."""

MADE = (
    ("Name of the node:", "Lab One"),
    ("(Enter: nothing):", "Lab of Inst"),
    ("(Enter: nothing):", ""),
)


@dataclass
class Step:
    """One thing the person does.

    Attributes:
        title: names the screen.
        words: what they type after `gridup`.
        code: how that ends.
        answers: see `terminal.play`.
        kept: whether the screen is held against a stored one; not where it tells of the machine or the time.
        probes: whether it asks the services. On a busy machine one may be late and seem to be down, so the
            step, which changes nothing, is played up to three times.
    """

    title: str
    words: Sequence[str]
    code: int = 0
    answers: Sequence[tuple[str, str]] = field(default=())
    kept: bool = True
    probes: bool = False


BEFORE = (
    Step("nothing typed", (), 2),
    Step("nothing there yet", ("status",)),
    Step("a word that is none", ("list",), 2),
    Step("a name that is an option", ("deploy", "--name", "--yes"), 2),
    Step("a node that is none", ("check", "Lab One"), 6),
    Step("a type that is none", ("deploy", "Lab One", "--type", "island"), 2),
    Step("an option that is none", ("deploy", "Lab One", "--prot", "9000"), 2),
    Step("doctor", ("doctor",), kept=False),
)
DEPLOYED = Step("the first deploy", ("deploy",), 0, MADE)
WITH_IT = (
    Step("status", ("status",), probes=True),
    Step("check", ("check", "Lab One"), probes=True),
    Step("outputs", ("outputs", "Lab One")),
    Step("the same again", ("deploy", "Lab One"), probes=True),
    Step("another type", ("deploy", "Lab One", "--type", "network"), 2),
    Step("another case of the name", ("destroy", "lab-one"), 6),
    Step("a name that is near", ("check", "Lab Onne"), 6),
    Step("a service that is none", ("logs", "Lab One", "nope"), 2),
    Step("preview", ("preview", "Lab One", "--admin-email", "it@inst.example")),
    Step("open", ("open", "Lab One")),
    Step("open jupyter", ("open", "Lab One", "--service", "jupyter")),
    Step("open what is no page", ("open", "Lab One", "--service", "ssh"), 2),
    Step("ssh with a command", ("ssh", "Lab One", "--", "echo one; echo 'two  three'")),
    Step("ssh with a command that fails", ("ssh", "Lab One", "--", "false"), 1),
)
FOLLOWED = Step(
    "logs followed", ("logs", "Lab One", "api", "-f", "-n", "1"), 130, (("", CTRL_C),), kept=False
)
"""A Ctrl-C ends it, and nothing is said of that."""
ROTATED = ("rotate", "Lab One")
DECLINED = Step("a destroy that is declined", ("destroy", "Lab One"), 8, (("[y/N]", "n"),))
UNROTATED = Step("a rotation that is declined", ROTATED, 8, (("[y/N]", "n"),))
REPLACED = Step("a rotation", ROTATED, 0, (("[y/N]", "y"),))
UNASKED = Step("a rotation that nobody can be asked about", ROTATED, 2)
STOPPED = (
    Step("stop", ("stop", "Lab One")),
    Step("status of a stopped one", ("status",)),
    Step("check of a stopped one", ("check", "Lab One"), 10),
    Step("start", ("start", "Lab One")),
)
DESTROYED = (
    Step("destroy", ("destroy", "Lab One"), 0, (("[y/N]", "y"),)),
    Step("nothing there any more", ("status",)),
)


@pytest.fixture(scope="module")
def newcomer(cache: Path, engine: Path, runtime: Path) -> Iterator[Cli]:
    """Somebody with a clean account. The path of it is always as long: lines break where they did."""
    with tempfile.TemporaryDirectory(prefix="nc-", dir="/tmp") as folder:
        yield Cli(shared_home(Path(folder) / "home", cache, runtimes=True))


@pytest.fixture(scope="module")
def wide(newcomer: Cli) -> Iterator[dict[str, str]]:
    """The hour up to a node that runs, on a terminal of 80 columns; by title, what each screen showed."""
    seen = {step.title: on_terminal(newcomer, step, 80) for step in (*BEFORE, DEPLOYED)}
    yield seen
    newcomer.destroy_all()


def repeated(show: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(show)
    def played(cli: Cli, step: Step, *args: Any, **more: Any) -> str:
        for _ in range(2 if step.probes else 0):
            with contextlib.suppress(AssertionError):
                return show(cli, step, *args, **more)
        return show(cli, step, *args, **more)

    return played


@repeated
def on_terminal(cli: Cli, step: Step, columns: int, **environment: str) -> str:
    """What a step shows in so many columns; it is also held against the stored screen."""
    shown = play(
        [*cli.argv, *step.words],
        columns=columns,
        environment=cli.env({"LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "", "BROWSER": "true", **environment}),
        cwd=cli.home.parent,
        answers=step.answers,
    )
    assert shown.code == step.code, shown.screen
    assert all(len(line) <= columns for line in shown.screen.splitlines())
    if step.kept:
        compare(f"{columns}", step.title, plain(cli, shown.screen))
    return shown.screen


@repeated
def in_a_pipe(cli: Cli, step: Step, kind: str = "pipe", **environment: str) -> str:
    """What a step writes with nobody at a terminal: standard output, then standard error."""
    ended = subprocess.run(
        [*cli.argv, *step.words],
        env=cli.env({"LC_ALL": "C.UTF-8", **environment}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        cwd=cli.home.parent,
    )
    out, err = (text.decode("utf-8") for text in (ended.stdout, ended.stderr))
    assert "\x1b" not in out + err
    assert ended.returncode == step.code, out + err
    if step.kept:
        compare(kind, step.title, plain(cli, f"{out}--- standard error\n{err}"))
    return out + err


def plain(cli: Cli, screen: str) -> str:
    """A screen without what differs from run to run and from machine to machine, as wide as it was."""
    for found, stands_for in (
        (re.escape(str(cli.home)), "HOME"),
        (r" \(\d+\.\d s\)", ""),
        # In a table, by as many characters: the rest of it stays where it is.
        (r"(?<=127\.0\.0\.1:)\d+", lambda port: "N" * len(port[0])),
    ):
        screen = re.sub(found, stands_for, screen, flags=re.MULTILINE)
    if KEEPS_IN.search(screen):
        screen = KEEPS_IN.sub("within the node WHAT\n", re.sub("[━─-]{9,}|(?<=[^\n]) {2,}", " ", screen))
    return screen


def compare(kind: str, title: str, screen: str) -> None:
    path = SCREENS / kind / f"{title.replace(' ', '-')}.txt"
    if NEW and not (path.exists() and path.read_text(encoding="utf-8") == screen):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(screen, encoding="utf-8")
    assert screen == path.read_text(encoding="utf-8"), f"{path} differs"


def test_the_hour_on_a_wide_terminal(newcomer: Cli, wide: dict[str, str]) -> None:
    for step in (*WITH_IT, DECLINED, UNROTATED):
        wide[step.title] = on_terminal(newcomer, step, 80)


def test_on_a_narrow_terminal(newcomer: Cli, wide: dict[str, str]) -> None:
    for step in (*WITH_IT, DECLINED, UNROTATED):
        on_terminal(newcomer, step, 40)


@pytest.mark.parametrize("columns", [80, 40])
def test_a_ctrl_c_ends_what_is_followed_and_nothing_is_said_of_it(
    newcomer: Cli, wide: dict[str, str], columns: int
) -> None:
    shown = on_terminal(newcomer, FOLLOWED, columns)
    assert shown.rstrip().endswith("^C")
    assert "Error" not in shown


def test_in_a_pipe_too(newcomer: Cli, wide: dict[str, str]) -> None:
    with newcomer.start(*FOLLOWED.words) as following:
        assert following.stdout is not None
        assert following.stdout.readline().strip()
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=60)
    assert (following.returncode, err) == (130, "")


def test_in_a_pipe(newcomer: Cli, wide: dict[str, str]) -> None:
    for step in (*WITH_IT, UNASKED):
        in_a_pipe(newcomer, step)


@pytest.mark.parametrize("name", ["C", "de_DE.ISO-8859-1"])
def test_in_other_locales(newcomer: Cli, wide: dict[str, str], locales: dict[str, str], name: str) -> None:
    for step in WITH_IT:
        in_a_pipe(newcomer, step, f"pipe-{name}", LC_ALL=name, **locales)


def test_every_command_that_a_screen_shows_does_what_it_says(newcomer: Cli, wide: dict[str, str]) -> None:
    shown = {
        line
        for kind, columns in (("80", 80), ("40", 40), ("pipe", 0))
        for path in (SCREENS / kind).glob("*.txt")
        for line in commands(path.read_text(encoding="utf-8"), columns)
    }
    tried = sorted(line for line in shown if "NAME" not in line and "NODE" not in line)
    assert len(tried) >= 5
    # What ends the node is the next test's.
    for line in tried:
        words = shlex.split(line)[1:]
        if words[0] == "destroy":
            continue
        ended = subprocess.run(
            [sys.executable, "-m", "gridup", *words],
            env=newcomer.env({"LC_ALL": "C.UTF-8"}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=newcomer.home.parent,
        )
        assert ended.returncode in (0, 10), f"{line}: {ended}"
        assert "unexpected" not in ended.stderr, line


def test_rotated_stopped_started_and_destroyed(newcomer: Cli, wide: dict[str, str]) -> None:
    for step in (REPLACED, *STOPPED):
        on_terminal(newcomer, step, 80)
    for step in STOPPED[:3]:
        on_terminal(newcomer, step, 40)
    for step in DESTROYED:
        on_terminal(newcomer, step, 80)
    for step in (*BEFORE, DEPLOYED, *DESTROYED):
        on_terminal(newcomer, step, 40)
    for step in BEFORE:
        in_a_pipe(newcomer, step)
