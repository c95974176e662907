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
    if os.environ.get("GRIDUP_REQUIRE") == "all" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"GRIDUP_REQUIRE=all, and this was skipped: {reason}"
    return report
