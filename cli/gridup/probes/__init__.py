"""Probes: check that each endpoint of a node answers as the expected service, within one deadline.

    endpoints_for_node(outputs)         the endpoints of a node that Gridup deployed
    endpoints_for_host("host[:port]")   the endpoints of a node that Gridup did not deploy
    probe_all(endpoints, timeout)       one round: probe all endpoints at the same time
    wait_for(endpoints, timeout)        repeat rounds until the node is healthy or the time is over
    reclassify(results, own)            correct RESTRICTED results if this machine's address has access
    healthy, all_up, summary, to_json   evaluate the results

Each probe runs on a daemon thread and uses the sockets of the standard library. There are two reasons. No
http library offers one deadline over name resolution, connect, TLS, headers and body together. And Python
joins the threads of an executor at exit, so a name resolution that hangs would keep the process alive.
"""

from __future__ import annotations

from gridup.probes.address import Address, endpoints_for_host, endpoints_for_node, parse_address
from gridup.probes.model import (
    Endpoint,
    ProbeResult,
    ProbeState,
    all_up,
    healthy,
    summary,
    to_json,
)
from gridup.probes.restrictions import reclassify
from gridup.probes.run import probe_all
from gridup.probes.wait import wait_for

__all__ = [
    "Address",
    "Endpoint",
    "ProbeResult",
    "ProbeState",
    "all_up",
    "endpoints_for_host",
    "endpoints_for_node",
    "healthy",
    "parse_address",
    "probe_all",
    "reclassify",
    "summary",
    "to_json",
    "wait_for",
]
