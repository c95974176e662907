"""Fetches one page over http or https, through redirects and the environment's proxy, within limits.

A redirect may change the port and the scheme, but never the host. Otherwise a probe would verify another
server, or could be misused to send requests to one.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urljoin, urlsplit

from gridup.probes.address import HTTP_PORT, HTTPS_PORT, is_loopback
from gridup.probes.model import ProbeState, Trust
from gridup.probes.wire import Deadline, DeadlineReader, Failure, Target, connect, secure, send

if TYPE_CHECKING:
    from http.client import HTTPResponse

MAX_REDIRECTS = 5
MAX_BODY = 256 * 1024
"""Maximum bytes of a body that are read. A login page and syft's metadata are a few KiB."""

_REDIRECTS = {301, 302, 303, 307, 308}
_IN_URLS = "/%?&=:;+,@!$'()*~"


@dataclass(frozen=True)
class Location:
    """A URL in its parts."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def netloc(self) -> str:
        name = self.host.partition("%")[0]
        shown = f"[{name}]" if ":" in name else name.encode("idna").decode()
        return shown if self.port == (HTTPS_PORT if self.tls else HTTP_PORT) else f"{shown}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.netloc}{self.path}"


@dataclass(frozen=True)
class Proxy:
    """An http proxy from the environment. `credentials` are encoded for the header; empty for none."""

    host: str
    port: int
    credentials: str = ""


@dataclass(frozen=True)
class Route:
    """How to connect: directly to the address `target`, or through a proxy at that address."""

    target: Target
    proxy: Proxy | None = None
    trust: Trust = field(default_factory=Trust)


@dataclass(frozen=True)
class Page:
    """An http response. The body has at most `MAX_BODY` bytes, and may end where enough was read.

    Attributes:
        proxy: the host of the proxy that sent the response and may have produced it. Empty without a proxy,
            and for https, because a proxy can't change what is in a tunnel.
    """

    status: int
    content_type: str
    body: bytes
    note: str = ""
    proxy: str = ""


def proxy_for(tls: bool, host: str) -> Proxy | None:
    """Return the environment's proxy for `host`; None for this machine itself. Only http:// proxies count.

    Raises:
        Failure: the environment's proxy is not a URL. The message omits it because it may hold a password.
    """
    if is_loopback(host):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    url = proxies.get("https" if tls else "http") or proxies.get("all")
    if not url or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or HTTP_PORT
    except ValueError:
        raise Failure(ProbeState.DOWN, "the proxy in the environment is no URL") from None
    if parts.scheme != "http" or not parts.hostname:
        return None
    credentials = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, port, credentials)


def fetch(location: Location, route: Route, budget: Deadline, enough: Callable[[bytes], bool]) -> Page:
    """Return the page at `location`, after redirects.

    Args:
        enough: returns whether the first part of the body is enough; then the rest is not read.

    Raises:
        Failure: the redirects form a loop, or one leads to another host or is not allowed otherwise.
        TimeoutError, OSError, http.client.HTTPException: there is no complete answer.
    """
    seen: set[Location] = set()
    notes: list[str] = []
    while len(seen) <= MAX_REDIRECTS:
        if location in seen:
            raise Failure(ProbeState.DOWN, "redirect loop")
        seen.add(location)
        page, leads_to = _ask(location, route, budget, enough)
        notes += [page.note] if page.note and page.note not in notes else []
        if page.status in _REDIRECTS and leads_to:
            location = _follow(location, leads_to, seen)
            budget.led_to = f"{'https' if location.tls else 'http'}://{location.netloc}"
        elif _wants_tls(location, page):
            location = replace(location, tls=True)
        else:
            return replace(page, note=", ".join(notes))
    raise Failure(ProbeState.DOWN, f"redirect loop: more than {MAX_REDIRECTS} redirects")


def _follow(location: Location, leads_to: str, seen: set[Location]) -> Location:
    try:
        url = urljoin(location.url, leads_to)
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Failure(ProbeState.DOWN, "redirects to what is no URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Failure(ProbeState.DOWN, "redirects to what is no web page")
    tls = parts.scheme == "https"
    host = parts.hostname
    if not _same_host(host, location.host):
        raise Failure(ProbeState.DOWN, f"redirects to another host, {host[:80]}; check that one instead")
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_IN_URLS)
    following = Location(tls, location.host, port or (HTTPS_PORT if tls else HTTP_PORT), path)
    if location.tls and not tls and following not in seen:
        raise Failure(ProbeState.DOWN, "redirects from https to plain http")
    return following


def _same_host(one: str, other: str) -> bool:
    names = [host.partition("%")[0].rstrip(".").lower() for host in (one, other)]
    return names[0] == names[1] or (is_loopback(one) and is_loopback(other))


def _wants_tls(location: Location, page: Page) -> bool:
    """Return whether the page is the answer of Go (and so Caddy) to plain http on an https port."""
    return not location.tls and page.status == 400 and b"HTTP request to an HTTPS server" in page.body


def _ask(
    location: Location, route: Route, budget: Deadline, enough: Callable[[bytes], bool]
) -> tuple[Page, str | None]:
    from http.client import HTTPResponse

    def open_socket() -> socket.socket:
        return _open(location, route, budget)

    note = ""
    if location.tls:
        sock, note = secure(open_socket, location.host, route.trust, budget)
    else:
        sock = open_socket()
    with sock, DeadlineReader(sock, budget) as reader:
        send(sock, _request(location, route), budget)
        # HTTPResponse uses only the `makefile` method of its socket.
        response = HTTPResponse(cast(socket.socket, reader), method="GET")
        try:
            response.begin()
            body = b"" if response.status in _REDIRECTS else _read(response, enough)
        finally:
            response.close()
        proxy = route.proxy.host if route.proxy and not location.tls else ""
        page = Page(response.status, response.getheader("Content-Type") or "", body, note, proxy)
        return page, response.getheader("Location")


def _read(response: HTTPResponse, enough: Callable[[bytes], bool]) -> bytes:
    body = b""
    while len(body) < MAX_BODY and not enough(body):
        # `read1` returns the bytes that are available; `read` would wait for the full amount.
        more = response.read1(MAX_BODY - len(body))
        if not more:
            break
        body += more
    return body


def _request(location: Location, route: Route) -> bytes:
    plain_proxy = route.proxy if not location.tls else None
    lines = [
        f"GET {location.url if plain_proxy else location.path} HTTP/1.1",
        f"Host: {location.netloc}",
        "User-Agent: gridup",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if plain_proxy and plain_proxy.credentials:
        lines.append(f"Proxy-Authorization: Basic {plain_proxy.credentials}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _open(location: Location, route: Route, budget: Deadline) -> socket.socket:
    if not route.proxy:
        return connect(route.target, location.port, budget)
    sock = connect(route.target, route.proxy.port, budget)
    try:
        if location.tls:
            _tunnel(sock, location, route.proxy, budget)
    except BaseException:
        sock.close()
        raise
    return sock


def _tunnel(sock: socket.socket, location: Location, proxy: Proxy, budget: Deadline) -> None:
    """Ask the proxy for a tunnel (RFC 9110, 9.3.6).

    In TLS the client sends first, so the reader can't consume bytes that belong to the tunnel.
    """
    from http.client import HTTPResponse

    where = location.netloc if location.port != HTTPS_PORT else f"{location.netloc}:{HTTPS_PORT}"
    request = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n"
    if proxy.credentials:
        request += f"Proxy-Authorization: Basic {proxy.credentials}\r\n"
    send(sock, f"{request}\r\n".encode("ascii"), budget)
    with DeadlineReader(sock, budget) as reader:
        response = HTTPResponse(cast(socket.socket, reader), method="CONNECT")
        try:
            response.begin()
        finally:
            response.close()
    if response.status != 200:
        raise Failure(ProbeState.DOWN, f"the proxy {proxy.host} answers {response.status}")
