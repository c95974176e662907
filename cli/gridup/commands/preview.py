"""gridup preview: what deploy would do."""

from __future__ import annotations

import typer

from gridup.commands.options import (
    AdminEmail,
    AllowCidr,
    Bind,
    Cloud,
    DiskSize,
    DomainName,
    Host,
    HostKey,
    Image,
    Json,
    KeepData,
    NameArgument,
    NameOption,
    NewMachine,
    NodeType,
    NoNode,
    Port,
    Private,
    Region,
    ResourceGroup,
    Size,
    SshKey,
    SubnetId,
    Tag,
    WaitLock,
    WebCidr,
    asked,
    one_name,
)
from gridup.deploying import plan
from gridup.session import Session
from gridup_infra.naming import check_name

EPILOG = """\b
Examples:
  gridup preview --name "Inst"
  gridup preview --name "Inst" --port 9000
  gridup preview --name "Inst" --cloud aws --region eu-west-1

What a deploy would take away is shown too."""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    cloud: Cloud = None,
    node_type: NodeType = None,
    port: Port = None,
    bind: Bind = None,
    admin_email: AdminEmail = None,
    tag: Tag = None,
    image: Image = None,
    keep_data: KeepData = None,
    region: Region = None,
    size: Size = None,
    disk_size: DiskSize = None,
    domain_name: DomainName = None,
    allow_cidr: AllowCidr = None,
    web_cidr: WebCidr = None,
    ssh_key: SshKey = None,
    subnet_id: SubnetId = None,
    resource_group: ResourceGroup = None,
    private: Private = None,
    no_node: NoNode = None,
    new_machine: NewMachine = None,
    host: Host = None,
    host_key: HostKey = None,
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Show what deploy would do, and do nothing."""
    given, defaults = asked(context, locals())
    session = Session.of(context, json=json)
    named = one_name(argument, name)
    wanted = check_name(named if named is not None else session.ui.ask("Name of the node", "--name"))
    planned = plan(session, wanted, given, defaults)
    spec, record = planned.spec, planned.record
    losses = planned.losses
    with session.ui.progress() as reporter:
        engine = session.engine(reporter)
        with engine.lock(spec.stack, wanted, "a preview", wait_lock):
            reporter.step(f'Looking at what a deploy of "{wanted}" would change')
            report = engine.preview(spec, reporter, new=record is None)
    data = {
        "name": wanted,
        "stack": spec.stack,
        "target": spec.target,
        "changes": [
            {"resource": c.name, "operation": c.operation, "changed": list(c.changed)} for c in report.changes
        ],
        "losses": list(losses),
    }

    def human() -> None:
        if report.unchanged:
            session.ui.line("No change.")
            return
        session.ui.table(["Would", "Resource"], [[c.operation, c.name] for c in report.changes])
        for line in planned.target.summary(spec) if record is None else ():
            session.ui.line(f"  • {line}")
        for line in losses:
            session.ui.line(f"It takes away {line}")

    session.ui.result(data, human)
