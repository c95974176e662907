"""Recognises loopback addresses. Data sent to such an address does not leave the machine."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether the host part of an address is a loopback one. The only such name is `localhost`."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
