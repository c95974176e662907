"""gridup stop: stop a node."""

from __future__ import annotations

import typer

from gridup.commands.options import Json, NameArgument, NameOption, StackOption, WaitLock, meant
from gridup.power import stop
from gridup.session import Session

EPILOG = """\b
Examples:
  gridup stop Inst"""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Stop a node; its data stays."""
    stop(Session.of(context, json=json), meant(argument, name, stack), wait_lock=wait_lock)
