"""gridup check: probe each endpoint of nodes, whether Gridup deployed them or not."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from gridup import health, probes
from gridup.commands.options import Json, NameOption, StackOption, complete_names
from gridup.session import Session, Which
from gridup.state import Record
from gridup.ui import Ui
from gridup_infra.errors import (
    BusyError,
    DeadlineError,
    FirstBootError,
    GridupError,
    NotFoundError,
    ResourceError,
    StateError,
    UnhealthyError,
    UsageError,
)
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.targets.base import Target

EPILOG = """\b
Examples:
  gridup check                     every node
  gridup check Inst --wait         wait until it is up
  gridup check 10.0.0.7:8080       a node that others deployed
  gridup check --wait --silent     as in HAGrid's tutorial

Exit code 0: all is proven; 10: not; 9: not within --timeout of a --wait."""


@dataclass
class Checked:
    """One item to check: a deployed node, or only an address.

    Attributes:
        title: the node's name, or the address.
        outputs, target: of a deployed node; None for an address.
        why: the error of `terminal_failure`, once there is one.
        stopped: whether the node is stopped; None while that was not checked.
    """

    title: str
    endpoints: list[probes.Endpoint]
    outputs: NodeOutputs | None = None
    target: Target | None = None
    why: ResourceError | None = None
    stopped: bool | None = None

    def given_up(self) -> ResourceError | None:
        """Return the error that makes further waiting pointless, else None.

        Once there is an error, it stays: see `health.FailureLatch`.
        """
        if self.why is None and self.target and self.outputs:
            self.why = self.target.terminal_failure(self.outputs)
        return self.why

    def is_silent(self, session: Session) -> bool:
        """Return whether no probe is needed, because the machine does not answer and the node is stopped."""
        if not (self.target and self.outputs) or self.target.answers(self.outputs):
            return False
        return self.is_stopped(session)

    def is_stopped(self, session: Session) -> bool:
        """Return whether the node is stopped; checked only once. Something else may answer in its place."""
        if self.stopped is None and self.target and self.outputs:
            self.stopped = session.stopped(self.outputs, self.target)
        return bool(self.stopped)

    def unready(self, end: float) -> GridupError | None:
        """Return why the node is not ready although all its probes succeed; None if it is ready."""
        return health.unready(self.target, self.outputs, end) if self.target and self.outputs else None


def main(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|HOST[:PORT]]...",
            help="Nodes, or addresses.  [default: all nodes]",
            autocompletion=complete_names,
        ),
    ] = None,
    name: NameOption = None,
    stack: StackOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is up.")] = False,
    silent: Annotated[bool, typer.Option("--silent", help="No progress, only the report.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.1,
            help="For the check, or for the whole --wait.  [default: 5, or 300 with --wait]",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Prove each endpoint of a node, or of any HOST[:PORT]."""
    session = Session.of(context, json=json)
    session.ui.quiet = session.ui.quiet or silent
    wanted = dict.fromkeys([*(arguments or ()), *([name] if name is not None else [])])
    checked = [_named(session, text, explicit=text == name) for text in wanted]
    if stack is not None:
        checked.append(_checked(session, session.find(Which(stack=stack))))
    broken: dict[str, GridupError] = {}
    if not checked:
        checked, broken = _all(session)
    endpoints = [endpoint for item in checked for endpoint in item.endpoints]
    if wait and checked:
        with (
            health.told_how_to_go_on(*(item.title for item in checked)),
            session.ui.progress() as reporter,
        ):
            reporter.step(f"Waiting for {', '.join(item.title for item in checked)}")
            deadline = 300.0 if timeout is None else timeout
            end = time.monotonic() + deadline
            results = probes.wait_for(
                endpoints,
                deadline,
                min(health.PROBE_SECONDS, deadline),
                stop_early=lambda: _dead(checked) or _stopped(session, checked),
                probe=lambda these, seconds: health.look(these, seconds, session.own_address),
            )
    else:
        deadline = health.PROBE_SECONDS if timeout is None else timeout
        end = time.monotonic()
        results = _looked_at(session, checked, deadline)
    undone = _undone(checked, end) if probes.healthy(results) else {}
    results = _with_inside(checked, results)
    report(session.ui, checked, results, undone, broken)
    if undone:
        why = next(iter(undone.values()))
        still = isinstance(why, DeadlineError) and not wait
        raise UnhealthyError(why.message, why.suggestion) if still else why
    if checked and not probes.healthy(results):
        for item in checked:
            if item.outputs and item.is_stopped(session):
                raise session.refusal(item.outputs)
        raise _verdict(checked, wait, deadline)
    if broken:
        raise UnhealthyError(f"{', '.join(broken)}: not all is up.")


def _looked_at(session: Session, checked: list[Checked], deadline: float) -> list[probes.ProbeResult]:
    """Run one round of probes. Don't probe a node that is stopped and whose machine does not answer."""
    off = [item.is_silent(session) for item in checked]
    wanted = [
        endpoint
        for item, stopped in zip(checked, off, strict=True)
        if not stopped
        for endpoint in item.endpoints
    ]
    seen = iter(health.look(wanted, deadline, session.own_address))
    results: list[probes.ProbeResult] = []
    for item, stopped in zip(checked, off, strict=True):
        for endpoint in item.endpoints:
            silent = probes.ProbeState.DOWN if endpoint.offered else probes.ProbeState.NOT_OFFERED
            why = "stopped" if endpoint.offered else endpoint.reason
            results.append(probes.ProbeResult(endpoint, silent, why) if stopped else next(seen))
    return results


