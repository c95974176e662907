"""Names as people type them: each gives a legal stack, or is refused with the rule."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from gridup_infra.errors import InvalidNameError
from gridup_infra.naming import NAME_MAX, RULE, STACK_MAX, check_name, stack_name, typed

LEGAL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("Inst", "inst"),
        ("My Lab_2", "my-lab-2"),
        ("2nd node", "2nd-node"),
        ("all", "all"),
        ("stoic_to_from", "stoic-to-from"),
        ("My Institution Name", "my-institution-name"),
        ("Universität Zürich", "universitat-zurich"),
        ("Институт", "institut"),
        ("北京大学", "bei-jing-da-xue"),
        ("  Inst  ", "inst"),
        ("../../etc/passwd", "etc-passwd"),
        ("$(reboot); 'x'", "reboot-x"),
        ("🧬 Lab", "lab"),
    ],
)
def test_a_name_gives_the_stack_that_a_person_expects(name: str, stack: str) -> None:
    assert check_name(name) == name
    assert stack_name(name) == stack


@pytest.mark.parametrize("name", ["x" * NAME_MAX, "a b" * 60, "日本" * 100, "ß" * 39, "a" * STACK_MAX + "-b"])
def test_a_long_name_is_shortened_to_a_legal_stack_of_its_own(name: str) -> None:
    stack = stack_name(name)
    assert len(stack) <= STACK_MAX
    assert LEGAL.fullmatch(stack)
    assert stack == stack_name(name)
    assert stack != stack_name(name[:-1] + "q")


def test_a_name_that_just_fits_gets_no_suffix() -> None:
    assert stack_name("a" * STACK_MAX) == "a" * STACK_MAX


@pytest.mark.parametrize("name", ["", " ", "…", "---", "🧬", "🧬🔬", "_", "."])
def test_a_name_without_letter_or_digit_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        stack_name(name)
    assert RULE in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name", ["x" * (NAME_MAX + 1), "In\nst", "In\x00st", "In\x1bst", "In\u2028st", "In\u2029st"]
)
def test_a_name_that_would_not_fit_one_line_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="at most 200 characters, no control characters"):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["In\u202est", "In\u2066st", "In\u200fst", "In\u200bst", "In\x9bst", "In\u061cst"]
)
def test_a_name_that_turns_or_hides_text_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="no control characters"):
        check_name(name)


@pytest.mark.parametrize("name", ["क्‍ष", "👩‍🔬 lab 1", "Zürich 🦉", "می‌خواهم"])
def test_a_name_with_joiners_as_its_script_needs_them_is_one(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["--yes", "-x", "-"])
def test_an_option_is_no_name(name: str) -> None:
    with pytest.raises(InvalidNameError, match="begins with no hyphen"):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["Inst", "My Lab", "$(touch it)", "`id`", 'it\'s "one"', "a;b|c&d", "~root", "!!"]
)
def test_a_command_to_be_copied_is_one_word_for_each_of_its_parts(name: str) -> None:
    shown = subprocess.run(
        ["bash", "-c", f"gridup() {{ printf '%s\\n' \"$@\"; }}; {typed('destroy', name, '--yes')}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == ["destroy", name, "--yes"]
    assert typed("deploy", "Inst") == "gridup deploy --name Inst"


NAMELESS = re.compile(
    r"`gridup (deploy|start|stop|destroy|logs|rotate|refresh|ssh|check)( --(adopt|new-machine|wait))*`"
)
WITHOUT = {
    "stopped by `gridup stop`",  # What was done, not what to do.
}


def test_what_a_target_tells_to_do_with_a_node_has_its_name() -> None:
    files = list((Path(__file__).parents[2] / "infra" / "gridup_infra").rglob("*.py"))
    assert len(files) > 50
    told = [(path.name, text) for path in files for text in _texts(path) if NAMELESS.search(text)]
    assert [(name, text) for name, text in told if text not in WITHOUT] == []


def _texts(path: Path) -> list[str]:
    """The strings of a module but its docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [node.value for node in constants if isinstance(node.value, str)]
