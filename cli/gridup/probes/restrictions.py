"""Decides whether a silent port is closed only to this machine's address.

This machine's public address is looked up only when a result depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gridup.probes.model import ProbeResult, ProbeState
from gridup.probes.run import host_result
from gridup.public_ip import in_any
from gridup_node.services import ProbeKind


def reclassify(results: Sequence[ProbeResult], own: Callable[[], str | None]) -> list[ProbeResult]:
    """Return the results, with RESTRICTED changed to TIMEOUT if this machine's address is allowed.

    Args:
        own: returns the public address of this machine, or None if it is not known. It is called only if
            a result depends on it.
    """
    closed = [r for r in results if r.state is ProbeState.RESTRICTED and r.endpoint.open_to]
    address = own() if any(r.endpoint.proof is not ProbeKind.ANY for r in closed) else None
    if address is None:
        return list(results)
    told = [_silent(r) if r in closed and in_any(address, r.endpoint.open_to) else r for r in results]
    return [
        host_result(r.endpoint, told) if r.endpoint.proof is ProbeKind.ANY and r.endpoint.offered else r
        for r in told
    ]


def _silent(result: ProbeResult) -> ProbeResult:
    detail = "no answer from this address"
    return ProbeResult(result.endpoint, ProbeState.TIMEOUT, detail, seconds=result.seconds)
