"""A real browser, for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gridup_infra import processes


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("playwright is not installed")
    chromium = next(
        filter(None, map(processes.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        # Without a sandbox: root has none, in CI, and the pages are our own.
        started = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            timeout=180_000,
        )
        yield started
        started.close()


def new_page(browser: Any, **options: Any) -> Any:
    """A page that is given time for all that it is asked to do."""
    page = browser.new_page(**options)
    page.set_default_timeout(120_000)
    return page
