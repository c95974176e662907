"""gridup check: prove each endpoint of nodes, deployed by Gridup or not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from gridup import health, probes
from gridup.commands.options import Json, NameOption, complete_names
from gridup.session import Session
from gridup.state import Record
from gridup.ui import Ui
from gridup_infra.errors import (
    DeadlineError,
    FirstBootError,
    GridupError,
    NotFoundError,
    ResourceError,
    UnhealthyError,
    UsageError,
)
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
    """One thing to check: a deployed node, or a mere address."""

    title: str
    endpoints: list[probes.Endpoint]
    outputs: NodeOutputs | None = None
    target: Target | None = None
    why: ResourceError | None = None

    def given_up(self) -> ResourceError | None:
        """Why waiting longer is no use; once there is a reason, it stays: see `health.Hope`."""
        if self.why is None and self.target and self.outputs:
            self.why = self.target.given_up(self.outputs)
        return self.why

    def unready(self, end: float) -> GridupError | None:
        """Why it is not done yet, though all its probes are green."""
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
    checked = [_named(session, text, explicit=text == name) for text in wanted] or _all(session)
    endpoints = [endpoint for item in checked for endpoint in item.endpoints]
    if wait:
        with session.ui.progress() as reporter:
            reporter.step(f"Waiting for {', '.join(item.title for item in checked)}")
            deadline = 300.0 if timeout is None else timeout
            end = time.monotonic() + deadline
            results = probes.wait_for(
                endpoints,
                deadline,
                min(health.PROBE_SECONDS, deadline),
                stop_early=lambda: _dead(checked),
                probe=lambda these, seconds: health.look(these, seconds, session.own_address),
            )
    else:
        deadline = health.PROBE_SECONDS if timeout is None else timeout
        end = time.monotonic()
        results = health.look(endpoints, deadline, session.own_address)
    undone = _undone(checked, end) if probes.healthy(results) else {}
    report(session.ui, checked, results, undone)
    if undone:
        why = next(iter(undone.values()))
        still = isinstance(why, DeadlineError) and not wait
        raise UnhealthyError(why.message, why.suggestion) if still else why
    if not probes.healthy(results):
        raise _verdict(checked, wait, deadline)


def _undone(checked: list[Checked], end: float) -> dict[str, GridupError]:
    """By title, what is not done yet though its probes are green."""
    found = {item.title: item.unready(end) for item in checked}
    return {title: why for title, why in found.items() if why}


def report(
    ui: Ui, checked: list[Checked], results: list[probes.ProbeResult], undone: Mapping[str, GridupError]
) -> None:
    """A table for each node or address."""
    parts: list[tuple[Checked, list[probes.ProbeResult]]] = []
    at = 0
    for item in checked:
        parts.append((item, results[at : at + len(item.endpoints)]))
        at += len(item.endpoints)
    data: list[dict[str, Any]] = [
        {
            "name": item.title,
            "up": probes.healthy(found) and item.title not in undone,
            "endpoints": probes.to_json(found),
        }
        for item, found in parts
    ]

    def human() -> None:
        for item, found in parts:
            health.show(ui, found, item.title, item.outputs)

    ui.result(data, human)


def _verdict(checked: list[Checked], wait: bool, deadline: float) -> GridupError:
    names = ", ".join(item.title for item in checked)
    for item in checked:
        if why := item.given_up():
            if isinstance(why, FirstBootError):
                return why
            return UnhealthyError(f"{item.title}: {why.message}.", "", why.details)
    if wait:
        return DeadlineError(f"{names}: not all is up after {deadline:g} s.")
    return UnhealthyError(f"{names}: not all is up.", "`gridup check --wait` waits for it.")


def _dead(checked: list[Checked]) -> str | None:
    return next((why.message for item in checked if (why := item.given_up())), None)


def _named(session: Session, text: str, *, explicit: bool) -> Checked:
    """A deployed node of that name, else an address; `--name` and words that are no address are names."""
    try:
        record = session.state.find(text)
    except NotFoundError:
        if explicit or not _is_address(text):
            raise
        return Checked(text, list(probes.endpoints_for_host(text)))
    return _checked(*session.deployed(record.name))


def _checked(record: Record, outputs: NodeOutputs, target: Target) -> Checked:
    return Checked(record.name, health.endpoints(outputs), outputs, target)


def _is_address(text: str) -> bool:
    """Whether it can only be meant as an address: it has a dot or a colon, or is localhost."""
    if text != "localhost" and "." not in text and ":" not in text:
        return False
    try:
        probes.parse_address(text)
    except UsageError:
        return ":" in text and " " not in text  # as an address, with its own error
    return True


def _all(session: Session) -> list[Checked]:
    records = [record for record in session.state.records() if record.outputs]
    if not records:
        raise NotFoundError("There are no deployments to check.", "Name an address: gridup check HOST[:PORT]")
    return [_checked(*session.deployed(record.name)) for record in records]
