from __future__ import annotations

import re
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
