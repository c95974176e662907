"""Look again and again until everything is up, or the time is over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from gridup.probes.model import Endpoint, ProbeResult, healthy
from gridup.probes.run import host_result, probe_all
from gridup_node.services import ProbeKind

FIRST_PAUSE = 0.15
"""Seconds between the first rounds: a warm node is up in a few seconds, and the wait is measured."""

LONGEST_PAUSE = 3.0

SHARE = 0.04
"""Pauses grow to this share of the time gone by, so that a wait overshoots by some 5 % at most."""

LEAST_ROUND = 0.5
"""Seconds; a round with less time than this would call slow answers late."""

LAST_ROUND = 2.0
"""Seconds at most for the round that is reported once the time is over."""

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
    """Probe until the node is `healthy` (all that is offered and open to us is up) or `timeout` ends.

    What has been proven is left in peace until the rest is too, since sshd (OpenSSH 9.8 and up,
    PerSourcePenalties) shuts out an address that keeps connecting without logging in. What is
    returned is always one round over all endpoints, the last one made, unless `stop_early` ended it.

    Args:
        timeout: seconds; the wait returns at most 2.5 s after them, and never before, unless it is
            done or stopped.
        probe_timeout: seconds for each probe.
        on_round: told what is known so far after each round.
        stop_early: asked after each round; a reason ends the wait with what is known so far.
        jitter: a number from 0 to 1.
    """
    begin = clock()
    end = begin + timeout
    results = _round(endpoints, _first(timeout, probe_timeout), probe, on_round)
    whole = True
    while True:
        if healthy(results):
            if whole:
                return results
            # They were proven at different times: one look at all of them together.
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
    """Probe what is not proven; the host rows follow from old and new results together."""
    open_ones = [r.endpoint for r in results if not r.up and r.endpoint.proof is not ProbeKind.ANY]
    fresh = iter(probe(open_ones, timeout))
    merged = [r if r.up or r.endpoint.proof is ProbeKind.ANY else next(fresh) for r in results]
    return [
        host_result(r.endpoint, merged) if r.endpoint.proof is ProbeKind.ANY and r.endpoint.offered else r
        for r in merged
    ]
