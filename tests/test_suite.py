"""The suite itself: its tiers, the rigs' own tests, and what no test may do."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from gridup_infra.processes import run
from support import tiers

TESTS = Path(__file__).parent
ROOT = TESTS.parent

Row = tuple[str, list[str], list[str]]
"""A test: its name, its tiers, its fixtures."""

LIST = """\
import json, pytest, sys

class Listed:
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        from support.tiers import TIERS
        def row(item):
            tiers = [mark.name for mark in item.iter_markers() if mark.name in TIERS]
            return item.nodeid, tiers, sorted(getattr(item, "fixturenames", ()))
        print(json.dumps([row(item) for item in items]), file=sys.stderr)

sys.exit(pytest.main(["--collect-only", "-q", "-p", "support.tiers", *sys.argv[1:]], plugins=[Listed()]))
"""


@pytest.fixture(scope="module")
def collected() -> list[Row]:
    """Each test of the suite."""
    argv = [sys.executable, "-c", LIST, str(TESTS)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = run(argv, timeout=300, env=env, cwd=ROOT)
    assert done.ok, done.stdout[-3000:] + done.stderr[-3000:]
    rows: list[Row] = json.loads(done.stderr.strip().splitlines()[-1])
    return rows


def test_each_test_is_in_exactly_one_tier(collected: list[Row]) -> None:
    assert len(collected) > 2000
    assert [name for name, found, _ in collected if len(found) != 1] == []
    assert {tier for _, found, _ in collected for tier in found} == set(tiers.TIERS)


@pytest.mark.parametrize("fixture", ["docker_daemon", "vm_rig", "small_disk"])
def test_no_quick_test_needs_root_or_docker(collected: list[Row], fixture: str) -> None:
    using = [(name, found) for name, found, fixtures in collected if fixture in fixtures]
    assert using
    assert [name for name, found in using if found == ["quick"]] == []


def test_what_only_one_may_use_at_a_time_is_used_by_one_worker(collected: list[Row]) -> None:
    def groups(*using: str, without: tuple[str, ...] = ()) -> set[str]:
        return {
            tiers.group_of(name)
            for name, _, fixtures in collected
            if set(using) <= set(fixtures) and not set(without) & set(fixtures)
        }

    assert groups("docker_daemon") == {"machine"}
    # Two nodes of this machine that are deployed at the same time could choose the same ports.
    for fixture in ("cli", "module_cli"):
        assert groups(fixture, "runtime", without=("own_ports", "vm_rig")) <= {"machine"}
    names = {Path(name.partition("::")[0]).stem for name, _, _ in collected}
    assert set(tiers.GROUPS) <= names


# Tiers and rigs, on a small suite of their own.


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A suite with a test in each tier, a rig and its own test."""
    (tmp_path / "support").mkdir()
    (tmp_path / "support/moon.py").write_text("SIZE = 1\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_small(): pass\n"
        '@pytest.mark.tier("gate")\n'
        "def test_real(): pass\n"
        '@pytest.mark.tier("deep")\n'
        "def test_every(): pass\n"
    )
    (tmp_path / "test_moon.py").write_text(
        'import pytest\npytestmark = pytest.mark.tier("deep", proves=("moon",))\ndef test_moon(): pass\n'
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .\n")
    return tmp_path


def pytest_of(small: Path, *words: str) -> tuple[set[str], str]:
    """Run the small suite. Returns the names of the tests that ran, and what was written."""
    setting = f"from pathlib import Path; from support import tiers; tiers.TESTS = Path({str(small)!r}); "
    code = f"{setting}import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))"
    plain = ("-p", "support.tiers", "-p", "no:cacheprovider", "-v", "-o", "addopts=")
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GRIDUP_"))},
        "PYTHONPATH": str(TESTS),
    }
    done = run([sys.executable, "-c", code, *plain, *words], timeout=120, cwd=small, env=env)
    ran = {line.split("::")[1].split()[0] for line in done.stdout.splitlines() if " PASSED" in line}
    return ran, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "ran"),
    [
        ((), {"test_small"}),
        (("--all",), {"test_small", "test_real"}),
        (("--deep",), {"test_every", "test_moon"}),
        (("test_it.py",), {"test_small", "test_real", "test_every"}),
        (("-m", "gate"), {"test_real"}),
        (("-k", "every"), {"test_every"}),
        (("--rig", "moon"), {"test_moon"}),
    ],
)
def test_a_run_takes_the_tests_of_its_tiers(small: Path, words: tuple[str, ...], ran: set[str]) -> None:
    tiers.note_proven(small, "moon", [small / "test_moon.py"])
    assert pytest_of(small, *words)[0] == ran


def test_a_run_ends_with_what_it_left_out_and_how_to_run_that(small: Path) -> None:
    tiers.note_proven(small, "moon", [small / "test_moon.py"])
    _, told = pytest_of(small)
    gate, deep = told.strip().splitlines()[-2:]
    assert gate.startswith("Left out: 1 tests of the gate tier (")
    assert gate.endswith(": scripts/test --all")
    assert deep.startswith("Left out: 2 tests of the deep tier (")
    assert deep.endswith(": scripts/test --deep")


@pytest.mark.parametrize("file", ["support/moon.py", "test_moon.py"])
def test_a_rig_that_changed_has_its_own_tests_in_the_gate_until_they_passed(small: Path, file: str) -> None:
    tiers.note_proven(small, "moon", [small / "test_moon.py"])
    assert "test_moon" not in pytest_of(small, "--all")[0]
    (small / file).write_text((small / file).read_text() + "# changed\n")
    assert "test_moon" in pytest_of(small, "--all")[0]
    # A gate that passed does not prove it for good: whoever changed the rig commits the new digest.
    assert "test_moon" in pytest_of(small, "--all")[0]
    assert pytest_of(small, "--rig", "moon")[0] == {"test_moon"}
    assert "test_moon" not in pytest_of(small, "--all")[0]


def test_the_own_tests_of_a_rig_that_fail_prove_nothing(small: Path) -> None:
    (small / "test_moon.py").write_text((small / "test_moon.py").read_text() + "def test_no(): assert 0\n")
    pytest_of(small, "--rig", "moon")
    assert not (small / "proven.json").exists()


def test_a_rig_of_which_only_some_tests_ran_is_not_proven(small: Path) -> None:
    (small / "support/sun.py").write_text("SIZE = 2\n")
    (small / "test_sun.py").write_text(
        'import pytest\npytestmark = pytest.mark.tier("deep", proves=("sun", "moon"))\ndef test_sun(): pass\n'
    )
    assert pytest_of(small, "--rig", "sun")[0] == {"test_sun"}
    assert set(tiers.proven(small)) == {"sun"}
    assert pytest_of(small, "--rig", "moon")[0] == {"test_sun", "test_moon"}
    assert set(tiers.proven(small)) == {"sun", "moon"}


def test_a_tier_or_a_rig_that_is_none_is_an_error(small: Path) -> None:
    assert "no rig sun; there are moon" in pytest_of(small, "--rig", "sun")[1]
    (small / "test_it.py").write_text('import pytest\n@pytest.mark.tier("fast")\ndef test_small(): pass\n')
    assert "no tier 'fast'; there are quick, gate, deep" in pytest_of(small)[1]


# The wall clock.


def test_no_test_reads_the_clock() -> None:
    """A limit is a timeout that nothing reaches; speed is measured by scripts/bench."""
    clocks = re.compile(r"\b(monotonic|perf_counter|process_time)(_ns)?\(")
    found = [
        f"{path.relative_to(TESTS)}:{number}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if clocks.search(line)
    ]
    assert found == []
