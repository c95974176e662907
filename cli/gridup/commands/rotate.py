"""gridup rotate: replace every secret of a node."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.options import Json, NameArgument, NameOption, StackOption, WaitLock, Yes, meant
from gridup.rotating import DeployOptions, rotate
from gridup.session import Session, Which
from gridup_infra.errors import UsageError

EPILOG = """\b
Examples:
  gridup rotate Inst
  gridup rotate Inst --lock --yes        others need a new password, too
  gridup outputs Inst --show-secrets     the new password and token

The node must run. The data stays; all sessions, kernels and running jobs end.
On a cloud the VM is replaced by another one, on the same data disk. A run that
is interrupted leaves the node as it was or with the new secrets, never with
neither: the same command again goes on.

\b
What it does not replace: people's passwords (but with --lock), a password of
your mail server in syft's settings, a host key or certificate that is yours,
and the passphrase of the state: docs/rotating.md tells how.

\b
Exit codes: 0 replaced, 2 nobody to ask, 4 something could not be replaced or
the node is stopped, 6 no such deployment, 8 the answer was no, 9 replaced, and
its endpoints did not answer in time."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    stack: StackOption = None,
    lock: Annotated[
        bool,
        typer.Option("--lock", help="Let no other account in before the administrator sets it a password."),
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="For the endpoints to answer.")
    ] = 300,
    wait_lock: WaitLock = 0,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Replace every secret of a node: passwords, tokens, keys and certificates."""
    session = Session.of(context, json=json)
    given = meant(argument, name, stack)
    if given == Which():
        raise UsageError("Which node?", "Name it: gridup rotate NAME")
    rotate(session, given, DeployOptions(lock=lock, timeout=timeout, wait_lock=wait_lock, yes=yes))
