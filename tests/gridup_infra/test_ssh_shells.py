"""A machine's person may have any shell, and what it writes at its start is no answer (case G56)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridup_infra.errors import CredentialsError, GridupError, PreflightError
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.ssh import machine_agent
from gridup_infra.targets.ssh.machine_agent import SAID_LINES, answer
from gridup_infra.targets.ssh.user_ssh import AS_ROOT, FIRST_LINE, NO_SUDO, NO_TERMINAL
from support.ssh_rig import Machine

TOLD = {"done": {"there": True, "text": '{"a": "b"}'}}


@pytest.mark.parametrize(
    "before", ["", "\x1b]0;lab\x07", "Welcome to lab$ ", '{"not" whole ', "{}", "x" * 1_000_000, "\x1b[31m{"]
)
def test_an_answer_is_found_behind_what_a_shell_writes(before: str) -> None:
    assert answer(before + json.dumps(TOLD)) == TOLD


@pytest.mark.parametrize("line", ["", "Last login: today", "{", '{"done"', "[1]", '"done"', "\x00"])
def test_what_a_shell_writes_is_none(line: str) -> None:
    assert answer(line) is None


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "tcsh", "fish"])
def test_each_shell_runs_it(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine (Debian: apt install {shell})")
    words = ["python3", "-c", "import sys; print(sys.argv[1:])", "a b", "it's", 'say "x"', "$HOME", "a\\b"]
    # As ssh hands it over: one string, for the person's own shell.
    remote = shlex.join(["sh", "-c", AS_ROOT, "gridup", *words])
    assert "\n" not in remote
    script = f"exec {remote}" if shell == "sh" else remote
    ended = subprocess.run(
        [shell, "-c", script], input=FIRST_LINE.decode(), capture_output=True, text=True, timeout=60
    )
    if ended.stdout.startswith('{"refused"'):
        # An ordinary user without sudo: the shell has run it all the same.
        return
    assert (ended.returncode, ended.stdout) == (0, f"{words[3:]}\n"), ended


def test_what_is_kept_of_it_is_bounded() -> None:
    assert SAID_LINES < 1000


def test_what_is_sent_arrives_whole() -> None:
    ran = subprocess.run(
        ["sh", "-c", f'sudo() {{ shift; "$@"; }}; {AS_ROOT.replace("exec ", "")}', "gridup", "cat"],
        input=FIRST_LINE + b"\0one\ntwo\xff",
        capture_output=True,
        timeout=60,
    )
    assert ran.stdout == b"\0one\ntwo\xff", ran


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("sudo: sorry, you must have a tty to run sudo", NO_TERMINAL),
        ("sudo: a password is required", NO_SUDO),
        ('sudo: "x" \\ $(y)', NO_SUDO),
    ],
)
def test_why_sudo_is_refused_is_told(tmp_path: Path, says: str, why: str) -> None:
    for name, script in {
        "id": "echo 1000",
        "sudo": f"printf '%s\\n' {shlex.quote(says)} >&2; exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    ran = subprocess.run(
        ["sh", "-c", AS_ROOT, "gridup", "true"],
        input=FIRST_LINE,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        timeout=60,
    )
    assert (answer(ran.stdout.decode()), ran.returncode) == ({"refused": why}, 1)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """One that is not started."""
    made = Machine(tmp_path / "machine")
    monkeypatch.setenv("PATH", made.path)
    yield made
    made.stop()


Enter = Callable[..., GridupError | None]


@pytest.fixture
def enter(machine: Machine, tmp_path: Path) -> Enter:
    """Looks at a machine on which Ada, who is root by another name, has this shell and this ~/.bashrc."""

    def look(shell: str, start: str = "") -> GridupError | None:
        home = tmp_path / "ada"
        home.mkdir()
        (home / ".bashrc").write_text(f"{start}\n")
        accounts = tmp_path / "passwd"
        accounts.write_text(f"{Path('/etc/passwd').read_text()}ada:x:0:0::{home}:{shell}\n")
        machine.start(files={"/etc/passwd": accounts})
        try:
            machine_agent.look(
                DeploySpec(name="Inst", target="ssh", host="ada@machine"), pinned="", must_be_ours=True
            )
        except GridupError as error:
            return error
        return None

    return look


@pytest.mark.tier("gate")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a login another shell")
class TestThatRunsNothing:
    """Each is told as what it is, with what to do."""

    @pytest.mark.parametrize(
        ("shell", "said"), [("/bin/false", "ends it."), ("/usr/sbin/nologin", "ends it. It says")]
    )
    def test_a_login_shell_that_is_none(self, enter: Enter, shell: str, said: str) -> None:
        found = enter(shell)
        assert isinstance(found, CredentialsError)
        assert "ada@machine lets ada in, but the login shell there runs nothing" in found.message
        assert said in found.message
        assert "sudo chsh -s /bin/bash ada" in found.suggestion

    def test_a_start_up_file_that_ends_it(self, enter: Enter) -> None:
        found = enter("/bin/bash", "exit 0")
        assert isinstance(found, CredentialsError)
        assert "a start-up file ends it" in found.message

    @pytest.mark.parametrize("other", ["sh", "zsh", "tcsh", "fish"])
    def test_another_shell_that_takes_over(self, enter: Enter, tmp_path: Path, other: str) -> None:
        if shutil.which(other) is None:
            pytest.skip(f"no {other} on this machine (Debian: apt install {other})")
        found = enter("/bin/bash", f"exec {other}")
        assert isinstance(found, PreflightError), found
        assert "ada@machine lets ada in, but another shell takes over there" in found.message
        assert "`[ -t 0 ] && exec …`" in found.suggestion

    def test_another_program_that_takes_over(self, enter: Enter) -> None:
        found = enter("/bin/bash", "exec sh -c 'echo open terminal failed: not a terminal >&2; exit 1'")
        assert isinstance(found, PreflightError)
        assert 'It says "open terminal failed: not a terminal".' in found.message

    def test_one_that_writes_at_its_start_runs_all_the_same(self, enter: Enter) -> None:
        found = enter(
            "/bin/bash", r"printf '\033]0;lab\007'; head -c 1000000 /dev/zero; trap 'echo bye' EXIT"
        )
        assert isinstance(found, PreflightError)
        assert "ada@machine can't take the node" in found.message
