"""gridup logs: show the logs of a node's services."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from gridup import streams
from gridup.commands.options import Json, NameArgument, NameOption, StackOption, complete_services, meant
from gridup.session import Session, require
from gridup.ui import Ui
from gridup_infra.errors import ResourceError, StoppedError, UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.targets.base import Capability, NodeAccess
from gridup_node.services import programs

EPILOG = """\b
Examples:
  gridup logs Inst
  gridup logs Inst api -f
  gridup logs --name Inst --lines 200
  gridup logs Inst --boot          what its VM printed as it booted"""

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]")
"""Colours, cursor movements (ECMA-48) and other control characters, which are common in console output."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    services: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SERVICE]...",
            help="Which services.  [default: all]",
            autocompletion=complete_services,
        ),
    ] = None,
    name: NameOption = None,
    stack: StackOption = None,
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
    if argument is not None and not (name is None and stack is None):
        # With --name or --stack, every argument is a service.
        wanted.insert(0, argument)
        argument = None
    asked = meant(argument, name, stack)
    if boot:
        if wanted or follow:
            raise UsageError("--boot shows the whole log of the machine's boot: no service, no --follow.")
        # The deploy may have failed at the first boot, so the node may have no outputs in the state.
        outputs, target = session.reached(session.find(asked))
        require(target, Capability.BOOT_LOG, "--boot")
        show_boot(session.ui, target.boot_log(outputs))
        return
    outputs, target = session.require_target(session.find(asked))
    chosen = choose(wanted, outputs)
    session.check_answers(outputs, target)
    access = target.access(outputs)
    try:
        if json:
            found = access.logs(chosen, lines=lines, follow=False)
            session.ui.result([{"service": service, "line": line} for service, line in found], lambda: None)
        else:
            show_lines(session.ui, access, chosen, lines=lines, follow=follow)
    except ResourceError:
        session.check_running(outputs, target)
        raise


def show_lines(ui: Ui, access: NodeAccess, chosen: list[str], *, lines: int, follow: bool) -> None:
    """Show the logs of services. If there are several services, each line begins with the service's name."""
    width = max(map(len, chosen), default=0)
    try:
        for service, line in access.logs(chosen, lines=lines, follow=follow):
            plain = CONTROL.sub("", line)
            ui.line(plain if len(chosen) == 1 else f"{service:<{width}} | {plain}")
            if follow and streams.reader_gone():
                return
    except KeyboardInterrupt:
        if not follow:
            raise
        # Ctrl-C is the only way to end --follow.
        raise typer.Exit(StoppedError.exit_code) from None


def show_boot(ui: Ui, text: str) -> None:
    """Show the lines of a boot log without control characters, which could move the terminal's cursor."""
    kept = [CONTROL.sub("", line.rstrip()) for line in text.splitlines()]

    def human() -> None:
        for line in kept:
            ui.line(line)
        if not kept:
            ui.say("The cloud has nothing yet; some keep it only minutes after the boot.")

    ui.result([{"service": "boot", "line": line} for line in kept], human)


def choose(wanted: list[str], outputs: NodeOutputs) -> list[str]:
    """Return the services whose logs to show: those in `wanted`, or all if it is empty.

    Raises:
        UsageError: the node has no such service.
    """
    known = [row.name for row in programs() if row.name not in outputs.not_offered]
    for service in wanted:
        if service not in known:
            raise UsageError(
                f'"{outputs.spec.name}" has no service "{service}".', f"It has: {', '.join(known)}."
            )
    return wanted or known
