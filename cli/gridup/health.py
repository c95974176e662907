"""Probes a node's endpoints, waits until all are healthy, and shows the table of results."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence

from gridup import probes
from gridup.probes.address import HTTPS_PORT
from gridup.reporter import Reporter
from gridup.ui import Ui
from gridup_infra.errors import (
    DeadlineError,
    FirstBootError,
    GridupError,
    PreflightError,
    ResourceError,
    StoppedError,
)
from gridup_infra.naming import typed
from gridup_infra.outputs import BEHIND, NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Target
from gridup_node.services import (
    PROXY,
    Audience,
    ProbeKind,
    Service,
    backends,
    inside_only,
    probed,
    service,
)

PROBE_SECONDS = 5.0
"""Limit for one round of probes, in seconds."""

INSIDE_SECONDS = 20.0
"""Limit for a command on the node, in seconds."""
UNKNOWN_SERVICE = "KeyError"
"""Part of the error output of the node's own health check for a service that is not in its service table."""

READY_PAUSE = 2.0
"""Seconds between two calls of `Target.ready`; each call may run a command on the node."""

Own = Callable[[], str | None]
"""Returns this machine's address as the internet sees it; None if it is unknown."""

MARKS = {
    probes.ProbeState.UP: "✅",
    probes.ProbeState.NOT_OFFERED: "➖",
    probes.ProbeState.RESTRICTED: "🔒",
}
BAD = "❌"


def endpoints(outputs: NodeOutputs) -> list[probes.Endpoint]:
    """Return the endpoints of a deployed node that can be probed."""
    return probes.endpoints_for_node(outputs, open_to=open_to(outputs.spec), way=_way(outputs))


def _way(outputs: NodeOutputs) -> tuple[str, ...]:
    """Return the argv of the program that leads to the node's ssh; empty if it is reached directly."""
    if BEHIND not in outputs.facts:
        return ()
    from gridup_infra.vm.access import door_of

    with contextlib.suppress(PreflightError):
        return door_of(outputs, "", "").way()
    return ()


def open_to(spec: DeploySpec) -> dict[str, tuple[str, ...]]:
    """Return service -> the networks that may reach it, without services that everybody may reach."""
    allowed = {Audience.WEB: spec.web_cidr, Audience.STAFF: spec.allow_cidr}
    found = {}
    for row in probed():
        audience = service(PROXY).audience if row.front_path else row.audience
        networks = allowed.get(audience, ())
        if networks and all(ipaddress.ip_network(network).prefixlen for network in networks):
            found[row.name] = networks
    return found


def look(endpoints: Sequence[probes.Endpoint], timeout: float, own: Own) -> list[probes.ProbeResult]:
    """Run one round of probes.

    Args:
        own: returns this machine's address; called only if an endpoint is silent that is not open to all.
    """
    return probes.reclassify(probes.probe_all(endpoints, timeout), own)


def inside(
    target: Target, outputs: NodeOutputs, seen: Sequence[probes.ProbeResult]
) -> list[probes.ProbeResult]:
    """Check the services that only the node itself can check, by a command on the node.

    The command's output becomes the note of the result.

    Args:
        seen: the probe results of the same node. If the node's main service does not answer from here, no
            command runs.
    """
    return [_asked(target, outputs, seen, row) for row in inside_only()]


def _asked(
    target: Target, outputs: NodeOutputs, seen: Sequence[probes.ProbeResult], row: Service
) -> probes.ProbeResult:
    reason = outputs.not_offered.get(row.name, "")
    endpoint = probes.Endpoint(
        service=row.name,
        title=row.title,
        url="within the node",
        proof=row.proof or ProbeKind.ANY,
        host="",
        port=0,
        offered=not reason,
        reason=reason,
        node=outputs.spec.name,
    )

    def told(state: probes.ProbeState, detail: str) -> probes.ProbeResult:
        return probes.ProbeResult(endpoint, state, detail)

    if reason:
        return told(probes.ProbeState.NOT_OFFERED, reason)
    main = backends()[0].name
    if not any(one.up for one in seen if one.endpoint.service == main):
        return told(probes.ProbeState.RESTRICTED, f"not asked: the {main} does not answer")
    began = time.monotonic()
    try:
        argv = ["python", "-m", "gridup_node.health", row.name]
        done = target.access(outputs).run(argv, timeout=INSIDE_SECONDS)
    except (GridupError, TimeoutError) as error:
        # Without access from here the state of the service is unknown: don't report it as down.
        why = error.message if isinstance(error, GridupError) else "no answer in time"
        return told(probes.ProbeState.RESTRICTED, f"can't be asked from here: {why}")
    line = " ".join(done.stdout.split())[:200]
    if not done.ok and UNKNOWN_SERVICE in done.stderr:
        again = "the node is of a Gridup that had none; deploy it again"
        return told(probes.ProbeState.NOT_OFFERED, again)
    if not done.ok:
        return told(probes.ProbeState.DOWN, line or "it does not answer")
    seconds = time.monotonic() - began
    return probes.ProbeResult(endpoint, probes.ProbeState.UP, note=line, seconds=seconds)


def show(
    ui: Ui, results: Sequence[probes.ProbeResult], title: str, outputs: NodeOutputs | None = None
) -> None:
    """Show the table of endpoints, in the form of the tutorial, with a remark on each problem.

    Args:
        outputs: the outputs of a node that Gridup deployed: its row for ssh shows the command `gridup ssh`.
    """
    rows = []
    for result in results:
        mark = MARKS.get(result.state, BAD)
        remark = result.note if result.up else result.detail
        info = result.endpoint.url
        if outputs and result.endpoint.proof is ProbeKind.SSH_BANNER:
            info = typed("ssh", outputs.spec.name) if result.endpoint.offered else ""
        rows.append([result.endpoint.title, info, f"{mark} {remark}".rstrip()])
    ui.table([title, "Info", ""], rows)


