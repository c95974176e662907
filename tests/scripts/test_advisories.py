"""Every lock against the vulnerabilities that are known, and how that file is kept."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from gridup import advisories
from gridup.advisories import Advisory
from gridup.setup import extras

from .conftest import ROOT

LOCKS = sorted(
    {*(ROOT / "requirements").glob("*.txt"), *(ROOT / "infra" / "gridup_node" / "locks").glob("*.txt")}
)
KNOWN = advisories.load()


def pins(lock: Path) -> set[tuple[str, str]]:
    """For whatever Python and system."""
    return {(pin.name, pin.version) for pin in extras.read(lock.read_text())}


def unexplained(lock: set[tuple[str, str]], known: list[Advisory]) -> list[str]:
    found = advisories.of(lock, known)
    return [f"{name} {version}: {which.id}" for name, version, which in found if not which.reason]


def stale(locks: list[set[tuple[str, str]]], known: list[Advisory]) -> list[str]:
    """Reasons for what no lock has any more."""
    there = {which.id for lock in locks for _, _, which in advisories.of(lock, known)}
    return [which.id for which in known if which.reason and which.id not in there]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_lock_has_a_known_vulnerability_that_nobody_has_explained(lock: Path) -> None:
    assert len(pins(lock)) > 0
    assert unexplained(pins(lock), KNOWN) == []


def test_no_reason_has_outlived_what_it_explains() -> None:
    assert stale([pins(lock) for lock in LOCKS], KNOWN) == []


def test_the_two_checks_see_what_they_are_for() -> None:
    old = next(one for one in KNOWN if one.id == "CVE-2025-62727")
    locked = {("starlette", "0.45.3")}
    assert unexplained(locked, [old]) == ["starlette 0.45.3: CVE-2025-62727"]
    explained = replace(old, reason="The node serves no files.")
    assert unexplained(locked, [explained]) == []
    assert stale([locked], [explained]) == []
    assert stale([{("starlette", "0.49.1")}], [explained]) == ["CVE-2025-62727"]
    # Of another package, and a version of before it came in.
    assert unexplained({("starlette-admin", "0.45.3"), ("starlette", "0.38.0")}, [old]) == []


@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.id)
def test_each_is_told_with_its_range_date_and_source(one: Advisory) -> None:
    for name in (one.id, *one.aliases):
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}|GHSA(-[0-9a-z]{4}){3}|PYSEC-\d{4}-\d+", name)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.package)
    date.fromisoformat(one.date)
    assert one.source.startswith("https://") and one.about
    assert SpecifierSet(one.affected)
    if one.fixed:
        assert Version(one.fixed) and not one.affects(one.fixed)


def test_none_is_told_twice_and_they_are_in_order() -> None:
    names = [name for one in KNOWN for name in (one.id, *one.aliases)]
    assert len(names) == len(set(names))
    assert sorted(KNOWN, key=lambda one: (one.package, one.date, one.id)) == KNOWN


def test_the_wheel_brings_the_file_along() -> None:
    wanted = '"requirements/advisories.json" = "gridup/setup/locks/advisories.json"'
    assert wanted in (ROOT / "pyproject.toml").read_text()
    assert advisories.file() == ROOT / "requirements" / "advisories.json"
    assert json.loads(advisories.file().read_text())


@pytest.fixture(scope="module")
def updating() -> Any:
    """scripts/advisories.py."""
    spec = importlib.util.spec_from_file_location("lock_advisories", ROOT / "scripts" / "advisories.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOLD = {
    # As `pip-audit --format json` writes it (pip-audit 2.10, pip_audit/_format/json.py).
    "dependencies": [
        {"name": "flask", "version": "0.5", "vulns": []},
        {"name": "local", "skip_reason": "Dependency not found on PyPI"},
        {
            "name": "jinja2",
            "version": "3.1.5",
            "vulns": [
                {
                    "id": "GHSA-cpwx-vrp4-4pq7",
                    "fix_versions": ["3.1.6"],
                    "aliases": ["CVE-2025-27516"],
                    "description": "known",
                },
                {
                    "id": "PYSEC-2099-1",
                    "fix_versions": ["2.9", "3.2", "3.1.9"],
                    "aliases": ["CVE-2099-11111", "GHSA-aaaa-bbbb-cccc"],
                    "description": "A template\nis too much.",
                },
                {"id": "PYSEC-2099-2", "fix_versions": [], "aliases": []},
            ],
        },
    ],
    "fixes": [],
}


def test_what_pip_audit_finds_is_added_and_what_is_known_stays(updating: Any) -> None:
    known = json.loads(advisories.file().read_text())
    rows, new = updating.merged(known, [TOLD, TOLD], "2099-01-02")
    assert new == ["CVE-2099-11111", "PYSEC-2099-2"]
    assert [row for row in rows if row["id"] not in new] == known
    first, second = (row for row in rows if row["id"] in new)
    assert first == {
        "id": "CVE-2099-11111",
        "aliases": ["PYSEC-2099-1", "GHSA-aaaa-bbbb-cccc"],
        "package": "jinja2",
        "affected": ">=3.1.5,<3.1.9",
        "fixed": "3.1.9",
        "date": "2099-01-02",
        "source": "https://osv.dev/vulnerability/PYSEC-2099-1",
        "about": "A template is too much.",
    }
    assert (second["affected"], second["fixed"]) == (">=3.1.5", "")


def test_a_package_that_a_lock_has_in_two_versions_is_asked_for_in_both(updating: Any) -> None:
    asked = updating.rounds([("a", "1"), ("b", "2"), ("a", "0.9"), ("b", "2")])
    assert asked == [["a==0.9", "b==2"], ["a==1"]]


def test_without_the_internet_the_file_stays_and_the_lock_is_made(
    updating: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(_requirements: list[str]) -> None:
        raise OSError("no route to the index")

    (tmp_path / "known.json").write_text("[]")
    monkeypatch.setattr(updating, "audit", offline)
    monkeypatch.setattr(sys, "argv", ["advisories.py", "--file", str(tmp_path / "known.json")])
    assert updating.main() == 0
    assert (tmp_path / "known.json").read_text() == "[]"
    assert "no route to the index" in capsys.readouterr().err
