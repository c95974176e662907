"""What the shell completes, as its own script asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.cli import REPOSITORY, Cli
from support.inside import Inside

PATHS = os.pathsep.join(str(REPOSITORY / folder) for folder in ("infra", "cli", "tests"))


def asked(inside: Inside, variables: Mapping[str, str]) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "gridup"],
        env={**Cli(inside.home.root).env(), "PYTHONPATH": PATHS, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.stderr == ""
    return ended.stdout


def in_bash(inside: Inside, *words: str) -> list[str]:
    line = {"COMP_WORDS": " ".join(["gridup", *words]), "COMP_CWORD": str(len(words))}
    return asked(inside, {"_GRIDUP_COMPLETE": "complete_bash", **line}).splitlines()


@pytest.fixture
def nodes(inside: Inside) -> Inside:
    for name in ("Inst", "My Lab", "$(id)"):
        inside.lay(name)
    return inside


def test_bash_gets_each_name_as_one_word_of_its_own(nodes: Inside) -> None:
    assert in_bash(nodes, "ssh", "")[:3] == ["\\$\\(id\\)", "Inst", "My\\ Lab"]
    assert in_bash(nodes, "destroy", "--name", "My") == ["My\\ Lab"]


def test_the_other_shells_quote_names_themselves(nodes: Inside) -> None:
    for shell in ("zsh", "fish"):
        variables = {
            "_GRIDUP_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": "gridup status My",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        assert "My Lab" in asked(nodes, variables)
        assert "'My Lab'" not in asked(nodes, variables)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["deploy", "--type", ""], ["domain", "network"]),
        (["deploy", "--cloud", "a"], ["aws", "azure"]),
        (["logs", "Inst", "ju"], ["jupyter"]),
        (["dest"], ["destroy"]),
    ],
)
def test_the_values_of_options_and_the_services_of_logs_are_completed(
    nodes: Inside, words: list[str], found: list[str]
) -> None:
    assert sorted(in_bash(nodes, *words)) == found


def test_each_shells_script_is_shown_by_its_name(inside: Inside) -> None:
    assert "complete -o default" in inside("--show-completion", "bash").ok().out
    assert "#compdef gridup" in inside("--show-completion", "zsh").ok().out
    assert "complete --command gridup" in inside("--show-completion", "fish").ok().out
    assert inside("--show-completion", "csh").code == 2


def test_bash_itself_completes_a_name_with_a_space(nodes: Inside, tmp_path: Path) -> None:
    program = tmp_path / "gridup"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m gridup "$@"\n')
    program.chmod(0o755)
    script = nodes("--show-completion", "bash").ok().out
    body = f"""
{script}
COMP_WORDS=(gridup destroy My) COMP_CWORD=2; _gridup_completion gridup My gridup
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    ended = subprocess.run(
        ["bash", "-c", body],
        env={**Cli(nodes.home.root).env(), "PYTHONPATH": PATHS, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.stdout == "My\\ Lab\n", ended
