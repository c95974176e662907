"""Limits the node's connections to addresses that other nodes name, and the size of answers. For `holes`."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from gridup_node.guard import budget
from gridup_node.vm.shield import CLOSED, CLOSED_V6

NEVER = tuple(map(ipaddress.ip_network, (*CLOSED, *CLOSED_V6, "fe80::/10")))
"""Networks that containers can't reach either, and IPv6's link-local addresses."""
LARGEST_ANSWER, PART = 16 * 1024 * 1024, 64 * 1024
"""Bytes of another node's answer about itself and its methods, and of one read."""
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""Timeouts. The second is only for calls in the node's own name: a call of an account may take hours."""


class NotThere(Exception):
    """The node does not connect to this address, or refuses this answer."""

    def __init__(self) -> None:
        super().__init__("the node does not connect there")


def close() -> None:
    """Make syft's client in this process use the sessions and the adapter of this module.

    Raises:
        AttributeError: this syft version does not have the expected code.
    """
    from syft.client import client

    if client.requests is not requests and not isinstance(client.requests, _Requests):
        raise AttributeError("syft's way to other nodes")
    client.requests, client.HTTPAdapter = _Requests(), Adapter


def is_loopback(host: str) -> bool:
    """Whether the text of a host means the local machine: `localhost`, a loopback or unspecified address."""
    return host.lower().rstrip(".") == "localhost" or _is_own(_address(host))


def may_lead(route: Any, known: Sequence[Any], seen: bool) -> bool:
    """Whether another node may register this route to itself.

    Args:
        known: the routes of that node so far.
        seen: whether an administrator sees the route before this node connects there.
    """
    # A request for a tunnel uses the name of this node's own reverse proxy.
    return route.rtunnel_token is None and (seen or route in known or not is_loopback(route.host_or_ip))


class _Requests:
    """A stand-in for the `requests` module, with Gridup's sessions."""

    def __getattr__(self, name: str) -> Any:
        return getattr(requests, name)

    @staticmethod
    def Session() -> requests.Session:
        return _Session()

    @staticmethod
    def post(url: Any, **more: Any) -> requests.Response:
        with _Session() as session:
            return session.post(str(url), **more)


class _Session(requests.Session):
    """A session that follows no redirects and limits the size of answers."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, Adapter())

    def request(self, *args: Any, **more: Any) -> requests.Response:
        return super().request(*args, **{**more, "allow_redirects": False})

    def send(self, request: Any, **more: Any) -> requests.Response:
        # Check the URL too: behind a site's own proxy, the connection itself goes to the proxy.
        if _never(_address(urlsplit(request.url).hostname or "")):
            raise NotThere
        left = budget.current().left
        own = left <= budget.STRANGERS
        most, seconds = (LARGEST_ANSWER, ANSWER_SECONDS) if own else (left, None)
        given = {**more, "timeout": (CONNECT_SECONDS, seconds), "stream": True}
        answer: requests.Response = super().send(request, **given)
        if not more.get("stream"):
            found = bytearray()
            with answer:
                for part in answer.iter_content(PART):
                    found += part
                    if len(found) > most:
                        raise NotThere
            answer._content = bytes(found)
        return answer


class Adapter(HTTPAdapter):
    """An adapter that checks the address of each connection before it sends anything.

    A name may resolve to another address at each look-up, but an open connection keeps its address. The node
    connects to a site's own proxy as configured, without this check.
    """

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(self.host, super()._new_conn())


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(self.host, super()._new_conn())


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _checked(host: str, made: socket.socket) -> socket.socket:
    address = _address(made.getpeername()[0])
    if _never(address) or (_is_own(address) and not is_loopback(host)):
        made.close()
        raise NotThere
    return made


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> Address | None:
    """Parse an address in any form that the system's own functions accept. Return None for a name."""
    text = text.strip("[]").partition("%")[0]
    try:
        found: Address = ipaddress.ip_address(text)
    except ValueError:
        try:
            found = ipaddress.IPv4Address(socket.inet_aton(text))
        except (OSError, UnicodeError):
            return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _never(address: Address | None) -> bool:
    return address is not None and any(address in one for one in NEVER)


def _is_own(address: Address | None) -> bool:
    # The unspecified address leads to the local machine.
    return address is not None and (address.is_loopback or address.is_unspecified)
