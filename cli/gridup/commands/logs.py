"""gridup logs: what a node's services log."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.options import Json, NameArgument, NameOption, one_name
from gridup.session import Session
from gridup_infra.errors import UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_node.services import programs

EPILOG = """\b
Examples:
  gridup logs Inst
  gridup logs Inst api -f
  gridup logs --name Inst --lines 200"""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Which services.  [default: all]")
    ] = None,
    name: NameOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each.")] = 50,
    json: Json = False,
) -> None:
    """Show what a node's services log."""
    session = Session.of(context, json=json)
    wanted = list(services or ())
    if name is not None and argument is not None:
        # With --name every argument is a service.
        wanted.insert(0, argument)
        argument = None
    _, outputs, target = session.deployed(one_name(argument, name))
    chosen = choose(wanted, outputs)
    found = target.way_in(outputs).logs(chosen, lines=lines, follow=follow and not json)
    if json:
        session.ui.result([{"service": service, "line": line} for service, line in found], lambda: None)
        return
    width = max(len(service) for service in chosen)
    for service, line in found:
        session.ui.line(line if len(chosen) == 1 else f"{service:<{width}} | {line}")


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
