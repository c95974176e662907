"""gridup deploy: make a node, or bring one to what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gridup.commands.options import (
    Bind,
    Cloud,
    Json,
    KeepData,
    NameArgument,
    NameOption,
    NodeType,
    Port,
    Tag,
    WaitLock,
    Yes,
    explicit,
    one_name,
)
from gridup.deploying import How, deploy
from gridup.session import Session
from gridup_infra.errors import UsageError
from gridup_infra.spec import DEFAULT_ADMIN_EMAIL

EPILOG = """\b
Examples:
  gridup deploy --name "Inst"
  gridup deploy --name "Inst" --port 9000 --admin-email it@inst.example
  gridup deploy --name "Hub" --type network
  gridup deploy --name "Inst" --keep-data --json

Same name again: brings the node to what is asked; an option that is not given
keeps its value. Nothing to change says so and exits 0."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    cloud: Cloud = None,
    node_type: NodeType = None,
    port: Port = None,
    bind: Bind = None,
    admin_email: Annotated[
        str | None,
        typer.Option("--admin-email", help=f"The root account.  [default: {DEFAULT_ADMIN_EMAIL}]"),
    ] = None,
    admin_password_file: Annotated[
        Path | None,
        typer.Option("--admin-password-file", help="File with its password.  [default: the node makes one]"),
    ] = None,
    tag: Tag = None,
    keep_data: KeepData = None,
    region: Annotated[str | None, typer.Option("--region", help="Of the cloud.")] = None,
    size: Annotated[str | None, typer.Option("--size", help="Of the VM.")] = None,
    disk_size: Annotated[int | None, typer.Option("--disk-size", help="Of the data disk, in GB.")] = None,
    domain_name: Annotated[str | None, typer.Option("--domain-name", help="The node's DNS name.")] = None,
    allow_cidr: Annotated[
        list[str] | None, typer.Option("--allow-cidr", help="Who may reach ssh and jupyter; repeatable.")
    ] = None,
    web_cidr: Annotated[
        list[str] | None, typer.Option("--web-cidr", help="Who may reach api and UI; repeatable.")
    ] = None,
    ssh_key: Annotated[
        list[Path] | None, typer.Option("--ssh-key", help="Public key file to let in; repeatable.")
    ] = None,
    no_node: Annotated[bool | None, typer.Option("--no-node", help="Stop at the container host.")] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="For the endpoints to answer.")
    ] = 300,
    wait_lock: WaitLock = 0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the endpoints.")] = False,
    no_preflight: Annotated[bool, typer.Option("--no-preflight", help="Skip the checks before.")] = False,
    yes: Yes = False,  # noqa: ARG001 - nothing here asks yet; scripts may always give it
    json: Json = False,
) -> None:
    """Make a node, or bring one to what is asked; safe to repeat."""
    asked = {
        "target": cloud,
        "node_type": node_type,
        "port": port,
        "bind": bind,
        "admin_email": admin_email,
        "tag": tag,
        "keep_data": keep_data,
        "region": region,
        "size": size,
        "disk_size": disk_size,
        "domain_name": domain_name,
        "allow_cidr": tuple(allow_cidr) if allow_cidr else None,
        "web_cidr": tuple(web_cidr) if web_cidr else None,
        "ssh_keys": tuple(read_key(path) for path in ssh_key) if ssh_key else None,
        "no_node": no_node,
    }
    session = Session.of(context, json=json)
    given = one_name(argument, name)
    how = How(
        timeout=timeout,
        wait_lock=wait_lock,
        wait=not no_wait,
        preflight=not no_preflight,
        password=read_password(admin_password_file) if admin_password_file else None,
    )
    wanted = given if given is not None else session.ui.ask("Name of the node", "--name")
    deploy(session, wanted, *explicit(context, asked), how)


def read_key(path: Path) -> str:
    """A public key file's one line.

    Raises:
        UsageError: it can't be read, or holds no public key.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--ssh-key {path} can't be read: {error}.") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1 or "PRIVATE KEY" in text or not lines[0].startswith(("ssh-", "ecdsa-", "sk-")):
        what = "a private key" if "PRIVATE KEY" in text else "not one public key"
        raise UsageError(f"--ssh-key {path} holds {what}.", "Give the .pub file.")
    return lines[0]


def read_password(path: Path) -> str:
    """The admin's password from a file; a line's end after it does not count.

    Raises:
        UsageError: the file can't be read, or the password does not fit the rule.
    """
    from gridup_node.secrets import check_password

    try:
        text = path.expanduser().read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--admin-password-file {path} can't be read: {error}.") from None
    try:
        check_password(text)
    except ValueError as error:
        raise UsageError(f"The password in {path} is refused: {error}.") from None
    return text
