"""Proving a node's endpoints, and showing the table of them."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence

from gridup import probes
from gridup.reporter import Reporter
from gridup.ui import Ui
from gridup_infra.errors import DeadlineError, FirstBootError, GridupError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Target
from gridup_node.services import FRONT, Audience, Proof, probed, service

PROBE_SECONDS = 5.0
"""How long one round of probes may take."""

READY_PAUSE = 2.0
"""Seconds between two looks at what no probe sees; each may be a command on the node."""

Own = Callable[[], str | None]
"""Tells the address that the internet sees us at; None when it can't be told."""

MARKS = {
    probes.ProbeState.UP: "✅",
    probes.ProbeState.NOT_OFFERED: "➖",
    probes.ProbeState.RESTRICTED: "🔒",
}
BAD = "❌"


def endpoints(outputs: NodeOutputs) -> list[probes.Endpoint]:
    """What there is to prove of a deployed node."""
    return probes.endpoints_for_node(outputs, open_to=open_to(outputs.spec))


def open_to(spec: DeploySpec) -> dict[str, tuple[str, ...]]:
    """By service, the networks that may reach it; without those that everybody may reach."""
    allowed = {Audience.WEB: spec.web_cidr, Audience.STAFF: spec.allow_cidr}
    found = {}
    for row in probed():
        audience = service(FRONT).audience if row.front_path else row.audience
        networks = allowed.get(audience, ())
        if networks and all(ipaddress.ip_network(network).prefixlen for network in networks):
            found[row.name] = networks
    return found


def look(endpoints: Sequence[probes.Endpoint], timeout: float, own: Own) -> list[probes.ProbeResult]:
    """One round of probes; our own address is asked for only where one is silent that is not open to all."""
    return probes.settled(probes.probe_all(endpoints, timeout), own)


def show(
    ui: Ui, results: Sequence[probes.ProbeResult], title: str, outputs: NodeOutputs | None = None
) -> None:
    """The table of the tutorial, with a word on what is not as it should be.

    Args:
        outputs: of a node that Gridup deployed; its ssh is entered with a command of ours.
    """
    rows = []
    for result in results:
        mark = MARKS.get(result.state, BAD)
        remark = result.note if result.up else result.detail
        info = result.endpoint.url
        if outputs and result.endpoint.proof is Proof.SSH_BANNER:
            info = f"gridup ssh {outputs.spec.stack}"
        rows.append([result.endpoint.title, info, f"{mark} {remark}".rstrip()])
    ui.table([title, "Info", ""], rows)


def trust(outputs: NodeOutputs) -> tuple[str, ...]:
    """How a client of the node's comes to trust its own CA, a line each; empty where a public one vouches."""
    if not outputs.ca or outputs.not_offered.get("api"):
        return ()
    file = f"{outputs.spec.stack}-ca.pem"
    url = outputs.endpoints()["api"].url.partition("/api")[0]
    return (
        "Its certificate is from a CA of its own. Where a client of it runs, in Python:",
        f'  gridup outputs "{outputs.spec.name}" --ca >{file}',
        f'  export REQUESTS_CA_BUNDLE="$PWD/{file}" SSL_CERT_FILE="$PWD/{file}"',
        f'  python -c \'import syft as sy; sy.login(url="{url}", email="…", password="…")\'',
    )


def wait_healthy(
    target: Target, outputs: NodeOutputs, reporter: Reporter, timeout: float, *, own: Own
) -> list[probes.ProbeResult]:
    """Wait until every endpoint of a node is proven, and what no probe sees is done too.

    Raises:
        ResourceError: a service has ended for good, or the first boot has failed; the log's tail is in
            the details.
        DeadlineError: not all were up within `timeout` seconds.
    """
    wanted = endpoints(outputs)
    waiting: set[str] = set()
    hope = Hope(lambda: target.given_up(outputs))
    end = time.monotonic() + timeout

    def on_round(results: Sequence[probes.ProbeResult]) -> None:
        missing = {r.endpoint.service for r in results if not r.up and r.endpoint.offered} - {"proxy"}
        if missing and missing != waiting:
            reporter.step(f"Waiting for {', '.join(sorted(missing))}")
            waiting.clear()
            waiting.update(missing)

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
            f"{outputs.spec.name} was not up within {timeout:g} s: {down}.",
            f'`gridup logs "{outputs.spec.name}"` tells more; `gridup check --wait` goes on waiting.',
        )
    undone = unready(target, outputs, end, on_wait=lambda: reporter.step("Waiting for the first boot to end"))
    if undone:
        raise undone
    return results


def unready(
    target: Target,
    outputs: NodeOutputs,
    end: float,
    *,
    on_wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> GridupError | None:
    """Why a node whose probes are green is not done yet; None once it is.

    Args:
        end: by `clock`, until when it is waited for; it is looked at once in any case.
        on_wait: called once, when there is something to wait for.
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
            # Such as an ssh server that is just being restarted.
            reason = f": {error.message.rstrip('.')}"
        if why := target.given_up(outputs):
            return why
        left = end - clock()
        if left <= 0:
            name = outputs.spec.name
            return DeadlineError(
                f"{name} answers, but its first boot has not ended yet{reason}.",
                f'`gridup check "{name}" --wait` goes on waiting.',
            )
        if not told:
            on_wait()
            told = True
        sleep(min(READY_PAUSE, left))


class Hope:
    """Whether waiting is of use. Once it is not, that stays so: a program that is started again and again
    looks as if it ran for a moment each time.

    Args:
        ask: why it is of no use; None while it is.
    """

    def __init__(self, ask: Callable[[], ResourceError | None]) -> None:
        self._ask = ask
        self.why: ResourceError | None = None

    def gone(self) -> str | None:
        """The reason in a line."""
        self.why = self.why or self._ask()
        return self.why.message if self.why else None
