"""gridup open: open a node's UI in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.options import Json, NameArgument, NameOption, StackOption, meant
from gridup.session import Session
from gridup_infra.errors import UsageError
from gridup_infra.naming import typed

EPILOG = """\b
Examples:
  gridup open Inst
  gridup open Inst --service jupyter"""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    service: Annotated[str, typer.Option("--service", help="ui, api or jupyter.")] = "ui",
    json: Json = False,
) -> None:
    """Open a node's UI in the browser; without a screen, print its address."""
    session = Session.of(context, json=json)
    outputs = session.outputs(session.find(meant(argument, name, stack)))
    pages = {key: end.url for key, end in outputs.endpoints().items() if "://" in end.url and not end.reason}
    if service not in pages:
        name = outputs.spec.name
        why = outputs.not_offered.get(service, "")
        there = f"It has: {', '.join(pages)}." if pages else f"`{typed('ssh', name)}` enters its machine."
        raise UsageError(f'"{name}" has no page "{service}"{f": {why}" if why else ""}.', there)
    url = pages[service]
    opened = False
    if session.ui.interactive and not json:
        import webbrowser

        opened = webbrowser.open(url)
    session.ui.result({"url": url, "opened": opened}, lambda: session.ui.line(url))
