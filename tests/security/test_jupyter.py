"""A running Jupyter, as the service table renders it: who gets in, and what its pages load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.processes import wait_until
from gridup_node.render import Context, render
from gridup_node.services import ports
from support import http_rig as rig
from support.browser import browser, new_page
from support.workers import free_port

__all__ = ["browser"]

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.node,
    pytest.mark.browser,
    # Playwright's own transports are left to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TOKEN = "t0ken" * 8


class Jupyter:
    """One that runs.

    Attributes:
        notebooks: its folder of notebooks.
    """

    def __init__(self, home: Path, port: int) -> None:
        self.notebooks, self.port = home / "data/notebooks", port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def sign_in(self) -> str:
        """Show the token; returns what a browser then sends."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", f"/lab?token={TOKEN}")
            told = connection.getresponse().headers.get_all("Set-Cookie") or []
        finally:
            connection.close()
        return "; ".join(line.partition(";")[0] for line in told)

    def status(self, path: str, **headers: str) -> int:
        """Of an answer that may be the beginning of a websocket."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                "GET", path, headers={name.replace("_", "-"): headers[name] for name in headers}
            )
            return connection.getresponse().status
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.get("/api")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def jupyter(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    home = tmp_path_factory.mktemp("jupyter")
    for name in ("config", "data/notebooks", "secrets", "jupyter/runtime"):
        (home / name).mkdir(parents=True)
    (home / "secrets/jupyter_token").write_text(TOKEN)
    made = Jupyter(home, free_port())
    context = Context(
        home=str(home),
        bin=str(runtime / "bin"),
        bind="127.0.0.1",
        ports={**ports(), "jupyter": made.port},
    )
    files = render(context)
    for name, text in files.items():
        (home / "config" / name).write_text(text)
    program = json.loads(files["programs.json"])["jupyter"]
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            program["argv"],
            env={"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8", **program["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        up = wait_until(lambda: process.poll() is not None or made.answers(), timeout=120)
        assert up and process.poll() is None, log.read_text()
        yield made
    finally:
        process.terminate()
        process.wait(timeout=120)


def test_without_the_token_it_shows_nothing_but_its_version(jupyter: Jupyter) -> None:
    assert set(json.loads(jupyter.get("/api")[1])) == {"version"}
    closed = {path: jupyter.get(path)[0] for path in ("/api/contents", "/api/kernels", "/lab", "/files/x")}
    assert closed == {"/api/contents": 403, "/api/kernels": 403, "/lab": 302, "/files/x": 302}
    assert jupyter.get("/api/contents", Authorization="token wrong")[0] == 403
    assert jupyter.get("/api/contents", Authorization=f"token {TOKEN}")[0] == 200


def test_a_websocket_of_another_site_is_refused(jupyter: Jupyter) -> None:
    # As a browser has signed in: it sends its cookie by itself, wherever the page is from.
    cookie = jupyter.sign_in()
    wanted = {
        "Cookie": cookie,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
    }
    own = jupyter.status("/api/events/subscribe", **wanted, Origin=jupyter.url)
    other = jupyter.status("/api/events/subscribe", **wanted, Origin="https://elsewhere.example")
    nobody = jupyter.status("/api/events/subscribe", **{**wanted, "Cookie": ""}, Origin=jupyter.url)
    assert (own, other, nobody) == (101, 403, 403)


def test_it_asks_nobody_for_news_or_updates(jupyter: Jupyter) -> None:
    told = jupyter.get("/lab", Authorization=f"token {TOKEN}")[1].decode()
    page = json.loads(told.partition('id="jupyter-config-data" type="application/json">')[2].split("<")[0])
    assert page.get("news", {}).get("disabled") is not False
    settings = jupyter.get(
        "/lab/api/settings/@jupyterlab/apputils-extension:notification", Authorization=f"token {TOKEN}"
    )[1]
    schema = json.loads(settings)["schema"]["properties"]
    assert (schema["fetchNews"]["default"], schema["checkForUpdates"]["default"]) == ("false", False)
    update = json.loads(jupyter.get("/lab/api/update", Authorization=f"token {TOKEN}")[1])
    assert update["notification"] is None


def notebook(leak: str) -> dict[str, Any]:
    """One whose text and whose output would tell another server of it."""
    return {
        "cells": [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"![x]({leak}/text.png) read"},
            {
                "cell_type": "code",
                "id": "b",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": (
                    "from IPython.display import HTML, display\n"
                    "leak = '" + leak + "'\n"
                    'html = \'<img src="%s/output.png"><script>fetch("%s/script")</script>\'\n'
                    "display(HTML(html % (leak, leak)))\n"
                    "print(6 * 7000)"
                ),
            },
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def test_a_browser_works_in_it_and_asks_nobody_else(jupyter: Jupyter, browser: Any) -> None:
    from playwright.sync_api import TimeoutError as TooLate

    page = new_page(browser, viewport={"width": 1280, "height": 800})
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
    outside: list[str] = []
    own = (jupyter.url, "data:", "blob:")
    page.on("requestfinished", lambda one: None if one.url.startswith(own) else outside.append(one.url))
    with rig.serve(rig.node()) as elsewhere:
        leak = f"http://{elsewhere.host}:{elsewhere.port}"
        (jupyter.notebooks / "a.ipynb").write_text(json.dumps(notebook(leak)))
        page.goto(f"{jupyter.url}/lab/tree/a.ipynb?token={TOKEN}")
        # What is run before the kernel is there is lost.
        page.get_by_text("| Idle").wait_for()
        answer = page.get_by_text("42000", exact=True).first
        # A click or a key may be lost while the page still settles.
        for _ in range(6):
            page.locator(".jp-Notebook .jp-CodeCell").first.click()
            page.keyboard.press("Shift+Enter")
            # The kernel answers by a websocket.
            with contextlib.suppress(TooLate):
                answer.wait_for(timeout=20_000)
                break
        answer.wait_for()
        for name in ("output", "text"):
            page.locator(f'img[src="{leak}/{name}.png"]').first.wait_for(state="attached")
        page.wait_for_load_state("networkidle")
        assert (elsewhere.connections, outside) == (0, [])
    page.close()
    # Of all that the page tried, the three above alone.
    tried = {word for text in refused for word in text.split("'") if word.startswith("http")}
    assert tried == {f"{leak}/{name}" for name in ("text.png", "output.png", "script")}, refused
