"""The exit codes are documented in one table; help, design and classes agree with it."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from gridup.app import EPILOG
from gridup_infra import errors
from gridup_infra.errors import GridupError

ROW = re.compile(r"(\w+)\s+(?:exit )?(\d+)\s")


def classes() -> list[type[GridupError]]:
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, GridupError)]


def documented() -> dict[str, int]:
    rows = [ROW.search(line) for line in (errors.__doc__ or "").splitlines() if "Error" in line]
    return {row[1]: int(row[2]) for row in rows if row}


def test_the_drawn_tree_names_every_class_with_its_exit_code() -> None:
    assert documented() == {c.__name__: c.exit_code for c in classes()}


def test_the_drawn_tree_has_the_shape_of_the_classes() -> None:
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        row = ROW.search(line)
        if not row or "Error" not in line:
            continue
        depth = line.index(row[1])
        while above and above[-1][0] >= depth:
            above.pop()
        if above:
            assert getattr(errors, row[1]).__base__.__name__ == above[-1][1]
        above.append((depth, row[1]))


def test_help_lists_the_same_exit_codes() -> None:
    codes = EPILOG.partition("Exit codes:")[2]
    assert {int(code) for code in re.findall(r"\d+", codes)} == {0, *documented().values()}


@pytest.mark.parametrize("kind", classes())
def test_an_error_comes_whole_through_a_process_boundary(kind: type[GridupError]) -> None:
    error = kind("what happened", "what to do", ("a line",))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.suggestion, again.details) == ("what happened", "what to do", ("a line",))
    assert str(again) == "what happened"
