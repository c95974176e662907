"""The options and arguments that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from gridup.session import Which
from gridup_infra import targets
from gridup_infra.errors import UsageError
from gridup_infra.naming import moves_text
from gridup_infra.spec import DEFAULT_ADMIN_EMAIL, HTTP, HTTPS, NODE_TYPES, DeploySpec
from gridup_node.services import PROXY, programs, service


def complete_names(incomplete: str) -> list[str]:
    """Return the names of nodes that begin with `incomplete`, for shell completion. Never raises."""
    from gridup.settings import Settings
    from gridup.state import State

    try:
        records = State.of(Settings.load()).records()
    except Exception:  # noqa: BLE001 - a broken state must not break the shell
        return []
    found = [name for name in (record.name for record in records) if name.startswith(incomplete)]
    # bash inserts a completion unquoted; other shells quote it themselves. Quote with backslashes, so that
    # the completion still begins with the typed text.
    in_bash = os.environ.get("_GRIDUP_COMPLETE") == "complete_bash"
    return [
        re.sub(r"([^\w@%+=:,./-])", r"\\\1", name) if in_bash else name
        for name in found
        if not moves_text(name)
    ]


def complete_clouds(incomplete: str) -> list[str]:
    """Return the targets that begin with `incomplete`, for shell completion."""
    return [name for name in targets.names() if name.startswith(incomplete)]


def complete_types(incomplete: str) -> list[str]:
    """Return the node types that begin with `incomplete`, for shell completion."""
    return [name for name in NODE_TYPES if name.startswith(incomplete)]


def complete_services(incomplete: str) -> list[str]:
    """Return the services with logs that begin with `incomplete`, for shell completion."""
    return [row.name for row in programs() if row.name.startswith(incomplete)]


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
    str | None,
    typer.Option(
        "--type",
        help=f"{' or '.join(NODE_TYPES)}.  [default: {NODE_TYPES[0]}]",
        autocompletion=complete_types,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", help=f"Port of the UI and API.  [default: {service(PROXY).port} or the next free one]"
    ),
]
Bind = Annotated[
    str | None,
    typer.Option("--bind", help="Address that services listen on.  [default: 127.0.0.1; on a machine all]"),
]
PlainHttp = Annotated[
    bool | None,
    typer.Option("--plain-http/--no-plain-http", help="Beyond 127.0.0.1 too, where https is the default."),
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
CpuCredits = Annotated[
    str | None,
    typer.Option(
        "--cpu-credits",
        metavar="standard|unlimited",
        help="Of t3 and t4g sizes on AWS: slower without credits, or billed for more.  [default: standard]",
    ),
]
DomainName = Annotated[
    str | None,
    typer.Option("--domain-name", metavar="FQDN", help="The node's DNS name; gets a public certificate."),
]
AllowCidr = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-cidr",
        metavar="CIDR",
        help="Who may reach ssh and jupyter; repeatable.  [default: on a cloud your own address]",
    ),
]
WebCidr = Annotated[
    list[str] | None,
    typer.Option(
        "--web-cidr",
        metavar="CIDR",
        help="Who may reach api and UI; repeatable.  [default: everybody]",
    ),
]
SshKey = Annotated[
    list[Path] | None,
    typer.Option(
        "--ssh-key",
        metavar="FILE.pub",
        help='Public key to let in, on a machine without rights; repeatable, "none" for nobody\'s.',
    ),
]
AdminSshKey = Annotated[
    list[Path] | None,
    typer.Option(
        "--admin-ssh-key",
        metavar="FILE.pub",
        help='Public key to let in with sudo and Docker; repeatable, "none" for nobody\'s.',
    ),
]
RebootAt = Annotated[
    str | None,
    typer.Option(
        "--reboot-at",
        metavar="HH:MM",
        help="When updates may restart a cloud's VM, by its clock (UTC).  [default: never]",
    ),
]
Organization = Annotated[
    str | None,
    typer.Option(
        "--organization", metavar="TEXT", help="Who runs the node, as its visitors read it; '' for nobody."
    ),
]
Description = Annotated[
    str | None,
    typer.Option("--description", metavar="TEXT", help="What the node is for, in a line; '' for nothing."),
]
Packages = Annotated[
    Path | None,
    typer.Option(
        "--packages",
        metavar="FILE",
        help='Packages that approved code and notebooks may import, a line each; "none" for no more of them.',
    ),
]
MaxUpload = Annotated[
    int | None,
    typer.Option(
        "--max-upload", metavar="MB", min=1, help="Largest upload of a data owner.  [default: 2048]"
    ),
]
Guests = Annotated[
    bool | None,
    typer.Option(
        "--guests/--no-guests",
        help="Whether people without an account may read the catalogue: datasets and their mocks.",
    ),
]
TrustedProxy = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        metavar="CIDR",
        help="Where a reverse proxy of yours connects from, to be believed about who asks; repeatable.",
    ),
]
HostName = Annotated[
    list[str] | None,
    typer.Option(
        "--host-name", metavar="FQDN", help="A further name that people open the node by; repeatable."
    ),
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
AllowEgress = Annotated[
    bool | None,
    typer.Option(
        "--allow-egress/--no-allow-egress",
        help="Whether notebooks and jobs may connect to what is outside.  [default: no]",
    ),
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
Rebuild = Annotated[
    bool | None,
    typer.Option("--rebuild", help="Make the node's image or environment anew, with the newest of all."),
]
Adopt = Annotated[
    bool | None,
    typer.Option(
        "--adopt/--new-data",
        help="Take over the data that an earlier node of the name has left, or begin with none and leave it.",
    ),
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
        help="The key that the machine must show.  [default: as known_hosts has it, or what it shows first]",
    ),
]
KeyFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--key-from",
        metavar="CIDR",
        help='From where the stack\'s key lets in to a machine of yours; repeatable, "none" for anywhere.',
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait in all.")
]


StackOption = Annotated[
    str | None,
    typer.Option("--stack", metavar="STACK", help="The node's Pulumi stack, in the place of its name."),
]


def meant(argument: str | None, option: str | None, stack: str | None) -> Which:
    """Return which node the user means: by name (argument or --name) or by --stack.

    Raises:
        UsageError: two different names were given, or a name and --stack.
    """
    name = one_name(argument, option)
    if name is not None and stack is not None:
        raise UsageError(f'"{name}" and --stack {stack} were both given.', "Give one of them.")
    return Which(name, stack)


def one_name(argument: str | None, option: str | None) -> str | None:
    """Return the name that was given as an argument or as --name; None if there is none.

    Raises:
        UsageError: both were given and differ, or --name has no value.
    """
    if option is not None and option.startswith("-"):
        raise UsageError(f"--name has no value before {option}.", 'For example --name "Inst".')
    if argument is not None and option is not None and argument != option:
        raise UsageError(f'Two names were given: "{argument}" and --name "{option}".', "Give one of them.")
    return option if argument is None else argument


PARAMETERS = {
    "target": "cloud",
    "ssh_keys": "ssh_key",
    "admin_ssh_keys": "admin_ssh_key",
    "trusted_proxies": "trusted_proxy",
    "host_names": "host_name",
    "scheme": "plain_http",
}
"""The command's parameter for each spec field that has another name."""

