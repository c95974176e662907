"""Finds this machine's public address. By default ssh and jupyter are open to this address only."""

from __future__ import annotations

import ipaddress
import queue
import threading
from collections.abc import Mapping

VARIABLE = "GRIDUP_CHECK_IP_URL"
"""Environment variable: URL of another service that answers with the caller's address as plain text."""

DEFAULT_URL = "https://checkip.amazonaws.com"

SECONDS = 5.0
"""Limit in seconds for name resolution, connection and answer together."""

LONGEST = 64
"""Maximum size of an answer, in bytes; an IPv6 address has at most 39."""


def url(environment: Mapping[str, str]) -> str:
    """Return the URL of the service to ask."""
    return environment.get(VARIABLE) or DEFAULT_URL


def ask(url: str, seconds: float = SECONDS) -> str | None:
    """Return this machine's address as `url` sees it; None without a valid answer within `seconds`."""
    found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    # No http library limits the total time of a request. So it runs in a thread that may be abandoned.
    threading.Thread(target=lambda: found.put(_ask(url, seconds)), name="gridup-address", daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return None


def _ask(url: str, seconds: float) -> str | None:
    import requests

    session = requests.Session()
    # ssh uses no proxy, so ask without one: else the answer is the proxy's address.
    session.trust_env = False
    try:
        with session.get(url, timeout=seconds, stream=True) as answer:
            if answer.status_code != 200:
                return None
            text = next(answer.iter_content(LONGEST), b"").decode("ascii")
            address = ipaddress.ip_address(text.strip())
    except (requests.RequestException, ValueError):
        return None
    # A node has no IPv6 address, so no client reaches it from one.
    wrong = address.version != 4 or address.is_unspecified or address.is_multicast
    return None if wrong else str(address)


def proxy(environment: Mapping[str, str]) -> str:
    """Return the name of the environment variable that sets a proxy for this machine; empty if none does."""
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    return next((name for name in names if environment.get(name)), "")


def network(address: str) -> str:
    """Return the network that has only this address, in the form of `--allow-cidr`."""
    return str(ipaddress.ip_network(address))


def in_any(address: str, networks: tuple[str, ...]) -> bool:
    """Return whether the address is in one of the networks."""
    own = ipaddress.ip_address(address)
    return any(own in ipaddress.ip_network(each) for each in networks)
