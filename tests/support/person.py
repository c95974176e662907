"""Somebody at the terminal, for tests within the process."""

from __future__ import annotations

import pytest

from gridup.ui import Ui


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody at the terminal: whoever answers what is in the list, line by line."""
    answers: list[str] = []

    class Stdin:
        @staticmethod
        def isatty() -> bool:
            return True

        @staticmethod
        def readline() -> str:
            return f"{answers.pop(0)}\n" if answers else ""

    monkeypatch.setattr("sys.stdin", Stdin())
    monkeypatch.setattr(Ui, "interactive", property(lambda _self: True))
    return answers