NOBODY = Path("none")
"""The word "none" in place of a file: no public keys, or no packages."""

NEVER = "never"

NON_SPEC_OPTIONS = ("new_machine", "rebuild", "adopt")
"""Options of a deploy that are not spec fields, but change one."""


def asked(context: typer.Context, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the spec values from the command line, and those from the environment or config.yaml.

    The second dictionary holds defaults for new nodes: they must not change a deployed node.

    Args:
        values: the command's parameters; they include those for the fields of a `DeploySpec`.

    Raises:
        UsageError: a file of a public key or of packages is not valid.
    """
    given: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for key in (*(field.name for field in fields(DeploySpec) if field.name != "name"), *NON_SPEC_OPTIONS):
        parameter = PARAMETERS.get(key, key)
        value = values.get(parameter)
        if key in ("ssh_keys", "admin_ssh_keys") and value:
            from gridup.ssh_keys import read_key

            flag = f"--{parameter.replace('_', '-')}"
            value = () if value == [NOBODY] else tuple(read_key(path, flag) for path in value)
        if key == "packages" and value is not None:
            from gridup import package_file

            value = () if value == NOBODY else package_file.read(value)
        if key == "scheme" and value is not None:
            value = HTTP if value else HTTPS
        if key == "reboot_at" and value == NEVER:
            value = ""
        if key == "key_from" and value == [str(NOBODY)]:
            value = ()
        if isinstance(value, list):
            value = tuple(value) or None
        if value is not None:
            source = context.get_parameter_source(parameter)
            (given if source is None or source.name == "COMMANDLINE" else defaults)[key] = value
    return given, defaults
