"""gridup launch: deploy with HAGrid's syntax, `launch NAME… [domain|network] to docker:80`."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from gridup import hagrid
from gridup.commands import parsing
from gridup.commands.options import (
    AdminEmail,
    Adopt,
    AllowCidr,
    Json,
    MaxUpload,
    Region,
    ResourceGroup,
    Size,
    SshKey,
    Yes,
    asked,
)
from gridup.deploy_flow import DeployOptions, deploy
from gridup.session import Session, Which
from gridup_infra import targets
from gridup_infra.errors import UsageError
from gridup_infra.naming import stack_name
from gridup_infra.spec import NODE_TYPES

EPILOG = """\b
Examples:
  gridup launch My Institution Name to docker:80 --tag=latest --tail=false
  gridup launch Inst domain to local:8080
  gridup launch Inst to aws --region eu-west-1
  gridup launch to docker                      with a name that is made up

It is `gridup deploy --name NAME --type TYPE --cloud TARGET --port PORT`."""

KINDS = (
    "Bright",
    "Calm",
    "Clever",
    "Eager",
    "Gentle",
    "Jolly",
    "Keen",
    "Kind",
    "Lucid",
    "Merry",
    "Noble",
    "Proud",
    "Quick",
    "Quiet",
    "Swift",
    "Wise",
)
PEOPLE = (
    "Bernoulli",
    "Curie",
    "Euler",
    "Franklin",
    "Gauss",
    "Germain",
    "Hopper",
    "Kepler",
    "Lovelace",
    "Meitner",
    "Mendel",
    "Nightingale",
    "Noether",
    "Ramanujan",
    "Snow",
    "Turing",
)
"""A generated name has one word of `KINDS` and one of `PEOPLE`, like HAGrid's names."""

GRAMMAR = "gridup launch NAME... [domain|network] to TARGET[:PORT]"


class Command(parsing.Command):
    """A command that also accepts the flags of HAGrid's `launch`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        made, remarks = hagrid.translated(args)
        for remark in remarks:
            ctx.obj.warn(remark)
        return super().parse_args(ctx, made)


@dataclass(frozen=True)
class Launch:
    """A parsed `launch` command line. `port` is 0 if the line has none."""

    name: str
    node_type: str | None
    target: str
    port: int


def main(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="NAME... [domain|network] to TARGET[:PORT]")],
    tag: Annotated[str, typer.Option("--tag", help="syft version.")] = "latest",
    tail: Annotated[str, typer.Option("--tail", help="true: follow the logs afterwards.")] = "false",
    admin_email: AdminEmail = None,
    region: Region = None,
    size: Size = None,
    resource_group: ResourceGroup = None,
    max_upload: MaxUpload = None,
    allow_cidr: AllowCidr = None,
    ssh_key: SshKey = None,
    adopt: Adopt = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Deploy in the words of HAGrid: launch NAME to docker:80."""
    given, defaults = asked(context, locals())
    session = Session.of(context, json=json)
    nameless = len(words) == 2 and words[0] == "to"
    if nameless:
        words = [generated({record.stack for record in session.state.records()}), *words]
    line = parse(words)
    follow = parse_bool("--tail", tail)
    if nameless:
        session.ui.say(f'The node is called "{line.name}".')
    said = {"node_type": line.node_type, "target": line.target, "port": line.port or None, "tag": tag}
    deploy(session, line.name, {**given, **said}, defaults, DeployOptions(yes=yes))
    if follow and not json:
        from gridup.commands.logs import choose, show_lines

        outputs, target = session.require_target(session.find(Which(line.name)))
        show_lines(session.ui, target.access(outputs), choose([], outputs), lines=10, follow=True)


def parse(words: Sequence[str]) -> Launch:
    """Parse `GRAMMAR`. The name is all words before the last word `to`, without the type at the end.

    Raises:
        UsageError: the words don't match the grammar, or there is no such target.
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


def generated(taken: Container[str]) -> str:
    """Return a random name for a node, if the user gave none.

    Args:
        taken: the names of the existing stacks.
    """
    import secrets

    while stack_name(name := f"{secrets.choice(KINDS)} {secrets.choice(PEOPLE)}") in taken:
        pass
    return name


def parse_bool(flag: str, text: str) -> bool:
    """Parse a boolean value of a HAGrid flag, such as `--tail=false`.

    Raises:
        UsageError: the value is neither true nor false.
    """
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.casefold() not in values:
        raise UsageError(f"{flag}={text}: it is true or false.")
    return values[text.casefold()]
