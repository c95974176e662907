from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STUB = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "prefix": sys.prefix, "path": sys.path}))
sys.exit(7 if "fail" in sys.argv else 0)
"""

TOOLS = ("bash", "env", "readlink", "dirname", "sh", "cat", "sleep")


@dataclass
class Checkout:
    """A copy of this repository with a command line that only tells how it was started, and a small lock.

    Attributes:
        root: the copy.
        env: what its scripts run with: a PATH of `tools` alone.
        tools: the folder on PATH.
    """

    root: Path
    env: dict[str, str]
    tools: Path

    @property
    def script(self) -> Path:
        return self.root / "scripts" / "gridup"

    def run(
        self, *words: str, script: str | Path | None = None, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script or self.script, *words],
            env=self.env | env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.script, *words],
            env={**self.env, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def tool(self, name: str, script: str) -> Path:
        path = self.tools / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def link(self, name: str, target: str | Path) -> None:
        path = self.tools / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    def environments(self) -> list[str]:
        return sorted(path.name for path in (self.root / ".venvs").glob("cli-*"))


def base_python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def requirement(name: str) -> str:
    """One package's lines of the real lock."""
    text = (ROOT / "requirements" / "cli.txt").read_text()
    found = re.search(rf"^{name}==.*\n(?: .*\n)*", text, re.MULTILINE)
    assert found
    return found[0]


def copy(target: Path) -> None:
    shutil.copytree(ROOT / "scripts", target / "scripts")
    # What making an environment needs; it has room on a disk of a megabyte.
    shutil.copytree(
        ROOT / "infra/gridup_infra",
        target / "infra/gridup_infra",
        ignore=shutil.ignore_patterns("__pycache__", "targets"),
    )
    node = target / "infra/gridup_node"
    node.mkdir()
    for name in ("__init__.py", "durable.py", "piping.py"):
        shutil.copy(ROOT / "infra/gridup_node" / name, node)
    others = shutil.ignore_patterns("dev.txt", "azure.txt", "aws.txt", "audit.txt")
    shutil.copytree(ROOT / "requirements", target / "requirements", ignore=others)
    (target / "requirements/cli.txt").write_text(requirement("shellingham"))
    cli = target / "cli/gridup"
    cli.mkdir(parents=True)
    (cli / "__init__.py").write_text("")
    (cli / "__main__.py").write_text(STUB)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    from uv import find_uv_bin

    root, tools = tmp_path / "my check out", tmp_path / "tools"
    copy(root)
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python3").symlink_to(base_python())
    (tools / "uv").symlink_to(find_uv_bin())
    drop = ("VIRTUAL_ENV", "PYTHONPATH", "GRIDUP_PYTHON", "UV_OFFLINE")
    env = {name: value for name, value in os.environ.items() if name not in drop}
    env.update(PATH=str(tools), PYTHONDONTWRITEBYTECODE="1", UV_PYTHON_DOWNLOADS="never")
    return Checkout(root, env, tools)
