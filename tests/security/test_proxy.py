"""The real reverse proxy, as the service table renders it: whose word it takes, and how much of what."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import resource
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gridup_node.guard.routes import FORM
from gridup_node.own_api import SOCKET
from gridup_node.render import HSTS_SECONDS, Context, Tls, render
from gridup_node.services import ports
from support import caddy_rig
from support.attacks import many_files

pytestmark = pytest.mark.node

MAX_UPLOAD = 3 * 1024 * 1024


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = {name.lower(): self.headers.get_all(name) for name in self.headers}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


class Behind(socketserver.ThreadingUnixStreamServer):
    """In the place of the api."""

    daemon_threads = True


@pytest.fixture(scope="module")
def proxy(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A running Caddy before a program that echoes; its port."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "config").mkdir()
    (folder / "run").mkdir()
    with Behind(str(folder / SOCKET), Echo) as behind:
        threading.Thread(target=behind.serve_forever, daemon=True).start()
        with caddy_rig.before(folder, runtime, MAX_UPLOAD) as port:
            yield port
        behind.shutdown()


def ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if answer.status == 200 else text
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ({}, "127.0.0.1"),
        ({"X-Forwarded-For": "198.51.100.1"}, "198.51.100.1"),
        # What a client says of itself stands before what the site's own proxy has added.
        ({"X-Forwarded-For": "203.0.113.9, 198.51.100.1"}, "198.51.100.1"),
        ({"X-Forwarded-For": "nonsense"}, "127.0.0.1"),
    ],
)
def test_a_sites_own_proxy_on_this_machine_says_who_asks(
    proxy: int, sent: dict[str, str], passed_on: str
) -> None:
    status, seen = ask(proxy, "GET", "/login", sent)
    assert (status, seen["x-forwarded-for"]) == (200, [passed_on])


def test_the_scheme_that_a_sites_own_proxy_was_asked_by_is_passed_on(proxy: int) -> None:
    assert ask(proxy, "GET", "/", {"X-Forwarded-Proto": "https"})[1]["x-forwarded-proto"] == ["https"]
    assert ask(proxy, "GET", "/", {})[1]["x-forwarded-proto"] == ["http"]


def test_headers_and_bodies_have_a_limit(proxy: int) -> None:
    assert ask(proxy, "GET", "/", {"X-Long": "x" * 60_000})[0] == 431
    assert ask(proxy, "POST", "/login", {}, b"x" * FORM)[0] == 200
    assert ask(proxy, "POST", "/api/v2/api_call", {}, b"x" * MAX_UPLOAD)[0] == 200
    for path, size in (("/login", 2 * 1024 * 1024), ("/api/v2/api_call", MAX_UPLOAD + 2 * 1024 * 1024)):
        # It may hang up before all of it was sent.
        with contextlib.suppress(OSError):
            assert ask(proxy, "POST", path, {}, b"x" * size)[0] in (413, 502)


def test_headers_that_do_not_end_are_given_up(proxy: int) -> None:
    with socket.create_connection(("127.0.0.1", proxy), timeout=120) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        # Under a limit that nothing else reaches: it answers 408 or hangs up.
        assert b" 408 " in (answer := one.recv(100)) or answer == b""


def test_thousands_of_idle_connections_keep_nobody_out_and_end(proxy: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The proxy raises its own limit to what it may have.
    count = min(3000, hard - 1000)
    with many_files(), contextlib.ExitStack() as held:
        idle = [held.enter_context(socket.create_connection(("127.0.0.1", proxy), 60)) for _ in range(count)]
        assert ask(proxy, "GET", "/login", {})[0] == 200
        # Under a limit that nothing else reaches.
        assert {one.recv(1) for one in idle} == {b""}


def test_a_connection_is_kept_longer_than_by_what_stands_in_front_and_not_for_minutes(
    runtime: Path, tmp_path: Path
) -> None:
    for tls in (None, Tls("192.0.2.7")):
        server = adapted(runtime, tmp_path, Context("/srv/node", "/b", "0.0.0.0", ports(), tls=tls))
        assert 60 < server["idle_timeout"] / 1e9 <= 90
        assert server["read_header_timeout"] / 1e9 <= 10


@pytest.mark.parametrize(("tls", "sent"), [(Tls("node.inst.example", True), True), (Tls("192.0.2.7"), False)])
def test_a_name_with_a_public_certificate_is_https_for_ever(tls: Tls, sent: bool) -> None:
    made = render(Context("/srv/node", "/b", "0.0.0.0", ports(), separate_hosts=True, tls=tls))["Caddyfile"]
    assert (f'Strict-Transport-Security "max-age={HSTS_SECONDS}"' in made) is sent


def test_a_proxy_elsewhere_is_believed_where_it_was_named(runtime: Path, tmp_path: Path) -> None:
    facts = {"trusted_proxies": ["192.0.2.0/24", "2001:db8::/32"]}
    server = adapted(runtime, tmp_path, Context("/srv/node", "/b", "0.0.0.0", ports(), facts=facts))
    assert set(facts["trusted_proxies"]) <= set(server["trusted_proxies"]["ranges"])
    assert server["trusted_proxies_strict"] == 1


def adapted(runtime: Path, folder: Path, context: Context) -> Any:
    """One of the ports as Caddy itself understands what was rendered; they share what is asked for here."""
    file = folder / "Caddyfile"
    file.write_text(render(context)["Caddyfile"])
    argv = [runtime / "bin" / "caddy", "adapt", "--config", file, "--adapter", "caddyfile"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    return next(iter(json.loads(done.stdout)["apps"]["http"]["servers"].values()))
