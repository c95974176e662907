"""What goes on by itself goes on after an error, and tells of each kind once."""

from __future__ import annotations

import logging

import pytest

from gridup_node import background


def test_an_error_ends_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ends = iter([ValueError("away"), ValueError("away"), None, ValueError("away"), SystemExit()])
    waited: list[float] = []
    monkeypatch.setattr(background.time, "sleep", waited.append)

    def task() -> None:
        if (end := next(ends)) is not None:
            raise end

    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit):
        background._for_ever("peers", task, 7.0)
    assert waited == [7.0] * 5
    assert [record.getMessage() for record in caplog.records] == ["peers: ValueError: away"] * 2
