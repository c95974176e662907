"""What the node connects to at another node's word, and how much of the answer it takes. For `holes`."""

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
"""What no container reaches either, and IPv6's link-local addresses."""
LARGEST_ANSWER, PART = 16 * 1024 * 1024, 64 * 1024
"""Bytes of what another node says of itself and of what may be called there, and what is taken at a time."""
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
"""The latter for what nodes ask in their own name; an account's call that is passed on may take hours."""


class NotThere(Exception):
    """The node does not connect to this address, or does not take this answer."""

    def __init__(self) -> None:
        super().__init__("the node does not connect there")


def close() -> None:
    """Have syft's client in this process use what is here.

    Raises:
        AttributeError: this syft has something elsewhere.
    """
    from syft.client import client

    if client.requests is not requests and not isinstance(client.requests, _Requests):
        raise AttributeError("syft's way to other nodes")
    client.requests, client.HTTPAdapter = _Requests(), Adapter


def is_loopback(host: str) -> bool:
    """Whether a host says itself that it is the machine that asks."""
    return host.lower().rstrip(".") == "localhost" or _is_own(_address(host))


def may_lead(route: Any, known: Sequence[Any], seen: bool) -> bool:
    """Whether a node may say that it is found by this route.

    Args:
        known: its routes so far.
        seen: whether an administrator looks at it before the node connects there.
    """
    # A tunnel is asked for by the name of our own reverse proxy.
    return route.rtunnel_token is None and (seen or route in known or not is_loopback(route.host_or_ip))


class _Requests:
    """The module as syft uses it, with sessions of ours."""

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
    """Follows no redirect, and takes no more of an answer than may be built of it."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, Adapter())

    def request(self, *args: Any, **more: Any) -> requests.Response:
        return super().request(*args, **{**more, "allow_redirects": False})

    def send(self, request: Any, **more: Any) -> requests.Response:
        # By a site's own proxy, too, which the connection is to.
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
    """Looks at each address that was connected to, before anything is sent there.

    What a name leads to may change between two looks; what a connection is to does not. A site's own proxy
    is connected to as it is configured.
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
    """The address that a text is, in whatever form the system's own functions take; None for a name."""
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
    # The unspecified one leads to the machine itself.
    return address is not None and (address.is_loopback or address.is_unspecified)
