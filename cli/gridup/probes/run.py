"""All probes at once, each under one total deadline, on threads that never keep the process alive."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gridup.probes.model import Endpoint, ProbeResult, ProbeState
from gridup.probes.verifiers import (
    FORMER,
    FORMER_API,
    FORMER_NOTE,
    Finding,
    by_way,
    join_notes,
    socket_error,
    verify,
)
from gridup.probes.web import Proxy, Route, proxy_for
from gridup.probes.wire import Deadline, Failure, Phase, resolve
from gridup_node.services import ProbeKind

WORKERS = 256
"""Probes under way at once. Each holds a socket or two; a process may often have only 1,024 files."""

STAGGER = 0.25
"""Seconds an address has for itself before the name's next one is tried too (RFC 8305's figure)."""

GRACE = 0.25
"""Seconds past the deadline in which threads that end by themselves may still report."""


@dataclass
class _Job:
    index: int
    endpoint: Endpoint
    budget: Deadline
    started: float | None = None


@dataclass(frozen=True)
class _Done:
    index: int
    finding: Finding | Exception
    seconds: float


def probe_all(
    endpoints: Sequence[Endpoint], timeout: float, *, clock: Callable[[], float] = time.monotonic
) -> list[ProbeResult]:
    """Look once at every endpoint; the results are in the endpoints' order.

    Returns within `timeout` + 0.5 s however many there are and whatever they do. A thread that still
    waits for the system's resolver then is left behind; it does not keep the process from ending.

    Args:
        timeout: seconds for each probe in all: look-up, connect, TLS, redirects, answer.
    """
    # Imported before any thread asks for it and before the time begins: its cost is paid once, outside both.
    import http.client  # noqa: F401

    begin = clock()
    findings: dict[int, tuple[Finding, float]] = {}
    jobs = [
        _Job(index, endpoint, Deadline(begin + timeout, timeout, clock))
        for index, endpoint in enumerate(endpoints)
        if endpoint.offered and endpoint.proof is not ProbeKind.ANY
    ]
    done = _start(jobs, clock)
    while len(findings) < len(jobs):
        # What has come is taken, however late it is on a busy machine: it knows more than "cut off".
        left = max(0.0, begin + timeout + GRACE - clock())
        try:
            report = done.get(timeout=left)
        except queue.Empty:
            break
        if isinstance(report.finding, Exception):
            raise report.finding
        findings[report.index] = report.finding, report.seconds
    for job in jobs:
        if job.index not in findings:
            findings[job.index] = _cut_off(job), clock() - begin
    return _with_hosts(endpoints, findings)


def _start(jobs: Sequence[_Job], clock: Callable[[], float]) -> queue.SimpleQueue[_Done]:
    pending: queue.SimpleQueue[_Job] = queue.SimpleQueue()
    done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
    for job in jobs:
        pending.put(job)

    def work() -> None:
        while True:
            try:
                job = pending.get_nowait()
            except queue.Empty:
                return
            job.started = clock()
            try:
                finding = _examine(job.endpoint, job.budget)
            except Exception as bug:  # noqa: BLE001 - raised again in the caller's thread
                done.put(_Done(job.index, bug, clock() - job.started))
            else:
                done.put(_Done(job.index, finding, clock() - job.started))

    for number in range(min(len(jobs), WORKERS)):
        threading.Thread(target=work, name=f"gridup-probe-{number}", daemon=True).start()
    return done


def _cut_off(job: _Job) -> Finding:
    if job.started is None or job.started >= job.budget.end:
        return _untried(job.budget)
    return _timed_out(job.endpoint, job.budget)


def _untried(budget: Deadline) -> Finding:
    detail = f"too many probes: not tried in {budget.seconds:g} s"
    return Finding(ProbeState.TIMEOUT, detail, reached=False)


def _examine(endpoint: Endpoint, budget: Deadline) -> Finding:
    """One endpoint, by each of its addresses until one proves it."""
    if budget.clock() >= budget.end:
        return _untried(budget)
    if endpoint.way:
        return by_way(endpoint, budget)
    proxy = None
    try:
        if endpoint.proof is not ProbeKind.SSH_BANNER:
            proxy = proxy_for(endpoint.tls, endpoint.host)
        targets = resolve(proxy.host if proxy else endpoint.host)
        routes = [Route(target, proxy, endpoint.trust) for target in targets]
    except Failure as failure:
        return Finding(failure.state, failure.detail, reached=False)
    except (OSError, UnicodeError) as error:
        return Finding(ProbeState.DOWN, _lookup_error(error, proxy), reached=False)
    if len(routes) == 1:
        return _attempt(endpoint, routes[0], budget)
    return _happy_eyeballs(endpoint, routes, budget)


def _lookup_error(error: OSError | UnicodeError, proxy: Proxy | None) -> str:
    said = socket_error(error) if isinstance(error, OSError) else "this is no host name"
    return f"the proxy {proxy.host}: {said}" if proxy else said


def _happy_eyeballs(endpoint: Endpoint, routes: Sequence[Route], budget: Deadline) -> Finding:
    """The next address starts when the one before has failed, or after a moment ("happy eyeballs").

    They run on side by side: the first may take a connection and say nothing while the second is up.
    """
    found: queue.SimpleQueue[tuple[int, Finding | Exception]] = queue.SimpleQueue()

    def run(index: int, own: Deadline) -> None:
        try:
            found.put((index, _attempt(endpoint, routes[index], own)))
        except Exception as bug:  # noqa: BLE001 - raised again by the one who waits
            found.put((index, bug))

    budgets: list[Deadline] = []
    failed: dict[int, Finding] = {}
    while len(failed) < len(routes):
        if len(budgets) < len(routes):
            budgets.append(budget.fork())
            started = (len(budgets) - 1, budgets[-1])
            threading.Thread(target=run, args=started, name="gridup-probe-address", daemon=True).start()
        # A little more than the attempts have, so that they report by themselves.
        left = max(0.0, budget.end + GRACE / 2 - budget.clock())
        try:
            index, finding = found.get(timeout=left if len(budgets) == len(routes) else min(STAGGER, left))
        except queue.Empty:
            if left > 0:
                continue
            break
        if isinstance(finding, Exception):
            raise finding
        if finding.state is ProbeState.UP:
            return finding
        failed[index] = finding
    late = [_timed_out(endpoint, own) for index, own in enumerate(budgets) if index not in failed]
    return max([*failed.values(), *late], key=_tells)


_TELLING = {
    True: (ProbeState.TIMEOUT, ProbeState.RESTRICTED, ProbeState.DOWN, ProbeState.NOT_READY),
    # A silent address says more than another family's refusal or "no route".
    False: (ProbeState.NOT_READY, ProbeState.DOWN, ProbeState.TIMEOUT, ProbeState.RESTRICTED),
}


def _tells(finding: Finding) -> tuple[bool, int]:
    """Of several failures, the one that got furthest says most: an answer before a refusal."""
    return finding.reached, _TELLING[finding.reached].index(finding.state)


def _attempt(endpoint: Endpoint, route: Route, budget: Deadline) -> Finding:
    finding = _try(endpoint, route, budget)
    if not route.proxy:
        return finding
    return replace(
        finding, note=", ".join(filter(None, [finding.note, f"through the proxy {route.proxy.host}"]))
    )


def _try(endpoint: Endpoint, route: Route, budget: Deadline) -> Finding:
    import ssl
    from http.client import HTTPException, IncompleteRead

    try:
        return verify(endpoint, route, budget)
    except Failure as failure:
        return Finding(failure.state, failure.detail)
    except TimeoutError:
        return _timed_out(endpoint, budget)
    except ssl.SSLError as error:
        return _tls_failed(error)
    except IncompleteRead:
        return Finding(ProbeState.NOT_READY, "the answer broke off")
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
        return Finding(ProbeState.NOT_READY, f"closed the connection: the {endpoint.title} may be starting")
    except OSError as error:
        return _no_connection(endpoint, error, budget)
    except HTTPException:
        return Finding(ProbeState.DOWN, "answered, but not in http")


def _tls_failed(error: Exception) -> Finding:
    reason = str(getattr(error, "reason", "") or "")
    if "WRONG_VERSION" in reason or "HTTP_REQUEST" in reason:
        return Finding(ProbeState.DOWN, "answered, but not in https")
    if "EOF" in reason or not reason:
        return Finding(ProbeState.NOT_READY, "closed the connection before TLS began")
    if "ALERT_INTERNAL_ERROR" in reason:  # Caddy's answer while it has no certificate yet.
        return Finding(ProbeState.NOT_READY, "has no certificate yet")
    return Finding(ProbeState.DOWN, f"TLS failed: {reason.replace('_', ' ').lower()}")


def _no_connection(endpoint: Endpoint, error: OSError, budget: Deadline) -> Finding:
    refused = isinstance(error, ConnectionRefusedError)
    if endpoint.restricted and not refused and not budget.reached:
        return Finding(ProbeState.RESTRICTED, endpoint.restricted, reached=False)
    return Finding(ProbeState.DOWN, socket_error(error) + budget.where(), reached=budget.reached)


def _timed_out(endpoint: Endpoint, budget: Deadline) -> Finding:
    if endpoint.restricted and budget.phase is Phase.CONNECT and not budget.reached:
        return Finding(ProbeState.RESTRICTED, endpoint.restricted, reached=False)
    detail = f"{budget.phase.value} in {budget.seconds:g} s{budget.where()}"
    return Finding(ProbeState.TIMEOUT, detail, reached=budget.reached)


def _with_hosts(
    endpoints: Sequence[Endpoint], findings: dict[int, tuple[Finding, float]]
) -> list[ProbeResult]:
    """The results in order; a host row follows from its node's other rows."""
    results: list[ProbeResult | None] = [None] * len(endpoints)
    for index, endpoint in enumerate(endpoints):
        if not endpoint.offered:
            results[index] = ProbeResult(endpoint, ProbeState.NOT_OFFERED, endpoint.reason)
        elif index in findings:
            finding, seconds = findings[index]
            results[index] = ProbeResult(
                endpoint, finding.state, finding.detail, finding.note, seconds, finding.facts
            )
    results = [result and _of_former(result, findings, endpoints) for result in results]
    proven = [result for result in results if result]
    return [result or host_result(endpoints[index], proven) for index, result in enumerate(results)]


