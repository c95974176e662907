"""Parameters of a test that are of the deep tier, while the test itself is of another."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def deep(*values: Any, **more: Any) -> Any:
    """A parameter of the deep tier; `more` is what `pytest.param` takes."""
    return pytest.param(*values, marks=pytest.mark.tier("deep"), **more)


def all_but(gate: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """The values as parameters: those of `gate` as they are, the others of the deep tier."""
    return [value if value in gate else deep(value) for value in values]
