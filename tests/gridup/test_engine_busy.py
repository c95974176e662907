"""A stack that somebody else updates just now, on this machine or another."""

from __future__ import annotations

from pathlib import Path

import pytest
from pulumi import automation as auto

from gridup import engine
from gridup.engine import PulumiEngine
from gridup.engine_events import EventTranslator
from gridup.reporter import Silent
from gridup.settings import Settings
from gridup.setup.engine import Engine as Binary
from gridup_infra.errors import BusyError
from gridup_infra.paths import Home

HELD = (
    "error: the stack is currently locked by 1 lock(s): created by ada@lab (pid 77) at 2026-11-30T10:00:00Z"
)


def held(times: int) -> tuple[list[int], object]:
    """A work that is refused so often before it is done."""
    tried: list[int] = []

    def work() -> None:
        tried.append(1)
        if len(tried) <= times:
            raise auto.ConcurrentUpdateError(auto.CommandResult(stdout="", stderr=HELD, code=255))

    return tried, work


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(engine.time, "sleep", found.append)
    return found


def made(tmp_path: Path, wait: float) -> PulumiEngine:
    settings = Settings(Home(tmp_path), {"PULUMI_BACKEND_URL": "s3://states"})
    return PulumiEngine(settings, Binary(tmp_path, "3.274.1", "PATH"), wait)


def test_another_ones_update_is_waited_for_as_long_as_was_said(tmp_path: Path, waited: list[float]) -> None:
    tried, work = held(3)
    made(tmp_path, 600)._do("inst", EventTranslator(Silent()), work)  # type: ignore[arg-type]
    assert (len(tried), len(waited)) == (4, 3)


def test_who_waits_no_longer_is_told_who_holds_it_and_what_frees_it(
    tmp_path: Path, waited: list[float]
) -> None:
    tried, work = held(3)
    with pytest.raises(BusyError) as caught:
        made(tmp_path, 0)._do("my lab", EventTranslator(Silent()), work)  # type: ignore[arg-type]
    assert (len(tried), waited) == (1, [])
    assert "held by ada@lab, process 77, since 2026-11-30T10:00:00Z" in caught.value.message
    assert "--wait-lock SECONDS" in caught.value.suggestion
    assert (
        "`eval \"$(gridup env --stack 'my lab')\" && pulumi -C \"$GRIDUP_PROJECT\" cancel -s 'my lab' --yes`"
        in caught.value.suggestion
    )
