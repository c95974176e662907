"""Workers: processes of pytest-xdist that run tests at the same time. Here is what two must not share."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

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


FIRST_PORT, PORTS = 20_000, 1_000
"""Each worker's share of ports. They are below those that the system gives to connections by itself."""

_next = itertools.count(os.getpid() * 7)


def free_port(host: str = "127.0.0.1") -> int:
    """A port where nobody listens, and which no other worker is given.

    Not one that the system chooses: it may give the same to somebody else before the test's server listens.
    """
    for index in itertools.islice(_next, PORTS):
        port = FIRST_PORT + number() * PORTS + index % PORTS
        with (
            socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe,
            contextlib.suppress(OSError),
        ):
            probe.bind((host, port))
            return port
    raise RuntimeError("every port of this worker is in use")
