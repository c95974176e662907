"""gridup logs: what a node's services log."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

import typer

from gridup.commands.options import Json, NameArgument, NameOption, one_name
from gridup.session import Session, require
from gridup.ui import Ui
from gridup_infra.errors import UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.targets.base import Capability, Target
from gridup_node.services import programs

EPILOG = """\b
Examples:
  gridup logs Inst
  gridup logs Inst api -f
  gridup logs --name Inst --lines 200
  gridup logs Inst --boot          what its VM printed as it booted"""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]")
"""Colours and cursor movements (ECMA-48), and other control characters: a console is full of them."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Which services.  [default: all]")
    ] = None,
    name: NameOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each.")] = 50,
    boot: Annotated[
        bool, typer.Option("--boot", help="What its VM printed as it booted, as the cloud kept it.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a node's services log."""
    session = Session.of(context, json=json)
    wanted = list(services or ())
    if name is not None and argument is not None:
        # With --name every argument is a service.
        wanted.insert(0, argument)
        argument = None
    asked = one_name(argument, name)
    if boot:
        if wanted or follow:
            raise UsageError("--boot shows the whole log of the machine's boot: no service, no --follow.")
        outputs, target = begun(session, asked)
        require(target, Capability.BOOT_LOG, "--boot")
        show_boot(session.ui, target.boot_log(outputs))
        return
    _, outputs, target = session.deployed(asked)
    chosen = choose(wanted, outputs)
    found = target.way_in(outputs).logs(chosen, lines=lines, follow=follow and not json)
    if json:
        session.ui.result([{"service": service, "line": line} for service, line in found], lambda: None)
        return
    width = max(map(len, chosen), default=0)
    for service, line in found:
        session.ui.line(line if len(chosen) == 1 else f"{service:<{width}} | {line}")


def begun(session: Session, name: str | None) -> tuple[NodeOutputs, Target]:
    """A node whose machine was made: its first boot may be what its deploy failed at.

    Raises:
        ResourceError: the deploy was broken off before that.
    """
    record = session.find(name)
    if record.identity:
        target = session.target(record.target)
        if found := target.begun(record.identity, record.known):
            had = record.outputs.facts if record.outputs else {}
            return replace(found, facts={**had, **found.facts}), target
    _, outputs, target = session.deployed(record.name)
    return outputs, target


def show_boot(ui: Ui, text: str) -> None:
    """The lines of a boot log, without what would move a terminal's cursor about."""
    kept = [CONTROL.sub("", line.rstrip()) for line in text.splitlines()]

    def human() -> None:
        for line in kept:
            ui.line(line)
        if not kept:
            ui.say("The cloud has nothing yet; some keep it only minutes after the boot.")

    ui.result([{"service": "boot", "line": line} for line in kept], human)


def choose(wanted: list[str], outputs: NodeOutputs) -> list[str]:
    """The services whose logs are shown.

    Raises:
        UsageError: the node has no such service.
    """
    known = [row.name for row in programs() if row.name not in outputs.not_offered]
    for service in wanted:
        if service not in known:
            raise UsageError(
                f"{outputs.spec.name} has no service {service!r}.", f"It has: {', '.join(known)}."
            )
    return wanted or known
