"""gridup status: show for every node whether it runs, and whether it runs as defined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any

import typer

from gridup import freshness
from gridup.commands.options import Json, NameArgument, NameOption, StackOption, meant
from gridup.commands.outputs import packages
from gridup.session import Session, Which
from gridup.state import Record
from gridup_infra.errors import GridupError
from gridup_infra.locking import Holder
from gridup_infra.naming import typed
from gridup_infra.outputs import NOT_COMPLETED
from gridup_infra.targets.base import PUBLIC_IP, Inspection, NodeStatus
from gridup_node.services import ProbeKind

EPILOG = """\b
Examples:
  gridup status
  gridup status Inst --json

It looks at what is really there and changes nothing. `gridup check` proves each
endpoint as well; `gridup deploy` repairs what is not right."""

AT_ONCE = 16
"""Nodes that are inspected at the same time."""

PROBE_SECONDS = 3.0

LOOKS = ("a look", "a preview")
"""Operations that lock a stack but change nothing."""

NAMED = 3
"""Maximum number of packages to name as the reason for a machine's restart."""

POWER_WORDS: dict[NodeStatus, str] = {
    NodeStatus.RUNNING: "✅ running",
    NodeStatus.STARTING: "⏳ starting",
    NodeStatus.STOPPED: "⏹ stopped",
    NodeStatus.DEGRADED: "❌ degraded",
    NodeStatus.MISSING: "❌ missing",
    NodeStatus.UNKNOWN: "❔ unknown",
}


@dataclass(frozen=True)
class Row:
    """The current status of one node.

    Attributes:
        endpoints: the results of the probes, as for JSON; None if the node was not probed.
        suggestion: what to do if the node could not be inspected.
        busy: the run that changes the node now.
        restart: the packages whose updates need a restart of the node's machine; None if no restart is due.
        place: where the node runs and on what, see `Target.place`.
        machine: the power state of the machine, if the deploy was not completed; None if no machine is known.
    """

    record: Record
    inspection: Inspection
    endpoints: list[dict[str, Any]] | None
    suggestion: str = ""
    busy: Holder | None = None
    restart: tuple[str, ...] | None = None
    place: Mapping[str, str] = field(default_factory=dict)
    machine: NodeStatus | None = None

    @property
    def name(self) -> str:
        """The node's name; if it is not in the state yet, the name that the running deploy has."""
        return self.busy.about if self.busy and self.busy.about else self.record.name

    @property
    def problems(self) -> list[str]:
        found = [*self.inspection.problems]
        for endpoint in self.endpoints or ():
            if endpoint["state"] not in ("up", "not-offered", "restricted"):
                found.append(f"{endpoint['service']}: {endpoint['detail']}")
        return found

    def updates(self, today: datetime) -> list[str]:
        """Return the reasons to rebuild the node's image or environment, one line each."""
        return freshness.concerns(self.record.outputs, today) if self.record.outputs else []


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Do not ask the endpoints.")] = False,
    json: Json = False,
) -> None:
    """Show every node: does it run, is it right?"""
    session = Session.of(context, json=json)
    wanted = meant(argument, name, stack)
    # Call it before the state is read: a deploy that ends in between is then in the state.
    busy = session.under_way()
    if wanted == Which():
        records = session.state.records()
        known = {record.stack for record in records}
        records += [Record(stack, None, None, (), ()) for stack in sorted(busy.keys() - known)]
    else:
        records = [session.find(wanted)]
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        rows = list(pool.map(lambda record: look(session, record, busy, probe=not no_probe), records))

    today = freshness.now()

    def human() -> None:
        if not rows:
            session.ui.line("There are no deployments yet; `gridup deploy --name NAME` makes one.")
            return
        session.ui.table(*_table(rows))
        for row in rows:
            if row.busy:
                session.ui.line(f"{row.name}: {row.busy.describe()} is under way.")
                continue
            if wanted != Which() and row.place:
                session.ui.line(f"{row.record.name}: {', '.join(row.place.values())}")
            for problem in row.problems:
                session.ui.line(f"{row.record.name}: {problem}")
            if updates := row.updates(today):
                for line in updates:
                    session.ui.line(f"{row.record.name}: {line}")
                again = f"`{typed('deploy', row.record.name, '--rebuild')}` makes it anew; the data stays."
                session.ui.line(f"{row.record.name}: {again}")
            for note in row.inspection.notes:
                session.ui.line(f"{row.record.name}: {note}")
            if row.restart is not None:
                session.ui.line(f"{row.record.name}: {restart_line(row.restart, row.record)}")
            if row.inspection.power is NodeStatus.UNKNOWN and row.suggestion:
                session.ui.line(f"{row.record.name}: {row.suggestion}")
            if row.machine:
                session.ui.line(f"{row.record.name}: {machine_line(row)}")
            if line := way_on(row):
                session.ui.line(f"{row.record.name}: {line}")

    session.ui.result([_json(row, today) for row in rows], human)


def way_on(row: Row) -> str:
    """Return what the user can do to repair the node; empty if there is nothing."""
    broken = row.inspection.power in (NodeStatus.DEGRADED, NodeStatus.MISSING)
    return row.inspection.remedy or (row.record.way_on if broken else "")


