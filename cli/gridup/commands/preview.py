"""gridup preview: show what deploy would do."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

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
    asked,
    one_name,
)
from gridup.deploy_flow import outlook, plan
from gridup.engine_api import Change
from gridup.reporter import Foreseeing
from gridup.session import Session
from gridup_infra.naming import check_name

EPILOG = """\b
Examples:
  gridup preview --name "Inst"
  gridup preview --name "Inst" --port 9000
  gridup preview --name "Inst" --cloud aws --region eu-west-1
  gridup preview --name "Inst" --adopt       with the data of an earlier node

What a deploy would destroy or take over is shown too."""


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
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Show what deploy would do, and do nothing."""
    given, defaults = asked(context, locals())
    session = Session.of(context, json=json)
    named = one_name(argument, name)
    wanted = check_name(named if named is not None else session.ui.ask("Name of the node", "--name"))
    planned = plan(session, wanted, given, defaults)
    for line in planned.target.warnings(planned.spec, planned.current):
        session.ui.warn(line)
    spec, record = planned.spec, planned.record
    losses, retained = planned.destructive_changes, planned.retained
    with (
        session.ui.progress() as reporter,
        # Without a record there is no stack to lock, and a preview must not create a stack folder.
        session.lock(spec.stack, wanted, "a preview", wait_lock) if record else contextlib.nullcontext(),
    ):
        reporter.step(f'Looking at what a deploy of "{wanted}" would change')
        report = session.engine(reporter).preview(spec, Foreseeing(reporter), new=record is None)
    makes = planned.target.makes(spec) if record is None else ()
    data = {
        "name": wanted,
        "stack": spec.stack,
        "target": spec.target,
        "changes": [
            {"resource": c.name, "operation": c.operation, "changed": list(c.changed)} for c in report.changes
        ],
        "makes": list(makes),
        "destructive_changes": list(losses),
        "retained": asdict(retained) if retained else None,
        "adopts": spec.adopting,
    }

    def human() -> None:
        if report.unchanged:
            session.ui.line("No change.")
            return
        rows = [[f"would {c.operation}", _changing(c)] for c in report.changes]
        session.ui.table(["What", "Resource"], rows)
        for line in makes:
            session.ui.line(f"  • {line}")
        if retained:
            session.ui.line(outlook(spec, retained))
        for line in losses:
            session.ui.line(f"It destroys {line}")

    session.ui.result(data, human)


def _changing(change: Change) -> str:
    """Return a resource's name with the properties that change."""
    return f"{change.name}: {', '.join(change.changed)}" if change.changed else change.name
