"""bandit on our code: bandit.json beside this holds what it finds, each with the reason why it may stay."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT

pytestmark = pytest.mark.tier("gate")

KEPT: dict[str, Any] = json.loads((Path(__file__).parent / "bandit.json").read_text())


def bandit(*folders: str | Path) -> list[dict[str, Any]]:
    """What it finds below some folders of the repository."""
    argv = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "--format", "json", *folders]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600)
    told = json.loads(ended.stdout)
    assert told["errors"] == []
    found: list[dict[str, Any]] = told["results"]
    return found


def test_nothing_is_found_that_is_not_explained_and_nothing_explained_that_is_gone() -> None:
    found = bandit("infra", "cli")
    above = {
        (r["filename"], r["test_id"], r["issue_severity"]) for r in found if r["issue_severity"] != "LOW"
    }
    low = {r["test_id"] for r in found if r["issue_severity"] == "LOW"}
    assert above == {(r["file"], r["test"], r["severity"]) for r in KEPT["above low"] if r["reason"]}
    assert low == {test for test, reason in KEPT["low"].items() if reason}


def test_a_new_finding_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import pickle\npickle.loads(b'')\neval('1')\n")
    assert {r["test_id"] for r in bandit(tmp_path)} >= {"B301", "B307"}
