"""Room on this machine's disks: each counts what will land on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gridup_infra import room
from gridup_infra.room import Need, lacking


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two of them: one has 2 GB free, the other 1 GB."""
    large, small = tmp_path / "large", tmp_path / "small"
    for folder in (large, small):
        folder.mkdir()
    monkeypatch.setattr(room, "disk", lambda folder: 1 if large in (folder, *folder.parents) else 2)
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: SimpleNamespace(free=2 * 10**9 if large == path else 10**9)
    )
    return large, small


def test_what_lands_on_one_disk_is_added_up(disks: tuple[Path, Path]) -> None:
    large, small = disks
    needs = [Need("the engine", 1_500_000_000, large / "a"), Need("the node", 500_000_000, large / "b" / "c")]
    assert lacking(needs) == ""
    assert lacking([*needs, Need("the cache", 1, small)]) == ""
    more = Need("the rest", 100_000_000, large)
    assert lacking([*needs, more]) == (
        f"{large} has only 2.0 GB free; the engine and the node and the rest need 2.1 GB."
    )
    assert room.total([*needs, more]) == 2_100_000_000


def test_what_lands_on_another_is_looked_for_there(disks: tuple[Path, Path]) -> None:
    large, small = disks
    needs = [Need("the engine", 1_500_000_000, large), Need("the cache", 1_100_000_000, small / "uv" / "x")]
    assert lacking(needs) == f"{small} has only 1.0 GB free; the cache needs 1.1 GB."
