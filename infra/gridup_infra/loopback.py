"""Whether an address is this machine's own: what goes there is seen by nobody on a network."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, as it stands in an address, is a loopback one; of names only `localhost` is."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
