from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gridup_infra import targets

from .conftest import ROOT

NODES = ROOT / "infra/gridup_node/locks"
LOCKS = sorted((ROOT / "requirements").glob("*.txt")) + sorted(NODES.glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_with_hashes_and_no_address_is_named(lock: Path) -> None:
    text = lock.read_text()
    pins = re.findall(r"^([a-z0-9][\w.-]*)==\S+", text, re.MULTILINE)
    assert pins
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block
    assert not re.search(r"https?://|--index|--find-links|/root|/home", text)


def pins(name: str) -> set[str]:
    text = (ROOT / "requirements" / name).read_text()
    return set(re.findall(r"^([a-z0-9][\w.-]*==\S+)", text, re.MULTILINE))


def test_the_tests_run_on_what_people_run() -> None:
    assert pins("cli.txt") <= pins("dev.txt")
    assert pins("uv.txt") <= pins("cli.txt")


def test_every_dependency_is_in_its_lock() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    named = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert named
    wanted = set(re.findall(r'^\s*"([\w-]+)', named[1], re.MULTILINE))
    assert wanted <= {pin.split("==")[0] for pin in pins("cli.txt")}


def extras() -> dict[str, set[str]]:
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    return {
        name: set(re.findall(r'"([\w-]+)', wanted))
        for name, wanted in re.findall(r"^([a-z-]+) = \[(.*)\]$", section, re.MULTILINE)
    }


def test_every_extra_has_a_lock_that_agrees_with_the_base_and_the_tests_run_on_it() -> None:
    base = dict(pin.split("==") for pin in pins("cli.txt"))
    assert extras()
    for name, wanted in extras().items():
        own = dict(pin.split("==") for pin in pins(f"{name}.txt"))
        assert wanted <= own.keys()
        assert {package: own[package] for package in own.keys() & base.keys()}.items() <= base.items()
        assert pins(f"{name}.txt") <= pins("dev.txt")


@pytest.mark.parametrize("name", targets.names())
def test_a_target_that_needs_an_sdk_has_its_lock_in_the_checkout_and_in_the_wheel(name: str) -> None:
    if extra := targets.target(name).extra:
        assert extra in extras()
        assert (
            f'"requirements/{extra}.txt" = "gridup/setup/locks/{extra}.txt"'
            in (ROOT / "pyproject.toml").read_text()
        )


def test_the_image_installs_with_the_uv_of_the_lock() -> None:
    assert (ROOT / "infra/gridup_node/image/uv.txt").read_bytes() == (
        ROOT / "requirements/uv.txt"
    ).read_bytes()


def test_a_new_lock_of_uv_reaches_the_image(tmp_path: Path) -> None:
    module = "cli/gridup/setup/module"
    for folder in ("scripts", "requirements", "infra/gridup_node/image", "infra/gridup_node/locks", module):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / module / "go.mod", tmp_path / module)
    shutil.copy(ROOT / "scripts/lock", tmp_path / "scripts/lock")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    uv = tmp_path / "uv"
    # Like the real one it reads what it is piped and writes the file that --output-file names.
    uv.write_text(
        '#!/bin/sh\n[ "$1" = pip ] || exit 0\ncat >/dev/null\n'
        'while [ "$1" != --output-file ]; do shift; done\n'
        'echo "uv==9.9 \\\\ # for $2" >"$2"\n'
    )
    uv.chmod(0o755)
    subprocess.run(
        ["bash", tmp_path / "scripts/lock"],
        env={"PATH": "/usr/bin:/bin", "UV": str(uv)},
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=30,
    )
    made = (tmp_path / "infra/gridup_node/image/uv.txt").read_text()
    assert made == (tmp_path / "requirements/uv.txt").read_text()
    assert made.startswith("uv==9.9") and "requirements/uv.txt" in made


def test_each_override_of_a_node_s_lock_holds_in_it() -> None:
    for wanted in NODES.glob("*.in"):
        lock = wanted.with_suffix(".txt").read_text()
        overrides = wanted.with_suffix(".overrides").read_text()
        lines = [line for line in overrides.splitlines() if line and not line.startswith("#")]
        assert lines
        for asked in map(Requirement, lines):
            found = re.findall(rf"^{re.escape(asked.name)}==(\S+)", lock, re.MULTILINE)
            assert found, asked
            assert all(asked.specifier.contains(version) for version in found), asked


def test_what_installs_a_node_s_lock_does_not_hold_it_against_syft_s_own_pins() -> None:
    """With its dependencies syft would ask for the versions that the overrides replace."""
    dockerfile = (ROOT / "infra/gridup_node/image/Dockerfile").read_text()
    runtime = (ROOT / "infra/gridup_infra/targets/local/runtime.py").read_text()
    assert re.search(r"uv pip install [^&]*--no-deps [^&]*node.txt", dockerfile.replace("\\\n", ""))
    assert '"--no-deps"' in runtime
