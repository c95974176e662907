"""scripts/new_target begins a target that the registry knows and the contract tests run over."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from gridup_infra import targets

ROOT = Path(__file__).parents[2]
ASK = "from gridup_infra import targets; t = targets.target('my_cloud'); print(t.name, *targets.names())"


def scaffold(root: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, ROOT / "scripts" / "new_target.py", root, "my_cloud"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_a_new_target_is_registered_once(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "infra", tmp_path / "infra", ignore=shutil.ignore_patterns("__pycache__"))
    assert scaffold(tmp_path).returncode == 0
    asked = subprocess.run(
        [sys.executable, "-c", ASK],
        env={"PYTHONPATH": str(tmp_path / "infra")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.stdout.split() == ["my_cloud", *targets.names(), "my_cloud"], asked.stderr
    again = scaffold(tmp_path)
    assert again.returncode == 1
    assert "there is a target my_cloud already" in again.stderr
