"""Names as people type them: each gives a legal stack, or is refused with the rule."""

from __future__ import annotations

import re

import pytest

from gridup_infra.errors import NameError_
from gridup_infra.naming import NAME_MAX, RULE, STACK_MAX, check_name, stack_name

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
    with pytest.raises(NameError_) as caught:
        stack_name(name)
    assert RULE in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name", ["x" * (NAME_MAX + 1), "In\nst", "In\x00st", "In\x1bst", "In\u2028st", "In\u2029st"]
)
def test_a_name_that_would_not_fit_one_line_is_refused(name: str) -> None:
    with pytest.raises(NameError_, match="at most 200 characters, and no control characters"):
        check_name(name)
