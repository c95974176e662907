"""The options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gridup_infra import targets
from gridup_infra.errors import UsageError
from gridup_infra.spec import NODE_TYPES
from gridup_node.services import FRONT, service


def complete_names(incomplete: str) -> list[str]:
    """The names of deployments, for the shell's completion; never fails."""
    from gridup.settings import Settings
    from gridup.state import State

    try:
        records = State.of(Settings.load()).records()
    except Exception:  # noqa: BLE001 - a broken state must not break the shell
        return []
    return [record.name for record in records if record.name.startswith(incomplete)]


def complete_clouds(incomplete: str) -> list[str]:
    """The targets there are, for the shell's completion."""
    return [name for name in targets.names() if name.startswith(incomplete)]


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
Cloud = Annotated[
    str | None,
    typer.Option(
        "--cloud",
        envvar="GRIDUP_CLOUD",
        help=f"Where it runs: {', '.join(targets.names())}.  [default: {targets.DEFAULT}]",
        autocompletion=complete_clouds,
    ),
]
NodeType = Annotated[
    str | None, typer.Option("--type", help=f"{' or '.join(NODE_TYPES)}.  [default: {NODE_TYPES[0]}]")
]
Port = Annotated[
    int | None,
    typer.Option("--port", help=f"Of the front door.  [default: {service(FRONT).port} or the next free one]"),
]
Bind = Annotated[
    str | None, typer.Option("--bind", help="Address that services listen on.  [default: 127.0.0.1]")
]
Tag = Annotated[str | None, typer.Option("--tag", help="syft version.  [default: latest]")]
KeepData = Annotated[
    bool | None, typer.Option("--keep-data/--no-keep-data", help="Whether destroy keeps the node's data.")
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


PARAMETERS = {"target": "cloud", "ssh_keys": "ssh_key"}
"""Where a command's parameter is not called like the spec's field."""


def explicit(context: typer.Context, asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command line itself asks for, and what the environment or config.yaml has as a default.

    A default is for new nodes: it must not change one that is deployed.
    """
    given: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for key, value in asked.items():
        source = context.get_parameter_source(PARAMETERS.get(key, key))
        (given if source is None or source.name == "COMMANDLINE" else defaults)[key] = value
    return given, defaults
