"""Runs all probes at the same time, each under one total deadline, on threads that never block the exit."""

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
"""Probes that run at the same time. Each uses a socket or two; the limit is often 1,024 files per process."""

STAGGER = 0.25
"""Seconds after which the next address of the name is also tried (the value of RFC 8305)."""

GRACE = 0.25
"""Seconds after the deadline in which threads may still report their results."""


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
    """Probe every endpoint once. The results are in the order of the endpoints.

    Returns within `timeout` + 0.5 s, however many endpoints there are and whatever they do. A thread that
    still waits for the system's resolver is abandoned; it does not prevent the process from ending.

    Args:
        timeout: seconds for each probe in total: name resolution, connect, TLS, redirects, answer.
    """
    # Import it here, before the threads start and before the time begins, so that no probe pays for it.
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
        # Accept a result even if it is late, as on a busy machine: it says more than `_cut_off`.
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
    """Probe one endpoint at each of its addresses until one succeeds."""
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
    """Try several addresses in parallel ("happy eyeballs").

    Return the first success, or else the failure that got furthest.

    The next attempt starts when an earlier one fails, or after `STAGGER` seconds. Earlier attempts continue:
    the first address may accept the connection and stay silent while the second one is up.
    """
    found: queue.SimpleQueue[tuple[int, Finding | Exception]] = queue.SimpleQueue()

    def run(index: int, own: Deadline) -> None:
        try:
            found.put((index, _attempt(endpoint, routes[index], own)))
        except Exception as bug:  # noqa: BLE001 - raised again in the waiting thread
            found.put((index, bug))

    budgets: list[Deadline] = []
    failed: dict[int, Finding] = {}
    while len(failed) < len(routes):
        if len(budgets) < len(routes):
            budgets.append(budget.fork())
            started = (len(budgets) - 1, budgets[-1])
            threading.Thread(target=run, args=started, name="gridup-probe-address", daemon=True).start()
        # Wait a little longer than the attempts' deadline, so that they can report themselves.
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
    # A silent address is more informative than a refusal or "no route" from the other address family.
    False: (ProbeState.NOT_READY, ProbeState.DOWN, ProbeState.TIMEOUT, ProbeState.RESTRICTED),
}


def _tells(finding: Finding) -> tuple[bool, int]:
    """Sort key: the failure that got furthest says most, for example an answer says more than a refusal."""
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
    if "ALERT_INTERNAL_ERROR" in reason:  # Caddy sends this while it has no certificate yet.
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
    """Return the results in order. A host row's result is derived from its node's other rows."""
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
    """Adapt a result if HAGrid deployed the node: its api has another address, and its UI counts as up.

    The UI of such a node proves nothing itself. It counts as up if the api at the same host proves HAGrid.
    """
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
    """Return the host row's result: up if a service of the same node at the same host is up."""
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
