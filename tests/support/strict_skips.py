"""A pytest plugin: with GRIDUP_REQUIRE=all a skipped test is a failed one.

On a developer's machine a part that is missing skips its tests with the reason; in CI every part
must be there, or a test could be lost without anybody seeing it. `scripts/test` loads it.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_a_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    # A whole module may skip itself while it is read.
    report = yield
    _fail_a_skip(report)
    return report


def _fail_a_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("GRIDUP_REQUIRE") == "all" and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"GRIDUP_REQUIRE=all, and this was skipped: {reason}"
