"""Proving a node's endpoints, and showing the table of them."""

from __future__ import annotations

from collections.abc import Sequence

from gridup import probes
from gridup.reporter import Reporter
from gridup.ui import Ui
from gridup_infra.errors import DeadlineError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.targets.base import Target
from gridup_node.services import Proof

PROBE_SECONDS = 5.0
"""How long one round of probes may take."""

MARKS = {
    probes.ProbeState.UP: "✅",
    probes.ProbeState.NOT_OFFERED: "➖",
    probes.ProbeState.RESTRICTED: "🔒",
}
BAD = "❌"


def endpoints(outputs: NodeOutputs) -> list[probes.Endpoint]:
    """What there is to prove of a deployed node."""
    return probes.endpoints_for_node(outputs)


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


def wait_healthy(
    target: Target, outputs: NodeOutputs, reporter: Reporter, timeout: float
) -> list[probes.ProbeResult]:
    """Wait until every endpoint of a node is proven.

    Raises:
        ResourceError: a service has ended for good; its log's tail is in the details.
        DeadlineError: not all were up within `timeout` seconds.
    """
    wanted = endpoints(outputs)
    waiting: set[str] = set()

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
        stop_early=lambda: _why(target.given_up(outputs)),
    )
    if not probes.healthy(results) and (why := target.given_up(outputs)):
        raise why
    if not probes.healthy(results):
        down = ", ".join(
            f"{r.endpoint.title} ({r.detail})" for r in results if not r.up and r.endpoint.offered
        )
        raise DeadlineError(
            f"{outputs.spec.name} was not up within {timeout:g} s: {down}.",
            f'`gridup logs "{outputs.spec.name}"` tells more; `gridup check --wait` goes on waiting.',
        )
    return results


def _why(error: ResourceError | None) -> str | None:
    return error.message if error else None
