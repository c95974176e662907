"""Probes: does each endpoint of a node answer as itself, and within one deadline?

    endpoints_for_node(outputs)      what to probe on a node that Gridup deployed
    endpoints_for_host("host[:port]") the same for one that it never deployed
    probe_all(endpoints, timeout)    one look, all at once
    wait_for(endpoints, timeout)     look until everything is up, or the time is over
    settled(results, own_address)    which of the silent are only closed to us
    healthy, all_up, summary, to_json   what to make of the results

Every probe runs on a daemon thread with the standard library's own sockets: no http library has
a deadline over name look-up, connect, TLS, headers and body together, and an executor's threads
are joined at exit, where a hanging name look-up would keep the process alive.
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
