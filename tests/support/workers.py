"""Workers: processes of pytest-xdist that run tests at the same time. Here is what two must not share."""

from __future__ import annotations

import os

MOST = 6
"""Workers of one run."""

SHARE = 40
"""Public addresses of one worker in each network."""

AWS_NETWORK, AZURE_NETWORK = "203.0.113", "192.0.2"
"""The networks that the emulated clouds have public addresses from. RFC 5737 sets them aside: they are
nobody's, until the hypervisor gives one of their addresses to a machine."""


def number() -> int:
    """This worker's number; 0 where the tests do not run in workers."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % MOST


def public_address(network: str, index: int) -> str:
    """An address of this worker's share of a network; the same one again after `SHARE` of them."""
    return f"{network}.{10 + number() * SHARE + index % SHARE}"
