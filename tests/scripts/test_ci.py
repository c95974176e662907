from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gridup_infra.processes import run

from .conftest import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose checks, tests and system only write down how they were called."""
    clone, bin_ = tmp_path / "a clone", tmp_path / "bin"
    (clone / ".ci").mkdir(parents=True)
    (clone / "scripts").mkdir()
    bin_.mkdir()
    shutil.copy(ROOT / ".ci/run", clone / ".ci/run")
    say = f'echo "${{0##*/}} $* $GRIDUP_REQUIRE $CI" >>"{tmp_path}/log"'
    write(clone / "scripts/check", say)
    write(clone / "scripts/test", say)
    write(bin_ / "dpkg", "exit 0")
    write(bin_ / "apt-get", say)
    write(bin_ / "sleep", "")
    return clone


def write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def ci(clone: Path) -> tuple[int, list[str]]:
    env = {"PATH": f"{clone.parent}/bin:/usr/bin:/bin", "HOME": str(clone.parent)}
    result = subprocess.run([clone / ".ci/run"], env=env, cwd="/", capture_output=True, text=True, timeout=30)
    log = clone.parent / "log"
    return result.returncode, log.read_text().splitlines() if log.exists() else []


def test_ci_checks_and_tests_with_every_part_required(clone: Path) -> None:
    assert ci(clone) == (0, ["check  all true", "test --all all true"])


@pytest.mark.parametrize("script", ["check", "test"])
def test_ci_fails_when_one_fails_and_runs_both(clone: Path, script: str) -> None:
    path = clone / "scripts" / script
    path.write_text(f"{path.read_text()}\nexit 3\n")
    code, log = ci(clone)
    assert code != 0
    assert len(log) == 2


def test_ci_installs_what_is_missing_and_tries_again(clone: Path) -> None:
    write(clone.parent / "bin/dpkg", "exit 1")
    apt = clone.parent / "bin/apt-get"
    apt.write_text(f'{apt.read_text()}[ "$(grep -c update "{clone.parent}/log")" -ge 2 ]\n')
    code, log = ci(clone)
    assert code == 0
    assert [line.split()[0] for line in log] == ["apt-get"] * 3 + ["check", "test"]
    assert "openssh-server" in log[2]


def test_ci_fails_when_the_packages_cant_be_had(clone: Path) -> None:
    write(clone.parent / "bin/dpkg", "exit 1")
    write(clone.parent / "bin/apt-get", "exit 100")
    assert ci(clone)[0] != 0


@pytest.mark.parametrize(("required", "codes"), [("", (0, 5)), ("all", (1, 2))])
@pytest.mark.parametrize(
    "text",
    ["def test_it(): pytest.skip('no such part')", "pytest.skip('no such part', allow_module_level=True)"],
)
def test_a_skip_is_a_failure_where_every_part_is_required(
    tmp_path: Path, required: str, codes: tuple[int, int], text: str
) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\n{text}\n")
    env = {**os.environ, "GRIDUP_REQUIRE": required, "PYTHONPATH": str(ROOT / "tests")}
    plain = ["-c", "/dev/null", "--rootdir", tmp_path, "-p", "no:cacheprovider", tmp_path]
    argv = [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "support.strict_skips", *plain]
    result = run(argv, timeout=60, env=env, cwd=tmp_path)
    assert result.code in codes, result.stdout
    assert "no such part" in result.stdout
