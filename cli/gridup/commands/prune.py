"""gridup prune: remove shared environments and images that no node uses any more."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.options import Json, Yes
from gridup.session import Session
from gridup.ui import plural
from gridup_infra import targets

EPILOG = """\b
Examples:
  gridup prune --dry-run
  gridup prune --yes"""


def main(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove node environments and images that no node uses."""
    session = Session.of(context, json=json)
    found = [
        (target, thing) for target in map(targets.target, targets.names()) for thing in target.prunable()
    ]
    if found and not dry_run:
        for _, thing in found if session.ui.interactive else ():
            session.ui.say(thing)
        session.ui.confirm(f"Remove {plural(len(found), 'thing')} that no node uses?", yes=yes)
        for target, thing in found:
            target.prune(thing)
    unused = [thing for _, thing in found]

    def human() -> None:
        for thing in unused:
            session.ui.line(f"{'would remove' if dry_run else 'removed'} {thing}")
        if not unused:
            session.ui.line("Nothing to remove: every environment and image is used, or there is none.")

    session.ui.result({"removed": [] if dry_run else unused, "unused": unused}, human)
