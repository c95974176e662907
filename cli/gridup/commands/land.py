"""gridup land: HAGrid's name for destroy."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.destroy import destroy, destroyed
from gridup.commands.options import Json, Yes
from gridup.session import Session, Which
from gridup.ui import plural
from gridup_infra.errors import NotFoundError

ALL = "all"
"""HAGrid's word for every node."""

EPILOG = """\b
Examples:
  gridup land My Institution Name
  gridup land Inst --yes
  gridup land all

It is `gridup destroy NAME`."""


def main(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="NAME...", help="The node's name.")],
    yes: Yes = False,
    force: Annotated[bool, typer.Option("--force", help="As --yes.")] = False,
    json: Json = False,
) -> None:
    """Destroy a node (HAGrid's command)."""
    session = Session.of(context, json=json)
    name = " ".join(words)
    if name != ALL or any(record.name == ALL for record in session.state.records()):
        destroy(session, Which(name), yes=yes or force)
        return
    records = session.state.records()
    if not records:
        raise NotFoundError("There are no deployments.")
    about = ["This deletes all nodes:", *(f'  - "{record.name}" ({record.target})' for record in records)]
    session.ui.confirm(f"Destroy {plural(len(records), 'node')}?", yes=yes or force, about=about)
    done = [destroyed(session, Which(stack=record.stack), yes=True) for record in records]
    session.ui.result(done, lambda: session.ui.line(f"{plural(len(done), 'node')} destroyed."))
