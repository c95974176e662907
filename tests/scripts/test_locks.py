from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


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


def test_the_image_installs_with_the_uv_of_the_lock() -> None:
    assert (ROOT / "infra/gridup_node/image/uv.txt").read_bytes() == (
        ROOT / "requirements/uv.txt"
    ).read_bytes()


def test_a_new_lock_of_uv_reaches_the_image(tmp_path: Path) -> None:
    for folder in ("scripts", "requirements", "infra/gridup_node/image"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/lock", tmp_path / "scripts/lock")
    uv = tmp_path / "uv"
    # Like the real one it reads what it is piped and writes the file that --output-file names.
    uv.write_text(
        '#!/bin/sh\ncat >/dev/null\nwhile [ "$1" != --output-file ]; do shift; done\n'
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