def look(session: Session, record: Record, busy: Mapping[str, Holder], *, probe: bool) -> Row:
    """Inspect one node and, if `probe`, probe its endpoints."""
    if (other := busy.get(record.stack)) and other.operation not in LOOKS:
        # A run is changing the node, so a missing resource is no damage.
        return Row(record, Inspection(NodeStatus.UNKNOWN), None, busy=other)
    if record.problem:
        return Row(record, Inspection(NodeStatus.DEGRADED, (record.problem,)), None)
    if record.outputs is None and (other := session.elsewhere(record)):
        return Row(record, Inspection(NodeStatus.UNKNOWN), None, busy=other)
    if record.outputs is None:
        return _begun(session, record)
    _, target = session.known(record)
    place = target.place(record.outputs)
    try:
        session.prepare(target)
        inspection = target.inspect(record.outputs)
    except GridupError as error:
        # A node that can't be inspected must not hide the others.
        seen = Inspection(NodeStatus.UNKNOWN, (f"can't be looked at: {error.message}",))
        return Row(record, seen, None, error.suggestion, place=place)
    if not probe or inspection.power not in (NodeStatus.RUNNING, NodeStatus.STARTING):
        return Row(record, inspection, None, place=place)
    from gridup import health, probes

    results = health.look(health.endpoints(record.outputs), PROBE_SECONDS, session.own_address)
    if inspection.power is NodeStatus.STARTING and probes.healthy(results):
        inspection = replace(inspection, power=NodeStatus.RUNNING)
    restart = None
    if any(result.up and result.endpoint.proof is ProbeKind.SSH_BANNER for result in results):
        restart = target.restart_due(record.outputs)
    return Row(record, inspection, probes.to_json(results), restart=restart, place=place)


def _begun(session: Session, record: Record) -> Row:
    """Return the row of a node whose deploy was interrupted. It may have a machine that costs money."""
    what = f" (interrupted while {', '.join(record.pending)})" if record.pending else ""
    seen = Inspection(NodeStatus.DEGRADED, (f"{NOT_COMPLETED}{session.or_elsewhere}{what}",))
    try:
        outputs, target = session.known(record)
    except GridupError:
        return Row(record, seen, None)
    try:
        session.prepare(target)
        machine = target.inspect(outputs).power
    except GridupError as error:
        why = f"its machine can't be looked at: {error.message}"
        seen = replace(seen, problems=(*seen.problems, why))
        return Row(
            record, seen, None, error.suggestion, place=target.place(outputs), machine=NodeStatus.UNKNOWN
        )
    return Row(record, seen, None, place=target.place(outputs), machine=machine)


def machine_line(row: Row) -> str:
    """Return the message about the machine of a node whose deploy was not completed."""
    name = row.record.name
    if row.machine in (NodeStatus.MISSING, NodeStatus.STOPPED):
        return f"its machine is {row.machine.value}."
    known = "may run" if row.machine is NodeStatus.UNKNOWN else "runs"
    stop, gone = typed("stop", name), typed("destroy", name)
    return f"its machine {known}, and costs money: `{stop}` stops it, `{gone}` deletes all of it."


def restart_line(packages: tuple[str, ...], record: Record) -> str:
    """Return the message about a machine that needs a restart."""
    named = f" ({', '.join(packages[:NAMED])}{', …' * (len(packages) > NAMED)})" if packages else ""
    at = record.outputs.spec.reboot_at if record.outputs else ""
    how = (
        f"it comes with the updates at {at}"
        if at
        else f"`{typed('ssh', record.name)} -- sudo reboot` does it; "
        "`--reboot-at HH:MM` has the updates do it"
    )
    return f"a restart of its machine is due for its updates{named}: {how}."


def _table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the table's header and rows, without the column "Public IP" if it is empty."""
    head = ["Name", "Target", "State", "Public IP", "UI"]
    lines = [_cells(row) for row in rows]
    shown = [i for i, title in enumerate(head) if title != "Public IP" or any(line[i] for line in lines)]
    return [head[i] for i in shown], [[line[i] for i in shown] for line in lines]


def _cells(row: Row) -> list[str]:
    outputs = row.record.outputs
    state = f"⏳ {row.busy.operation}" if row.busy else POWER_WORDS[row.inspection.power]
    if row.inspection.power is NodeStatus.RUNNING and row.problems:
        state = "❌ not answering"
    page = outputs.endpoints()["ui"] if outputs else None
    url = page.url if page and not page.reason else ""
    return [row.name, row.record.target, state, row.place.get(PUBLIC_IP, ""), url]


def _json(row: Row, today: datetime) -> dict[str, Any]:
    outputs = row.record.outputs
    return {
        "name": row.name,
        "stack": row.record.stack,
        "target": row.record.target,
        "type": outputs.spec.node_type if outputs else None,
        "state": row.inspection.power.value,
        "right": row.inspection.power is NodeStatus.RUNNING and not row.problems,
        "problems": row.problems,
        "busy": {"operation": row.busy.operation, "pid": row.busy.pid, "since": row.busy.since}
        if row.busy
        else None,
        "notes": list(row.inspection.notes),
        "updates": row.updates(today),
        "packages": packages(outputs) if outputs else [],
        "reboot_due": row.restart is not None,
        "address": outputs.address if outputs else None,
        PUBLIC_IP: None,
        **row.place,
        "machine": row.machine.value if row.machine else None,
        "endpoints": row.endpoints,
    }
