"""The address that the internet sees this machine at: whom ssh and jupyter are opened to by default."""

from __future__ import annotations

import ipaddress
import queue
import threading
from collections.abc import Mapping

VARIABLE = "GRIDUP_CHECK_IP_URL"
"""Names another service that answers with the caller's address as plain text."""

DEFAULT_URL = "https://checkip.amazonaws.com"

SECONDS = 5.0
"""For the look-up, the connection and the answer together."""

LONGEST = 64
"""Bytes of an answer; an IPv6 address has 39 at most."""


def url(environment: Mapping[str, str]) -> str:
    """The service to ask."""
    return environment.get(VARIABLE) or DEFAULT_URL


def ask(url: str, seconds: float = SECONDS) -> str | None:
    """The address that `url` sees us at; None when it does not tell one in time."""
    found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    # A thread that may be left behind: no http library has a deadline over the whole of a request.
    threading.Thread(target=lambda: found.put(_ask(url, seconds)), name="gridup-address", daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return None


def _ask(url: str, seconds: float) -> str | None:
    import requests

    session = requests.Session()
    # What ssh will come from, which uses no proxy.
    session.trust_env = False
    try:
        with session.get(url, timeout=seconds, stream=True) as answer:
            if answer.status_code != 200:
                return None
            text = next(answer.iter_content(LONGEST), b"").decode("ascii")
            address = ipaddress.ip_address(text.strip())
    except (requests.RequestException, ValueError):
        return None
    # A node has no IPv6 address, so nobody comes to it from one.
    wrong = address.version != 4 or address.is_unspecified or address.is_multicast
    return None if wrong else str(address)


def proxy(environment: Mapping[str, str]) -> str:
    """The variable that names a proxy for what leaves this machine; empty where none does."""
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    return next((name for name in names if environment.get(name)), "")


def network(address: str) -> str:
    """The network of that address alone, as `--allow-cidr` takes it."""
    return str(ipaddress.ip_network(address))


def in_any(address: str, networks: tuple[str, ...]) -> bool:
    """Whether the address is in one of the networks."""
    own = ipaddress.ip_address(address)
    return any(own in ipaddress.ip_network(each) for each in networks)