def _with_inside(checked: list[Checked], results: list[probes.ProbeResult]) -> list[probes.ProbeResult]:
    """Return the results, plus those of proofs that need a command on the deployed node.

    Adds the endpoints of these proofs to each item's `endpoints`.
    """
    every: list[probes.ProbeResult] = []
    for item, seen in _by_item(checked, results):
        if item.target and item.outputs:
            more = health.inside(item.target, item.outputs, seen)
            item.endpoints = [*item.endpoints, *(one.endpoint for one in more)]
            seen = [*seen, *more]
        every += seen
    return every


def _by_item(
    checked: list[Checked], results: list[probes.ProbeResult]
) -> list[tuple[Checked, list[probes.ProbeResult]]]:
    """Return each item with the results of its own endpoints."""
    rest = iter(results)
    return [(item, list(itertools.islice(rest, len(item.endpoints)))) for item in checked]


def _undone(checked: list[Checked], end: float) -> dict[str, GridupError]:
    """Return, by title, the errors of nodes that are not ready although their probes succeed."""
    found = {item.title: item.unready(end) for item in checked}
    return {title: why for title, why in found.items() if why}


def report(
    ui: Ui,
    checked: list[Checked],
    results: list[probes.ProbeResult],
    undone: Mapping[str, GridupError],
    broken: Mapping[str, GridupError],
) -> None:
    """Show a table for each node or address, and the error of each node that can't be checked.

    Args:
        undone: by title, the errors of nodes that are not ready although their probes succeed.
        broken: by name, the errors of nodes that can't be checked.
    """
    parts = _by_item(checked, results)
    data: list[dict[str, Any]] = [
        {
            "name": item.title,
            "up": probes.healthy(found) and item.title not in undone,
            "endpoints": probes.to_json(found),
        }
        for item, found in parts
    ]
    data += [
        {"name": name, "up": False, "endpoints": [], "problem": why.message} for name, why in broken.items()
    ]

    def human() -> None:
        for item, found in parts:
            health.show(ui, found, item.title, item.outputs)
        for why in broken.values():
            ui.line(f"{why.message} {why.suggestion}".rstrip())

    ui.result(data, human)


def _verdict(checked: list[Checked], wait: bool, deadline: float) -> GridupError:
    names = ", ".join(item.title for item in checked)
    for item in checked:
        if why := item.given_up():
            if isinstance(why, FirstBootError):
                return why
            return UnhealthyError(
                f"{item.title}: {why.message}.", f"`{typed('logs', item.title)}` tells more.", why.details
            )
    again = typed("check", checked[0].title, *(item.title for item in checked[1:]), "--wait")
    if wait:
        return DeadlineError(f"{names}: not all is up after {deadline:g} s.", f"`{again}` goes on waiting.")
    return UnhealthyError(f"{names}: not all is up.", f"`{again}` waits for it.")


def _dead(checked: list[Checked]) -> str | None:
    return next((why.message for item in checked if (why := item.given_up())), None)


def _stopped(session: Session, checked: list[Checked]) -> str | None:
    """Return the title of a stopped node, since waiting for it is pointless; else None."""
    return next((item.title for item in checked if item.is_stopped(session)), None)


def _named(session: Session, text: str, *, explicit: bool) -> Checked:
    """Return the deployed node of that name, else the address.

    Raises:
        NotFoundError: there is no such node, and `text` comes from --name or can't be an address.
    """
    try:
        record = session.find(Which(text))
    except NotFoundError:
        if explicit or not _is_address(text):
            raise
        return Checked(text, list(probes.endpoints_for_host(text)))
    return _checked(session, record)


def _checked(session: Session, record: Record) -> Checked:
    outputs, target = session.require_target(record)
    return Checked(record.name, health.endpoints(outputs), outputs, target)


def _is_address(text: str) -> bool:
    """Return whether the user can only mean an address: `text` has a dot or a colon, or is localhost."""
    if text != "localhost" and "." not in text and ":" not in text:
        return False
    try:
        probes.parse_address(text)
    except UsageError:
        return ":" in text and " " not in text  # An address; parsing it later reports the error.
    return True


def _all(session: Session) -> tuple[list[Checked], dict[str, GridupError]]:
    """Return all nodes, and by name the errors of those that can't be checked.

    A node can't be checked if its state is damaged, its deploy is incomplete or another run changes it.

    Raises:
        NotFoundError: there are no nodes.
    """
    checked: list[Checked] = []
    broken: dict[str, GridupError] = {}
    for record in session.state.records():
        try:
            checked.append(_checked(session, record))
        except (StateError, ResourceError, BusyError) as error:
            broken[record.name] = error
    if not checked and not broken:
        raise NotFoundError("There are no deployments to check.", "Name an address: gridup check HOST[:PORT]")
    return checked, broken
