"""Decides which client address, scheme and host of a request to trust."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from gridup_node.guard.refusals import Refusal

ASK_AGAIN_SECONDS = 10.0
ASK_SECONDS = 2.0
"""How long a request waits for the first answer of a name server."""
OWN_NAMES = frozenset({"localhost"})
BY_SOCKET = ("", 0)
"""The client address and port of a request on the node's own socket."""


class Origins:
    """Trusts only the reverse proxy about the client and the scheme of a request.

    Args:
        proxies: the reverse proxy's addresses, or the name of its host. Requests on the node's own socket,
            which have no address, are trusted as well: only the node's own user can reach it.
        names: returns the host names that requests may ask for. An IP address is always allowed: a page that
            rebinds its name to this node's address still sends its own name.
    """

    def __init__(
        self,
        proxies: Sequence[str],
        names: Callable[[], frozenset[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proxies, self._names, self._clock = proxies, names, clock
        self._fixed = frozenset(filter(None, map(_address, proxies)))
        self._hosts = [one for one in proxies if not _address(one)]
        self._known: tuple[float, frozenset[str]] | None = None
        self._asking: asyncio.Future[frozenset[str]] | None = None

    async def resolve(self, scope: Any) -> Any:
        """Return the scope with the address and scheme of the client in front of the reverse proxy.

        Raises:
            Refusal: the request asks for a host that is not this node.
        """
        headers = scope["headers"]
        hosts = _all(headers, b"host")
        if len(hosts) != 1 or not self._is_ours(_host(hosts[0])):
            raise Refusal(421, "this node has another name")
        client = scope.get("client") or BY_SOCKET
        if client != BY_SOCKET and not await self._is_proxy(client[0]):
            return scope
        changed = dict(scope)
        # The reverse proxy replaces these headers. It sets one address: the last one that it can trust.
        forwarded = _all(headers, b"x-forwarded-for")
        if forwarded:
            changed["client"] = (_address(forwarded[-1].split(",")[0]) or client[0], client[1])
        if _all(headers, b"x-forwarded-proto") == ["https"]:
            changed["scheme"] = "https"
        return changed

    def check_origin(self, scope: Any) -> None:
        """Refuse a request that a browser sends for another site (CSRF).

        Raises:
            Refusal: the page that sends the request is not this node's.
        """
        site = _all(scope["headers"], b"sec-fetch-site")
        if site in (["same-origin"], ["none"]):
            # A page can't set this header: the browser does. Some browsers then send `null` as the origin.
            return
        if site:
            raise Refusal(403, "another site's page sent this")
        for origin in _all(scope["headers"], b"origin"):
            if _site(origin) != _all(scope["headers"], b"host")[0]:
                raise Refusal(403, "another site's page sent this")

    def _is_ours(self, host: str) -> bool:
        # The node's own programs use the internal name of the reverse proxy.
        return host in OWN_NAMES or host in self._proxies or bool(_address(host)) or host in self._names()

    async def _is_proxy(self, address: str) -> bool:
        return address in self._fixed or (bool(self._hosts) and address in await self._addresses())

    async def _addresses(self) -> frozenset[str]:
        """Return the addresses of the reverse proxy's host names.

        A silent name server delays a request only for a short time.
        """
        now = self._clock()
        if self._asking is None and (self._known is None or now - self._known[0] > ASK_AGAIN_SECONDS):
            loop = asyncio.get_running_loop()
            self._asking = loop.run_in_executor(None, _all_addresses, self._hosts)
            self._asking.add_done_callback(self._told)
        if self._known is None and self._asking is not None:
            await asyncio.wait({self._asking}, timeout=ASK_SECONDS)
        return self._known[1] if self._known else frozenset()

    def _told(self, asking: asyncio.Future[frozenset[str]]) -> None:
        self._asking = None
        if not asking.cancelled() and asking.exception() is None:
            self._known = (self._clock(), asking.result())


def _all(headers: Any, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key == name]


def _host(header: str) -> str:
    """Return the host of a Host header (RFC 9110, section 7.2), without its port, in lower case."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _site(origin: str) -> str:
    """Return the host and port of an Origin header; empty if the header is invalid."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip().strip("[]")))
    except ValueError:
        return ""


def _all_addresses(hosts: Sequence[str]) -> frozenset[str]:
    found: set[str] = set()
    for one in hosts:
        try:
            rows = socket.getaddrinfo(one, None, type=socket.SOCK_STREAM)
        except OSError:
            continue
        found.update(str(row[4][0]) for row in rows)
    return frozenset(found)
