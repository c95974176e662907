"""gridup refresh: read the real resources and update the state."""

from __future__ import annotations

import typer

from gridup.commands.options import Json, NameArgument, NameOption, StackOption, WaitLock, meant
from gridup.deploy_flow import explaining
from gridup.session import Session
from gridup_infra.outputs import NOT_COMPLETED

EPILOG = """\b
Examples:
  gridup refresh Inst

It repairs nothing: `gridup deploy` does."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Look at what is really there and take it into the state."""
    session = Session.of(context, json=json)
    record = session.find(meant(argument, name, stack), wait_lock)
    # The engine calls the target's providers, which need the target's SDK.
    target = session.target(record.target) if record.target else None
    with (
        session.ui.progress() as reporter,
        session.lock(record.stack, record.name, "a refresh", wait_lock),
    ):
        engine = session.engine(reporter, wait_lock)
        reporter.step(f'Looking at "{record.name}"')
        with explaining(target, record.previous_spec({})):
            report = engine.refresh(record.stack, reporter)
    problems: tuple[str, ...] = ()
    remedy = ""
    if record.outputs is None:
        problems = (NOT_COMPLETED,)
    elif target:
        seen = target.inspect(record.outputs)
        problems, remedy = seen.problems, seen.remedy
    data = {
        "name": record.name,
        "changes": [
            {"resource": c.name, "operation": c.operation, "changed": list(c.changed)} for c in report.changes
        ],
        "problems": list(problems),
    }

    def human() -> None:
        for problem in problems:
            session.ui.line(f"{record.name}: {problem}")
        if problems:
            session.ui.line(f"{record.name}: {remedy or record.way_on}")
        elif report.unchanged:
            session.ui.line(f"{record.name}: no drift.")
        else:
            session.ui.line(f"{record.name}: the state was brought up to date.")

    session.ui.result(data, human)
