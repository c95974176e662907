"""gridup land: the word of HAGrid for destroy."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.destroy import destroy
from gridup.commands.options import Json, Yes
from gridup.session import Session

EPILOG = """\b
Examples:
  gridup land My Institution Name
  gridup land Inst --yes

It is `gridup destroy NAME`."""


def main(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="NAME...", help="The node's name.")],
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="As --yes.")] = False,
    json: Json = False,
) -> None:
    """Take a node away, in the word of HAGrid."""
    destroy(Session.of(context, json=json), " ".join(words), yes=yes or force)
