"""A person with a browser signs in, looks, and signs out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.browser import browser, new_page

__all__ = ["browser"]

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.node,
    pytest.mark.browser,
    # Playwright's own transports are left to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NAME = "<b>Inst & Söhne</b>"
SIZES = {"desktop": (1280, 800), "phone": (360, 740)}


@pytest.mark.parametrize("size", SIZES)
def test_sign_in_look_and_sign_out(node: Any, browser: Any, size: str, tmp_path: Path) -> None:
    shots = Path(os.environ.get("TEST_SCREENSHOTS", tmp_path))
    width, height = SIZES[size]
    page = new_page(browser, viewport={"width": width, "height": height})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
    outside: list[str] = []
    page.on(
        "request",
        lambda request: outside.append(request.url) if not request.url.startswith(node.url) else None,
    )

    page.goto(f"{node.url}/")
    assert page.url == f"{node.url}/login"
    assert page.get_by_role("heading", name=NAME).is_visible()
    page.screenshot(path=shots / f"login-{size}.png", full_page=True)
    page.get_by_label("E-mail address").fill("admin@inst.example")
    page.get_by_label("Password").fill(node.secret("admin_password"))
    page.get_by_role("button", name="Sign in").click()

    page.wait_for_url(f"{node.url}/")
    assert page.get_by_role("heading", name=NAME).is_visible()
    assert page.get_by_text("admin@inst.example").is_visible()
    page.screenshot(path=shots / f"overview-{size}.png", full_page=True)
    # Nothing is cut off or scrolls sideways.
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{node.url}/login")
    page.goto(f"{node.url}/")
    assert page.url == f"{node.url}/login"
    page.close()
    assert (wrong, outside) == ([], [])


def test_a_wrong_password_is_said_to_those_who_listen_too(node: Any, browser: Any, tmp_path: Path) -> None:
    shots = Path(os.environ.get("TEST_SCREENSHOTS", tmp_path))
    page = new_page(browser, color_scheme="dark", viewport={"width": 900, "height": 760})
    page.goto(f"{node.url}/login")
    page.get_by_label("E-mail address").fill("admin@inst.example")
    page.get_by_label("Password").fill("wrong")
    page.get_by_label("Password").press("Enter")
    assert page.get_by_role("alert").inner_text() == "Wrong e-mail address or password."
    assert page.get_by_label("E-mail address").input_value() == "admin@inst.example"
    page.screenshot(path=shots / "wrong-password-dark.png")
    page.close()
