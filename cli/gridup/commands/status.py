"""gridup status: every node, does it run, is it right?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from gridup.commands.options import Json, NameArgument, NameOption, one_name
from gridup.session import Session
from gridup.state import Record
from gridup_infra.errors import GridupError
from gridup_infra.targets.base import Inspection, Power

EPILOG = """\b
Examples:
  gridup status
  gridup status Inst --json

It looks at what is really there and changes nothing. `gridup check` proves each
endpoint as well; `gridup deploy` repairs what is not right."""

AT_ONCE = 16
"""Nodes looked at concurrently."""

PROBE_SECONDS = 3.0

POWER_WORDS: dict[Power, str] = {
    Power.RUNNING: "✅ running",
    Power.STARTING: "⏳ starting",
    Power.STOPPED: "⏹ stopped",
    Power.BROKEN: "❌ broken",
    Power.GONE: "❌ gone",
    Power.UNKNOWN: "❔ unknown",
}


@dataclass(frozen=True)
class Row:
    """One node, as seen just now; `suggestion` is what to do where it could not be."""

    record: Record
    inspection: Inspection
    endpoints: list[dict[str, Any]] | None
    suggestion: str = ""

    @property
    def problems(self) -> list[str]:
        found = [*self.inspection.problems]
        for endpoint in self.endpoints or ():
            if endpoint["state"] not in ("up", "not-offered", "restricted"):
                found.append(f"{endpoint['service']}: {endpoint['detail']}")
        return found


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Do not ask the endpoints.")] = False,
    json: Json = False,
) -> None:
    """Show every node: does it run, is it right?"""
    session = Session.of(context, json=json)
    wanted = one_name(argument, name)
    records = [session.find(wanted)] if wanted is not None else session.state.records()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        rows = list(pool.map(lambda record: look(session, record, probe=not no_probe), records))

    def human() -> None:
        if not rows:
            session.ui.line("There are no deployments yet; `gridup deploy --name NAME` makes one.")
            return
        session.ui.table(["Name", "Target", "State", "UI"], [list(_cells(row)) for row in rows])
        for row in rows:
            for problem in row.problems:
                session.ui.line(f"{row.record.name}: {problem}")
            if row.inspection.power is Power.UNKNOWN and row.suggestion:
                session.ui.line(f"{row.record.name}: {row.suggestion}")
            if row.inspection.power in (Power.BROKEN, Power.GONE):
                session.ui.line(f'{row.record.name}: `gridup deploy --name "{row.record.name}"` repairs it.')

    session.ui.result([_json(row) for row in rows], human)


def look(session: Session, record: Record, *, probe: bool) -> Row:
    """What is really there of one node, and whether it answers."""
    if record.problem:
        return Row(record, Inspection(Power.BROKEN, (record.problem,)), None)
    if record.outputs is None:
        what = f" (broken off while {', '.join(record.pending)})" if record.pending else ""
        return Row(record, Inspection(Power.BROKEN, (f"its deploy was not completed{what}",)), None)
    try:
        inspection = session.target(record.outputs.spec.target).inspect(record.outputs)
    except GridupError as error:
        # One that can't be looked at hides no other.
        seen = Inspection(Power.UNKNOWN, (f"can't be looked at: {error.message}",))
        return Row(record, seen, None, error.suggestion)
    if not probe or inspection.power not in (Power.RUNNING, Power.STARTING):
        return Row(record, inspection, None)
    from gridup import health, probes

    results = health.look(health.endpoints(record.outputs), PROBE_SECONDS, session.own_address)
    if inspection.power is Power.STARTING and probes.healthy(results):
        inspection = replace(inspection, power=Power.RUNNING)
    return Row(record, inspection, probes.to_json(results))


def _cells(row: Row) -> tuple[str, str, str, str]:
    outputs = row.record.outputs
    state = POWER_WORDS[row.inspection.power]
    if row.inspection.power is Power.RUNNING and row.problems:
        state = "❌ not answering"
    url = outputs.endpoints()["ui"].url if outputs else ""
    return row.record.name, row.record.target, state, url


def _json(row: Row) -> dict[str, Any]:
    outputs = row.record.outputs
    return {
        "name": row.record.name,
        "stack": row.record.stack,
        "target": row.record.target,
        "type": outputs.spec.node_type if outputs else None,
        "state": row.inspection.power.value,
        "right": row.inspection.power is Power.RUNNING and not row.problems,
        "problems": row.problems,
        "address": outputs.address if outputs else None,
        "endpoints": row.endpoints,
    }
