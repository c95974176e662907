"""The options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from gridup_infra.errors import UsageError


def complete_names(incomplete: str) -> list[str]:
    """The names of deployments, for the shell's completion; never fails."""
    from gridup.settings import Settings
    from gridup.state import State

    try:
        records = State.of(Settings.load()).records()
    except Exception:  # noqa: BLE001 - a broken state must not break the shell
        return []
    return [record.name for record in records if record.name.startswith(incomplete)]


NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="The node's name.", autocompletion=complete_names),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="The node's name.", autocompletion=complete_names)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WaitLock = Annotated[
    float,
    typer.Option("--wait-lock", metavar="SECONDS", min=0, help="Wait for another update of this node."),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait in all.")
]


def one_name(argument: str | None, option: str | None) -> str | None:
    """The name, given as an argument or as --name.

    Raises:
        UsageError: both were given, and differ.
    """
    if argument is not None and option is not None and argument != option:
        raise UsageError(f"Two names were given: {argument!r} and --name {option!r}.", "Give one of them.")
    return option if argument is None else argument