def _of_former(
    result: ProbeResult, findings: dict[int, tuple[Finding, float]], endpoints: Sequence[Endpoint]
) -> ProbeResult:
    """A result, of a node that HAGrid deployed: its api has another address, and its UI is that node's."""
    endpoint = result.endpoint
    former = any(
        finding.facts.get(FORMER)
        and finding.state is ProbeState.UP
        and endpoints[index].host == endpoint.host
        for index, (finding, _) in findings.items()
    )
    if not former or not result.facts.get(FORMER):
        return result
    if endpoint.proof is ProbeKind.SYFT_METADATA:
        head, _, _ = endpoint.url.partition("/api/")
        return replace(result, endpoint=replace(endpoint, url=f"{head}{FORMER_API}"))
    note = join_notes(FORMER_NOTE, result.note)
    return replace(result, state=ProbeState.UP, detail="", note=note, facts={})


_HOST_FAILURES = (ProbeState.NOT_READY, ProbeState.RESTRICTED, ProbeState.TIMEOUT, ProbeState.DOWN)


def host_result(endpoint: Endpoint, results: Sequence[ProbeResult]) -> ProbeResult:
    """The host row: up when a service of the same node, at the same host, is proven."""
    group = (endpoint.node, endpoint.host)
    mine = [
        r
        for r in results
        if (r.endpoint.node, r.endpoint.host) == group and r.endpoint.proof is not ProbeKind.ANY
    ]
    seconds = max((r.seconds for r in mine), default=0.0)
    up = [r.endpoint.title for r in mine if r.up]
    if up:
        return ProbeResult(endpoint, ProbeState.UP, f"proven by its {', '.join(up)}", seconds=seconds)
    states = {r.state for r in mine}
    state = next((s for s in _HOST_FAILURES if s in states), ProbeState.DOWN)
    closed = state is ProbeState.RESTRICTED
    detail = "nothing can be told from here" if closed else "none of its services is proven"
    return ProbeResult(endpoint, state, detail, seconds=seconds)