def ca_instructions(outputs: NodeOutputs) -> tuple[str, ...]:
    """Return lines that explain how a client trusts the node's own CA; empty if it has no CA of its own."""
    if not outputs.ca or outputs.not_offered.get("api"):
        return ()
    file = f"{outputs.spec.stack}-ca.pem"
    api = outputs.endpoints()["api"]
    url = api.url.partition("/api")[0]
    save = f"  {typed('outputs', outputs.spec.name, '--ca')} >{file}"
    if api.port != HTTPS_PORT:
        return (
            "Its certificate is from a CA of its own, for browsers to trust:",
            save,
            f"syft's client reaches https at port {HTTPS_PORT} alone, and this node has {api.port}. Give "
            f"--port {HTTPS_PORT} (as root) or, in a network that you trust, --plain-http.",
        )
    return (
        "Its certificate is from a CA of its own. Where a client of it runs, in Python:",
        save,
        f'  export REQUESTS_CA_BUNDLE="$PWD/{file}" SSL_CERT_FILE="$PWD/{file}"',
        f'  python -c \'import syft as sy; sy.login(url="{url}", email="…", password="…")\'',
    )


def wait_healthy(
    target: Target, outputs: NodeOutputs, reporter: Reporter, timeout: float, *, own: Own
) -> list[probes.ProbeResult]:
    """Wait until all probes of a node succeed and `Target.ready` is true.

    Args:
        timeout: seconds for all of it.
        own: returns this machine's address as the internet sees it.

    Raises:
        ResourceError: a service has ended for good, or the first boot has failed; the details have the end
            of the log.
        DeadlineError: not everything was up within `timeout` seconds.
    """
    wanted = endpoints(outputs)
    waiting: set[str] = set()
    hope = FailureLatch(lambda: target.terminal_failure(outputs))
    end = time.monotonic() + timeout

    def on_round(results: Sequence[probes.ProbeResult]) -> None:
        missing = {r.endpoint.service for r in results if not r.up and r.endpoint.offered} - {"proxy"}
        if missing and missing != waiting:
            reporter.step(f"Waiting for {', '.join(sorted(missing))}")
            waiting.clear()
            waiting.update(missing)

    with told_how_to_go_on(outputs.spec.name):
        results = probes.wait_for(
            wanted,
            timeout,
            PROBE_SECONDS,
            on_round=on_round,
            stop_early=hope.gone,
            probe=lambda these, seconds: look(these, seconds, own),
        )
    if not probes.healthy(results) and hope.gone() and hope.why:
        raise hope.why
    if not probes.healthy(results):
        down = ", ".join(
            f"{r.endpoint.title} ({r.detail})" for r in results if not r.up and r.endpoint.offered
        )
        raise DeadlineError(
            f'"{outputs.spec.name}" was not up within {timeout:g} s: {down}.',
            f"`{typed('logs', outputs.spec.name)}` tells more; "
            f"`{typed('check', outputs.spec.name, '--wait')}` goes on waiting.",
        )
    with told_how_to_go_on(outputs.spec.name):
        first_boot = "Waiting for the first boot to end"
        undone = unready(target, outputs, end, on_wait=lambda: reporter.step(first_boot))
    if undone:
        raise undone
    return results


@contextlib.contextmanager
def told_how_to_go_on(*names: str) -> Iterator[None]:
    """On Ctrl-C stop only the wait, and report how to continue it.

    Raises:
        StoppedError: the user pressed Ctrl-C.
    """
    known = ", ".join(f'"{name}"' for name in names)
    again = typed("check", names[0], *names[1:], "--wait")
    with interrupted(
        f"Stopped waiting for {known}; nothing else was stopped.", f"`{again}` goes on waiting."
    ):
        yield


@contextlib.contextmanager
def interrupted(message: str, suggestion: str) -> Iterator[None]:
    """Turn Ctrl-C into an error that reports what was stopped and how to continue.

    Raises:
        StoppedError: the user pressed Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(message, suggestion) from None


def unready(
    target: Target,
    outputs: NodeOutputs,
    end: float,
    *,
    on_wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> GridupError | None:
    """Wait until a node with successful probes is ready too. Return why it is not ready; None if it is.

    Args:
        end: when to stop waiting, in the time of `clock`; the node is checked at least once.
        on_wait: called once, if there is something to wait for.
    """
    reason = ""
    told = False
    while True:
        try:
            if target.ready(outputs):
                return None
        except FirstBootError as error:
            return error
        except ResourceError as error:
            # This may pass: for example, the ssh server is just restarting.
            reason = f": {error.message.rstrip('.')}"
        if why := target.terminal_failure(outputs):
            return why
        left = end - clock()
        if left <= 0:
            name = outputs.spec.name
            return DeadlineError(
                f'"{name}" answers, but its first boot has not ended yet{reason}.',
                f"`{typed('check', name, '--wait')}` goes on waiting.",
            )
        if not told:
            on_wait()
            told = True
        sleep(min(READY_PAUSE, left))


class FailureLatch:
    """Remembers the first terminal failure of a node.

    A program in a crash loop seems to run for a moment after each start. So a failure is never forgotten.

    Args:
        ask: returns the error that makes further waiting pointless; None if there is none.

    Attributes:
        why: the first failure; None if there was none.
    """

    def __init__(self, ask: Callable[[], ResourceError | None]) -> None:
        self._ask = ask
        self.why: ResourceError | None = None

    def gone(self) -> str | None:
        """Return the message of the failure; None if there is none."""
        self.why = self.why or self._ask()
        return self.why.message if self.why else None
