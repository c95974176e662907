"""gridup deploy: create a node, or update it to the given options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gridup.commands.options import (
    AdminEmail,
    AdminSshKey,
    Adopt,
    AllowCidr,
    AllowEgress,
    Bind,
    Cloud,
    CpuCredits,
    Description,
    DiskSize,
    DomainName,
    Guests,
    Host,
    HostKey,
    HostName,
    Image,
    Json,
    KeepData,
    KeyFrom,
    MaxUpload,
    NameArgument,
    NameOption,
    NewMachine,
    NodeType,
    NoNode,
    Organization,
    Packages,
    PlainHttp,
    Port,
    Private,
    RebootAt,
    Rebuild,
    Region,
    ResourceGroup,
    Size,
    SshKey,
    SubnetId,
    Tag,
    TrustedProxy,
    WaitLock,
    WebCidr,
    Yes,
    asked,
    one_name,
)
from gridup.deploy_flow import DeployOptions, deploy
from gridup.session import Session
from gridup_infra.errors import UsageError

LONGEST_FILE = 4096
"""Maximum bytes of a password that are read from standard input."""

EPILOG = """\b
Examples:
  gridup deploy --name "Inst"
  gridup deploy --name "Inst" --port 9000 --admin-email it@inst.example
  gridup deploy --name "Hub" --type network
  gridup deploy --name "Inst" --keep-data --json
  gridup deploy --name "Inst" --adopt                    data that was kept by a destroy
  gridup deploy --name "Inst" --rebuild                  the newest packages, the data stays
  gridup deploy --name "Inst" --packages science.txt     more of them, "none" for no more

\b
On a cloud:
  gridup deploy --name "Inst" --cloud azure --region westeurope
  gridup deploy --name "Inst" --cloud aws --region eu-west-1
  gridup deploy --name "Inst" --cloud aws --domain-name node.inst.example \\
      --allow-cidr 203.0.113.0/24 --ssh-key ~/.ssh/id_ed25519.pub
  gridup deploy --name "Inst" --cloud aws --no-node      VM, network and Docker
  gridup deploy --name "Inst" --size t3.xlarge           a change, the data stays
  gridup deploy --name "Inst" --reboot-at 03:30          for updates of the kernel

\b
On a machine that you have:
  gridup deploy --name "Inst" --cloud ssh --host ada@lab.inst.example

Same name again: brings the node to what is asked; an option that is not given
keeps its value. Nothing to change says so and exits 0. What a change would take
away is said first, and asked about; --yes agrees to it. Data that an earlier
node of the name has left is announced and asked about, too: --adopt takes it
over, --new-data leaves it. A script must say which, or it ends with exit code 2."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    cloud: Cloud = None,
    node_type: NodeType = None,
    port: Port = None,
    bind: Bind = None,
    plain_http: PlainHttp = None,
    admin_email: AdminEmail = None,
    organization: Organization = None,
    description: Description = None,
    admin_password_file: Annotated[
        Path | None,
        typer.Option("--admin-password-file", help="File with its password.  [default: the node makes one]"),
    ] = None,
    tag: Tag = None,
    image: Image = None,
    packages: Packages = None,
    keep_data: KeepData = None,
    region: Region = None,
    size: Size = None,
    disk_size: DiskSize = None,
    cpu_credits: CpuCredits = None,
    domain_name: DomainName = None,
    allow_cidr: AllowCidr = None,
    web_cidr: WebCidr = None,
    ssh_key: SshKey = None,
    admin_ssh_key: AdminSshKey = None,
    reboot_at: RebootAt = None,
    max_upload: MaxUpload = None,
    guests: Guests = None,
    trusted_proxy: TrustedProxy = None,
    host_name: HostName = None,
    subnet_id: SubnetId = None,
    resource_group: ResourceGroup = None,
    private: Private = None,
    allow_egress: AllowEgress = None,
    no_node: NoNode = None,
    new_machine: NewMachine = None,
    rebuild: Rebuild = None,
    adopt: Adopt = None,
    host: Host = None,
    host_key: HostKey = None,
    key_from: KeyFrom = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="For the endpoints to answer.")
    ] = 300,
    wait_lock: WaitLock = 0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the endpoints.")] = False,
    no_preflight: Annotated[bool, typer.Option("--no-preflight", help="Skip the checks before.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make a node, or bring one to what is asked; safe to repeat."""
    given, defaults = asked(context, locals())
    session = Session.of(context, json=json)
    how = DeployOptions(
        timeout=timeout,
        wait_lock=wait_lock,
        wait=not no_wait,
        preflight=not no_preflight,
        yes=yes,
        password=read_password(admin_password_file) if admin_password_file else None,
    )
    wanted = one_name(argument, name)
    if wanted is None:
        wanted = session.ui.ask("Name of the node", "--name")
    deploy(session, wanted, given, defaults, how)


def read_password(path: Path) -> str:
    """Read the admin's password from a file, or from standard input if the path is `-`.

    A line break at the end is not part of the password.

    Raises:
        UsageError: the file can't be read or is not UTF-8, or the password breaks the rules.
    """
    from gridup_node.secrets import check_password

    try:
        raw = sys.stdin.buffer.read(LONGEST_FILE) if str(path) == "-" else path.expanduser().read_bytes()
        # An editor may write a UTF-8 byte order mark, which is not part of the password.
        text = raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UsageError(f"--admin-password-file {path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"--admin-password-file {path} is no text in UTF-8.", "Save it as UTF-8.") from None
    try:
        check_password(text)
    except ValueError as error:
        raise UsageError(f"The password in {path} is refused: {error}.") from None
    return text
