"""The options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from gridup_infra import targets
from gridup_infra.errors import UsageError
from gridup_infra.spec import DEFAULT_ADMIN_EMAIL, NODE_TYPES, DeploySpec
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
AdminEmail = Annotated[
    str | None, typer.Option("--admin-email", help=f"The root account.  [default: {DEFAULT_ADMIN_EMAIL}]")
]
Region = Annotated[
    str | None, typer.Option("--region", help="Of the cloud.  [default: the one its own tools use]")
]
Size = Annotated[str | None, typer.Option("--size", help="Of the VM, in the cloud's own words.")]
DiskSize = Annotated[int | None, typer.Option("--disk-size", metavar="GB", min=1, help="Of the data disk.")]
DomainName = Annotated[
    str | None,
    typer.Option("--domain-name", metavar="FQDN", help="The node's DNS name; gets a public certificate."),
]
AllowCidr = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-cidr",
        metavar="CIDR",
        help="Who may reach ssh and jupyter on a cloud; repeatable.  [default: your own address]",
    ),
]
WebCidr = Annotated[
    list[str] | None,
    typer.Option(
        "--web-cidr",
        metavar="CIDR",
        help="Who may reach api and UI on a cloud; repeatable.  [default: everybody]",
    ),
]
SshKey = Annotated[
    list[Path] | None,
    typer.Option("--ssh-key", metavar="FILE.pub", help="Public key to let in as well; repeatable."),
]
SubnetId = Annotated[
    str | None,
    typer.Option(
        "--subnet-id", help="A subnet of yours to make the VM in.  [default: a network of the node's own]"
    ),
]
ResourceGroup = Annotated[
    str | None,
    typer.Option(
        "--resource-group",
        metavar="GROUP",
        help="A resource group of yours to make it in, on Azure.  [default: one of the node's own]",
    ),
]
Private = Annotated[
    bool | None,
    typer.Option("--private/--no-private", help="No public address: reached through your own network."),
]
Image = Annotated[
    str | None,
    typer.Option(
        "--image", metavar="REF", help="A published image of the node, to pull.  [default: built on the VM]"
    ),
]
NoNode = Annotated[
    bool | None,
    typer.Option("--no-node", help="Stop at the container host: VM, network, Docker. Holds for this run."),
]
NewMachine = Annotated[
    bool | None,
    typer.Option("--new-machine", help="Replace the VM; its data disk goes over to the new one."),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="[USER@]ADDRESS[:PORT]",
        help="A machine of yours, entered by your own ssh, for --cloud ssh.",
    ),
]
HostKey = Annotated[
    str | None,
    typer.Option(
        "--host-key",
        metavar='"ssh-ed25519 …"',
        help="The key that it must show.  [default: that of your known_hosts, else what it shows first]",
    ),
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

BESIDE = ("new_machine",)
"""What a deploy may be asked for that is no field of the spec, but changes one."""


def asked(context: typer.Context, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command line itself asks for, and what the environment or config.yaml has as a default.

    A default is for new nodes: it must not change one that is deployed.

    Args:
        values: the command's parameters, those that are fields of a `DeploySpec` among them.

    Raises:
        UsageError: a public key's file is none.
    """
    given: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for key in (*(field.name for field in fields(DeploySpec) if field.name != "name"), *BESIDE):
        parameter = PARAMETERS.get(key, key)
        value = values.get(parameter)
        if key == "ssh_keys" and value:
            from gridup.ssh_keys import read_key

            value = [read_key(path) for path in value]
        if isinstance(value, list):
            value = tuple(value) or None
        if value is not None:
            source = context.get_parameter_source(parameter)
            (given if source is None or source.name == "COMMANDLINE" else defaults)[key] = value
    return given, defaults
