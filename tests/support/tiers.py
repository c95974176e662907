"""A pytest plugin: which tests run. Each test is in one tier, and a run takes the tests of some tiers.

- quick: tests on tiny fakes, and one real node on this machine. An ordinary user runs them anywhere.
- gate: every real part. Main must pass quick and gate (`scripts/test --all`).
- deep: every combination, and the rigs' own tests (`scripts/test --deep`).

A test says its tier with `pytest.mark.tier("gate")`; the mark closest to it counts, and a test without one is
quick. The tier becomes an ordinary marker, so that `-m deep` selects by it.

The rigs (emulators, daemons, machines below `support/`) have tests of their own, of the deep tier. They say
so: `pytest.mark.tier("deep", proves=("arm",))`. `proven.json` keeps a digest of each rig as it was when all
of its tests last passed. While a rig differs from that, its own tests are of the gate.
`scripts/test --rig arm` runs them, and writes the new digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
PROVEN = "proven.json"

TIERS = {
    "quick": "",
    "gate": "they need root, an sshd, Docker, machines that boot, or emulated clouds",
    "deep": "they try every combination, and the rigs themselves",
}
"""Each tier, and why its tests are not in every run."""

COMMANDS = {"quick": "scripts/test", "gate": "scripts/test --all", "deep": "scripts/test --deep"}

GROUPS = dict.fromkeys(
    (
        # Docker's daemon.
        "test_docker_node",
        "test_docker_broken_off",
        "test_docker_by_ssh",
        "test_docker_client",
        "test_docker_https",
        "test_docker_parts",
        "test_image",
        "test_target",
        # Nodes among this machine's own ports, which take a network.
        "test_first_use",
        "test_new_debian",
        "test_wheel_deploy",
    ),
    "machine",
)
"""Files of tests that share what only one worker may use at a time -> their group. Any other file is a group
of its own."""

LONGEST_FIRST = (
    "machine",
    "test_vm_node",
    "test_cloud_boot",
    "test_aws",
    "test_ssh_node",
    "test_local_node",
    "test_azure",
    "test_local_https",
    "test_broken_off",
    "test_aws_broken_off",
    "test_aws_parts",
    "test_attacks",
    "test_story",
    "test_portal",
    "test_first_boot",
    "test_plain_pulumi",
    "test_azure_broken_off",
)
"""The groups that take longest. They start first, so that no worker has a long one left at the end."""

SLOWEST = 10

LEFT_OUT, RIGS = pytest.StashKey["Counter[str]"](), pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tiers", "tiers of tests")
    group.addoption("--all", action="store_true", help="Run what main must pass: the tiers quick and gate.")
    group.addoption("--deep", action="store_true", help="Run the deep tier.")
    group.addoption("--rig", metavar="NAME", help="Run the own tests of a rig below tests/support, e.g. arm.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "tier(name, proves=()): the tier of a test, and the rigs that it proves, see tests/support/tiers.py",
    )
    for name, why in TIERS.items():
        config.addinivalue_line("markers", f"{name}: tests of this tier; {why or 'they run anywhere'}")
    config.stash[LEFT_OUT] = Counter()
    config.stash[RIGS] = {}
    if wanted(config) - {"quick"}:
        os.environ["GRIDUP_REQUIRE"] = "all"
    config.pluginmanager.register(_Summary(config))


def wanted(config: pytest.Config) -> set[str]:
    """The tiers that this run takes."""
    if config.getoption("--rig"):
        return set(TIERS)
    if config.getoption("--deep"):
        return {"deep"}
    if config.getoption("--all"):
        return {"quick", "gate"}
    return {"quick"} if _is_whole(config) else set()


def _is_whole(config: pytest.Config) -> bool:
    """Whether nobody has chosen tests: then the tier chooses them."""
    chosen = config.getoption("keyword") or config.getoption("markexpr")
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not chosen


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    changed = changed_rigs(TESTS, rigs_of(items))
    for item in items:
        item.add_marker(tier_of(item, changed))
    if rig := config.getoption("--rig"):
        kept = [item for item in items if rig in _proves(item)]
        if not kept:
            raise pytest.UsageError(f"no rig {rig}; there are {', '.join(sorted(rigs_of(items)))}")
    elif tiers := wanted(config):
        kept = [item for item in items if _tier(item) in tiers]
    else:
        kept = items[:]
    chosen = set(kept)
    left = [item for item in items if item not in chosen]
    config.stash[LEFT_OUT] = Counter(_tier(item) for item in left)
    config.stash[RIGS] = dict(Counter(rig for item in items for rig in _proves(item)))
    config.hook.pytest_deselected(items=left)
    items[:] = ordered(kept)


def tier_of(item: pytest.Item, changed: Iterable[str] = ()) -> str:
    """The tier of a test; a deep one that proves a changed rig is of the gate.

    Raises:
        pytest.UsageError: its mark names none.
    """
    mark = item.get_closest_marker("tier")
    name = mark.args[0] if mark else "quick"
    if name not in TIERS:
        raise pytest.UsageError(f"{item.nodeid}: no tier {name!r}; there are {', '.join(TIERS)}")
    return "gate" if set(_proves(item)) & set(changed) else str(name)


def _tier(item: pytest.Item) -> str:
    return next(name for name in TIERS if item.get_closest_marker(name))


def _proves(item: pytest.Item) -> tuple[str, ...]:
    """The rigs that a test proves; none for a test of the product."""
    mark = item.get_closest_marker("tier")
    return tuple(mark.kwargs.get("proves", ())) if mark else ()


def group_of(nodeid: str) -> str:
    """The group of a test: one worker runs all tests of a group, one after the other."""
    stem = Path(nodeid.partition("::")[0]).stem
    return GROUPS.get(stem, stem)


def ordered(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order to start their groups in."""

    def rank(item: pytest.Item) -> tuple[int, bool]:
        group = group_of(item.nodeid)
        first = LONGEST_FIRST.index(group) if group in LONGEST_FIRST else len(LONGEST_FIRST)
        return first, _tier(item) == "quick"

    return sorted(items, key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole groups."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


# Rigs.


def rigs_of(items: Iterable[pytest.Item]) -> dict[str, set[Path]]:
    """The files of the own tests of each rig."""
    found: dict[str, set[Path]] = defaultdict(set)
    for item in items:
        for rig in _proves(item):
            found[rig].add(item.path)
    return dict(found)


def digest(tests: Path, rig: str, own: Iterable[Path]) -> str:
    """Of a rig's files and of its own tests.

    Raises:
        pytest.UsageError: there is no such rig.
    """
    module, folder = tests / f"support/{rig}.py", tests / "support" / rig
    files = [module] if module.is_file() else sorted(folder.rglob("*.py"))
    if not files:
        raise pytest.UsageError(f"a test is of the rig {rig}, and tests/support has none of that name")
    made = hashlib.sha256()
    for path in (*files, *sorted(own)):
        made.update(f"{path.relative_to(tests)}\0".encode() + path.read_bytes() + b"\0")
    return made.hexdigest()


def proven(tests: Path) -> dict[str, str]:
    """The digest that each rig had when its own tests last passed."""
    path = tests / PROVEN
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return known


def changed_rigs(tests: Path, rigs: dict[str, set[Path]]) -> set[str]:
    """The rigs whose own tests have not passed since they changed."""
    known = proven(tests)
    return {rig for rig, own in rigs.items() if digest(tests, rig, own) != known.get(rig)}


def note_proven(tests: Path, rig: str, own: Iterable[Path]) -> None:
    """Keep the digest of a rig whose own tests have all passed."""
    known = {**proven(tests), rig: digest(tests, rig, own)}
    (tests / PROVEN).write_text(json.dumps(dict(sorted(known.items())), indent=4) + "\n")


# What is said at the end.


class _Summary:
    """Tells the slowest tests, the time of each tier, and what was left out."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seconds: dict[str, float] = defaultdict(float)
        self._tiers: dict[str, str] = {}
        self._left: Counter[str] = Counter()
        self._rigs: dict[str, int] = {}
        self._passed: Counter[str] = Counter()
        self._files: dict[str, set[Path]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid
        self._seconds[name] += report.duration
        self._tiers[name] = next((tier for tier in TIERS if tier in report.keywords), "")
        if report.when == "call" and report.passed:
            for kind, rig in report.user_properties:
                if kind == "proves":
                    self._passed[str(rig)] += 1
                    self._files[str(rig)].add(Path(report.fspath))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A worker has ended. All of them have collected the same."""
        told = getattr(node, "workeroutput", {})
        self._left = Counter(told.get("left_out", self._left))
        self._rigs = told.get("rigs", self._rigs)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["left_out"] = dict(session.config.stash[LEFT_OUT])
            output["rigs"] = session.config.stash[RIGS]
            return
        self._left = self._left or session.config.stash[LEFT_OUT]
        self._rigs = self._rigs or session.config.stash[RIGS]
        if exitstatus == 0 and (self._config.getoption("--rig") or self._config.getoption("--deep")):
            for rig, count in self._rigs.items():
                if self._passed[rig] == count:
                    root = Path(self._config.rootpath)
                    note_proven(TESTS, rig, {root / path for path in self._files[rig]})

    def pytest_unconfigure(self) -> None:
        """After all that pytest itself says."""
        terminalreporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminalreporter is None:
            return
        write = terminalreporter.write_line
        if hasattr(self._config, "workerinput") or not self._seconds:
            return
        if not wanted(self._config):
            return
        write("")
        write(f"The {SLOWEST} slowest tests:")
        for name in sorted(self._seconds, key=lambda name: -self._seconds[name])[:SLOWEST]:
            write(f"  {self._seconds[name]:6.1f} s  {name}")
        for tier in TIERS:
            names = [name for name in self._seconds if self._tiers[name] == tier]
            if names:
                seconds = sum(self._seconds[name] for name in names)
                write(f"Tier {tier}: {len(names)} tests, {seconds:.0f} s in all workers together")
        skipped = terminalreporter.stats.get("skipped", [])
        if skipped:
            write(f"Skipped: {len(skipped)}; the lines that begin with SKIPPED say why.")
        for tier, why in TIERS.items():
            if self._left[tier]:
                reason = f" ({why})" if why else ""
                write(f"Left out: {self._left[tier]} tests of the {tier} tier{reason}: {COMMANDS[tier]}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties.extend(("proves", rig) for rig in _proves(item))
