"""gridup prune: remove node environments that no node uses."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup.commands.options import Json, Yes
from gridup.session import Session
from gridup.ui import plural
from gridup_infra.targets.local import pruning

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
    """Remove node environments that no node uses."""
    session = Session.of(context, json=json)
    home = session.settings.home
    unused = pruning.unused(home.runtimes, home.nodes)
    if unused and not dry_run:
        session.ui.confirm(f"Remove {plural(len(unused), 'environment')}?", yes=yes)
        for path in unused:
            pruning.remove(path)
    data = {"removed": [] if dry_run else [str(p) for p in unused], "unused": [str(p) for p in unused]}

    def human() -> None:
        for path in unused:
            session.ui.line(f"{'would remove' if dry_run else 'removed'} {path}")
        if not unused:
            session.ui.line("Nothing to remove: every environment is used, or there is none.")

    session.ui.result(data, human)
