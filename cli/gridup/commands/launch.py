"""gridup launch: the words of HAGrid, `launch NAME… [domain|network] to docker:80`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from gridup.commands.options import AllowCidr, Json, Region, Size, SshKey, Yes, asked
from gridup.deploying import How, deploy
from gridup.session import Session
from gridup_infra import targets
from gridup_infra.errors import UsageError
from gridup_infra.spec import NODE_TYPES

EPILOG = """\b
Examples:
  gridup launch My Institution Name to docker:80 --tag=latest --tail=false
  gridup launch Inst domain to local:8080
  gridup launch Inst to aws --region eu-west-1

It is `gridup deploy --name NAME --type TYPE --cloud TARGET --port PORT`."""

GRAMMAR = "gridup launch NAME... [domain|network] to TARGET[:PORT]"


@dataclass(frozen=True)
class Launch:
    """What a line of HAGrid's grammar asks for; port 0 when it names none."""

    name: str
    node_type: str | None
    target: str
    port: int


def main(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="NAME... [domain|network] to TARGET[:PORT]")],
    tag: Annotated[str, typer.Option("--tag", help="syft version.")] = "latest",
    tail: Annotated[str, typer.Option("--tail", help="true: follow the logs afterwards.")] = "false",
    region: Region = None,
    size: Size = None,
    allow_cidr: AllowCidr = None,
    ssh_key: SshKey = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Deploy in the words of HAGrid: launch NAME to docker:80."""
    given, defaults = asked(context, locals())
    line = parse(words)
    follow = truth("--tail", tail)
    session = Session.of(context, json=json)
    said = {"node_type": line.node_type, "target": line.target, "port": line.port or None, "tag": tag}
    deploy(session, line.name, {**given, **said}, defaults, How(yes=yes))
    if follow and not json:
        from gridup.commands.logs import choose

        _, outputs, target = session.deployed(line.name)
        for service, text in target.way_in(outputs).logs(choose([], outputs), lines=10, follow=True):
            session.ui.line(f"{service} | {text}")


def parse(words: Sequence[str]) -> Launch:
    """Read the grammar. The name is every word before the type and the last `to` of its own.

    Raises:
        UsageError: it is not of that form; the form is in the suggestion.
    """
    if "to" not in words[1:-1]:
        raise UsageError("launch needs a name and, after the word `to`, where to.", GRAMMAR)
    at = len(words) - 1 - list(reversed(words)).index("to")
    name, where = list(words[:at]), list(words[at + 1 :])
    if len(where) != 1:
        raise UsageError(f"After `to` stands one target, not {' '.join(where)!r}.", GRAMMAR)
    node_type = name.pop() if len(name) > 1 and name[-1] in NODE_TYPES else None
    target, _, port = where[0].partition(":")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"{where[0]!r}: a port is a number from 1 to 65535.", GRAMMAR)
    targets.target(target)
    return Launch(" ".join(name), node_type, target, int(port) if port else 0)


def truth(flag: str, text: str) -> bool:
    """HAGrid's `--tail=false` and the like.

    Raises:
        UsageError: it is neither.
    """
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.casefold() not in values:
        raise UsageError(f"{flag}={text}: it is true or false.")
    return values[text.casefold()]
