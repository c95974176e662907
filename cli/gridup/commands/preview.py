"""gridup preview: what deploy would do."""

from __future__ import annotations

import typer

from gridup.commands.options import (
    Bind,
    Cloud,
    Json,
    KeepData,
    NameArgument,
    NameOption,
    NodeType,
    Port,
    Tag,
    WaitLock,
    explicit,
    one_name,
)
from gridup.deploying import resolve
from gridup.session import Session
from gridup_infra.naming import check_name, stack_name

EPILOG = """\b
Examples:
  gridup preview --name "Inst"
  gridup preview --name "Inst" --port 9000"""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    cloud: Cloud = None,
    node_type: NodeType = None,
    port: Port = None,
    bind: Bind = None,
    tag: Tag = None,
    keep_data: KeepData = None,
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Show what deploy would do, and do nothing."""
    session = Session.of(context, json=json)
    given = one_name(argument, name)
    wanted = check_name(given if given is not None else session.ui.ask("Name of the node", "--name"))
    asked = {
        "target": cloud,
        "node_type": node_type,
        "port": port,
        "bind": bind,
        "tag": tag,
        "keep_data": keep_data,
    }
    record = session.state.read(stack_name(wanted))
    stored = session.settings.stored_config(stack_name(wanted))
    spec, target = resolve(*explicit(context, asked), wanted, record, stored)
    with session.ui.progress() as reporter:
        engine = session.engine(reporter)
        with engine.lock(spec.stack, wanted, "a preview", wait_lock):
            reporter.step(f'Looking at what a deploy of "{wanted}" would change')
            report = engine.preview(spec, reporter, new=record is None)
    data = {
        "name": wanted,
        "stack": spec.stack,
        "target": spec.target,
        "changes": [
            {"resource": c.name, "operation": c.operation, "changed": list(c.changed)} for c in report.changes
        ],
    }

    def human() -> None:
        if report.unchanged:
            session.ui.line("No change.")
            return
        session.ui.table(["Would", "Resource"], [[c.operation, c.name] for c in report.changes])
        for line in target.summary(spec) if record is None else ():
            session.ui.line(f"  • {line}")

    session.ui.result(data, human)
