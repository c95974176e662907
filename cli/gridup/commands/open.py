"""gridup open: a node's UI in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.options import Json, NameArgument, NameOption, one_name
from gridup.session import Session
from gridup_infra.errors import UsageError

EPILOG = """\b
Examples:
  gridup open Inst
  gridup open Inst --service jupyter"""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    service: Annotated[str, typer.Option("--service", help="ui, api or jupyter.")] = "ui",
    json: Json = False,
) -> None:
    """Open a node's UI in the browser; without a screen, print its address."""
    session = Session.of(context, json=json)
    _, outputs = session.located(one_name(argument, name))
    pages = {key: end.url for key, end in outputs.endpoints().items() if "://" in end.url and not end.reason}
    if service not in pages:
        raise UsageError(f"{outputs.spec.name} has no page {service!r}.", f"It has: {', '.join(pages)}.")
    url = pages[service]
    opened = False
    if session.ui.interactive and not json:
        import webbrowser

        opened = webbrowser.open(url)
    session.ui.result({"url": url, "opened": opened}, lambda: session.ui.line(url))
