"""Repeats probes until the node is healthy or the time is over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from gridup.probes.model import Endpoint, ProbeResult, healthy
from gridup.probes.run import host_result, probe_all
from gridup_node.services import ProbeKind

FIRST_PAUSE = 0.15
"""Seconds between the first rounds: a warm node is up in a few seconds, and the wait time is measured."""

LONGEST_PAUSE = 3.0

SHARE = 0.04
"""A pause is this share of the elapsed time, so that a wait is at most about 5 % too long."""

LEAST_ROUND = 0.5
"""Minimum seconds for a round. With less time, slow answers would count as timeouts."""

LAST_ROUND = 2.0
"""Maximum seconds for the final round after the time is over."""

Probe = Callable[[Sequence[Endpoint], float], list[ProbeResult]]


def wait_for(
    endpoints: Sequence[Endpoint],
    timeout: float,
    probe_timeout: float = 5.0,
    on_round: Callable[[list[ProbeResult]], None] | None = None,
    stop_early: Callable[[], str | None] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[], float] = random.random,
    probe: Probe = probe_all,
) -> list[ProbeResult]:
    """Probe until the node is `healthy` or `timeout` seconds are over.

    `healthy`: all offered services that are open to this machine are up.

    An endpoint that is up is not probed again until the others are up too, because sshd (OpenSSH 9.8 and
    later, PerSourcePenalties) blocks an address that connects often without logging in. The returned
    results are always those of one last round over all endpoints, unless `stop_early` ended the wait.

    Args:
        timeout: seconds. The wait returns at most 2.5 s after this time. It returns earlier only if the
            node is healthy or `stop_early` ends the wait.
        probe_timeout: seconds for each probe.
        on_round: called after each round with the current results.
        stop_early: called after each round. If it returns a reason, the wait ends with the current results.
        jitter: returns a number from 0 to 1.
    """
    begin = clock()
    end = begin + timeout
    results = _round(endpoints, _first(timeout, probe_timeout), probe, on_round)
    whole = True
    while True:
        if healthy(results):
            if whole:
                return results
            # The endpoints were proven at different times. Probe all of them once together.
            results = _round(endpoints, min(probe_timeout, max(end - clock(), LAST_ROUND)), probe, on_round)
            whole = True
            if healthy(results):
                return results
        if stop_early and stop_early():
            return results
        left = end - clock()
        if left <= 0 and whole:
            return results
        pause = _pause(clock() - begin, jitter())
        if left - pause < LEAST_ROUND:
            sleep(max(0.0, left))
            return _round(endpoints, min(probe_timeout, LAST_ROUND), probe, on_round)
        sleep(pause)
        results = _again(results, min(probe_timeout, left - pause), probe)
        whole = False
        if on_round:
            on_round(results)


def _first(timeout: float, probe_timeout: float) -> float:
    return min(probe_timeout, max(timeout, LAST_ROUND))


def _pause(elapsed: float, jitter: float) -> float:
    return min(max(FIRST_PAUSE, elapsed * SHARE), LONGEST_PAUSE) * (0.75 + jitter / 2)


def _round(
    endpoints: Sequence[Endpoint],
    timeout: float,
    probe: Probe,
    on_round: Callable[[list[ProbeResult]], None] | None,
) -> list[ProbeResult]:
    results = probe(endpoints, timeout)
    if on_round:
        on_round(results)
    return results


def _again(results: Sequence[ProbeResult], timeout: float, probe: Probe) -> list[ProbeResult]:
    """Probe again the endpoints that are not up. Host rows are derived from old and new results together."""
    open_ones = [r.endpoint for r in results if not r.up and r.endpoint.proof is not ProbeKind.ANY]
    fresh = iter(probe(open_ones, timeout))
    merged = [r if r.up or r.endpoint.proof is ProbeKind.ANY else next(fresh) for r in results]
    return [
        host_result(r.endpoint, merged) if r.endpoint.proof is ProbeKind.ANY and r.endpoint.offered else r
        for r in merged
    ]
