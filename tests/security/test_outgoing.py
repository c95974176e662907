"""Where the node connects at another node's word, against a server in this process."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gridup_node.guard import budget, outgoing

LENGTH = 1000


class Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * LENGTH)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name leads to this machine, and there is no proxy."""
    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *more, **kw: lookup("127.0.0.1", *more, **kw))
    monkeypatch.setenv("NO_PROXY", "*")


def ask(server: Any, host: str, path: str = "/") -> int:
    with outgoing._Requests.Session() as session:
        return len(session.get(f"http://{host}:{server.server_address[1]}{path}").content)


def test_a_redirect_is_not_followed(elsewhere: Any) -> None:
    assert ask(elsewhere, "127.0.0.1", "/away") == 0
    outgoing._Requests.post(f"http://127.0.0.1:{elsewhere.server_address[1]}/away", data=b"")
    assert elsewhere.asked == ["/away", "/away"]


def test_a_name_that_leads_to_the_nodes_own_machine_is_not_asked(elsewhere: Any) -> None:
    with pytest.raises(outgoing.NotThere):
        ask(elsewhere, "lab.example")
    assert elsewhere.asked == []
    # It says so itself: an administrator has seen it.
    for host in ("127.0.0.1", "localhost"):
        assert ask(elsewhere, host) == LENGTH


def test_nothing_is_sent_to_where_a_name_leads_that_is_never_asked(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "NEVER", (ipaddress.ip_network("127.0.0.0/8"),))
    for host in ("lab.example", "localhost", "127.1", "[::ffff:127.0.0.1]"):
        with pytest.raises(outgoing.NotThere):
            ask(elsewhere, host)
    assert elsewhere.asked == []


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "168.63.129.16", "[::ffff:169.254.169.254]"),
        *("169.254.43518", "2852039166", "0xa9fea9fe"),
    ],
)
def test_metadata_services_are_never_asked_however_they_are_written(host: str) -> None:
    """Nor by a site's own proxy, which would find the address itself."""
    with pytest.raises(outgoing.NotThere), outgoing._Requests.Session() as session:
        session.get(f"http://{host}/latest", proxies={"http": "http://127.0.0.1:1"})


def test_an_answer_is_read_as_far_as_it_may_be_large(elsewhere: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "LARGEST_ANSWER", LENGTH - 1)
    with budget.within(budget.STRANGERS), pytest.raises(outgoing.NotThere):
        ask(elsewhere, "127.0.0.1")
    with budget.within(2 * budget.STRANGERS):
        assert ask(elsewhere, "127.0.0.1") == LENGTH


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST.", "127.9", "::1", "[::1]", "0.0.0.0", "0"]
)
def test_to_the_nodes_own_machine_leads_only_a_route_that_is_seen_or_known(host: str) -> None:
    route = SimpleNamespace(host_or_ip=host, rtunnel_token=None)
    assert not outgoing.may_lead(route, [], seen=False)
    assert outgoing.may_lead(route, [], seen=True)
    assert outgoing.may_lead(route, [route], seen=False)
    assert outgoing.may_lead(SimpleNamespace(host_or_ip="lab.example", rtunnel_token=None), [], seen=False)
    assert not outgoing.may_lead(SimpleNamespace(host_or_ip=host, rtunnel_token="x"), [], seen=True)
