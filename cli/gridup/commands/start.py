"""gridup start: start a stopped node."""

from __future__ import annotations

import typer

from gridup.commands.options import (
    Json,
    NameArgument,
    NameOption,
    StackOption,
    Timeout,
    WaitLock,
    meant,
)
from gridup.power import start
from gridup.session import Session

EPILOG = """\b
Examples:
  gridup start Inst"""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    timeout: Timeout = 300,
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Start a stopped node and wait until it answers."""
    start(Session.of(context, json=json), meant(argument, name, stack), wait_lock=wait_lock, timeout=timeout)
