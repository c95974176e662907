"""Deploying one node: what it should be, whether that can be, the engine, the proof, the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gridup import health
from gridup.engine_api import Report
from gridup.reporter import Reporter
from gridup.session import Session, require
from gridup.state import Record
from gridup.ui import Ui, plural
from gridup_infra import targets
from gridup_infra.errors import NameError_, UsageError
from gridup_infra.naming import stack_name
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import PROJECT, DeploySpec
from gridup_infra.targets.base import Capability, Secret, Target

NEEDS: dict[str, Capability] = {
    "port": Capability.PORT,
    "bind": Capability.BIND,
    "keep_data": Capability.KEEP_DATA,
    "region": Capability.REGION,
    "size": Capability.REGION,
    "disk_size": Capability.REGION,
    "allow_cidr": Capability.FIREWALL,
    "web_cidr": Capability.FIREWALL,
    "domain_name": Capability.DOMAIN_NAME,
    "ssh_keys": Capability.SSH_KEYS,
    "no_node": Capability.HOST_ONLY,
    "subnet_id": Capability.SUBNET,
    "private": Capability.PRIVATE,
    "image": Capability.IMAGE,
    "generation": Capability.NEW_MACHINE,
}
"""Which capability each part of a spec asks of its target."""

FLAGS = {
    "ssh_keys": "--ssh-key",
    "target": "--cloud",
    "node_type": "--type",
    "generation": "--new-machine",
}
"""Where a flag is not simply the field's name."""


@dataclass(frozen=True)
class How:
    """How a deploy is done, as against what is deployed.

    Attributes:
        timeout: seconds for the endpoints to answer.
        wait_lock: seconds to wait for another update of the node.
        wait: whether to wait for the endpoints at all.
        preflight: whether to look first for what is in the way.
        password: of the admin, to be set on the node; never kept by us.
    """

    timeout: float = 300
    wait_lock: float = 0
    wait: bool = True
    preflight: bool = True
    password: str | None = None


def deploy(
    session: Session, name: str, asked: Mapping[str, Any], defaults: Mapping[str, Any], how: How
) -> None:
    """Deploy one node and show it.

    Args:
        asked: fields of a `DeploySpec`; None keeps what the stack has, or the default.
        defaults: the same, for a new node only.
    """
    stack = stack_name(name)

    def wanted() -> tuple[DeploySpec, Target, Record | None]:
        record = session.state.read(stack)
        stored = session.settings.stored_config(stack)
        return *resolve(asked, defaults, name, record, stored, session.state.secret), record

    wanted()  # whatever is impossible is refused before anything is fetched or made
    with session.ui.progress() as reporter:
        engine = session.engine(reporter)
        with engine.lock(stack, name, "a deploy", how.wait_lock):
            spec, target, record = wanted()
            if how.preflight:
                target.preflight(spec, record.outputs if record else None)
            reporter.step(f'Deploying "{name}" on {target.title}')
            report = engine.up(spec, reporter, refresh=must_look(record, target))
            outputs = outputs_of(session, spec.stack)
            results = None
            if how.wait or how.password is not None:
                results = health.wait_healthy(target, outputs, reporter, how.timeout)
            if how.password is not None:
                set_password(target, outputs, reporter, how.password)
    show(session.ui, outputs, report, results)


def resolve(
    asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
    name: str,
    record: Record | None,
    stored: Mapping[str, str],
    secret: Secret | None = None,
) -> tuple[DeploySpec, Target]:
    """What the node should be: the flags given, over what the stack has, over the defaults.

    Args:
        stored: the stack's configuration on this machine, for a first deploy that was broken off.
        secret: lent to the target.

    Raises:
        NameError_: the stack belongs to a node of another name.
        UsageError: the target does not have what is asked, or can't be changed.
    """
    previous = known_spec(record, stored)
    if previous and previous.name != name:
        raise NameError_(
            f'"{name}" and the deployed "{previous.name}" would share the stack {previous.stack}.',
            "Choose a name that differs in its letters and digits.",
        )
    if previous is None:
        asked = {**defaults, **{key: value for key, value in asked.items() if value is not None}}
    given = {key: value for key, value in asked.items() if value is not None}
    if given.get("port") == 0:
        # In a spec 0 stands for "not asked for": a node would be moved to another port.
        raise UsageError("--port 0: a port is a number from 1 to 65535.")
    base = previous or DeploySpec(name=name, target=targets.DEFAULT).with_new_id()
    wanted = given.get("target", base.target)
    if previous and wanted != previous.target:
        raise UsageError(
            f'"{name}" is deployed on {previous.target}; it can\'t be moved to {wanted}.',
            "Deploy it there under another name, or destroy it first.",
        )
    target = targets.target(wanted, secret)
    for key in given.keys() & NEEDS.keys():
        if given[key]:
            require(target, NEEDS[key], FLAGS.get(key, f"--{key.replace('_', '-')}"))
    return target.resolve(replace(base, **given), previous), target


def must_look(record: Record | None, target: Target) -> bool:
    """Whether the engine must first look at what is really there: a new stack has nothing, and a target
    may be able to tell by itself, in milliseconds, that all is right."""
    if record is None:
        return False
    return record.half_made or record.outputs is None or not target.inspect(record.outputs).right


def known_spec(record: Record | None, stored: Mapping[str, str]) -> DeploySpec | None:
    """What is known of a stack's spec: as last deployed; of a broken-off first deploy as it was asked for."""
    if record is None:
        return None
    if record.outputs:
        return record.outputs.spec
    if record.identity is None:
        return None
    found = record.identity
    if stored.get(f"{PROJECT}:stack-id") == found.stack_id:
        return DeploySpec.from_config(stored)
    return DeploySpec(name=found.name, target=found.target, stack_id=found.stack_id)


def outputs_of(session: Session, stack: str) -> NodeOutputs:
    """The outputs of a stack that was just deployed."""
    record = session.state.read(stack)
    assert record is not None and record.outputs is not None
    return record.outputs


def set_password(target: Target, outputs: NodeOutputs, reporter: Reporter, password: str) -> None:
    """Have the node change its root account's password; the way is its own, so no state or argv sees it."""
    from gridup.secrets import change_password

    reporter.step("Setting the admin's password")
    change_password(target.way_in(outputs), password)


def show(ui: Ui, outputs: NodeOutputs, report: Report, results: Any) -> None:
    """The end of a deploy: the table, and what to do next."""
    from gridup import probes

    name = outputs.spec.name
    data = {
        "name": name,
        "stack": outputs.spec.stack,
        "target": outputs.spec.target,
        "address": outputs.address,
        "changes": [{"resource": c.name, "operation": c.operation} for c in report.changes],
        "endpoints": probes.to_json(results) if results else None,
    }

    def human() -> None:
        if results:
            health.show(ui, results, name, outputs)
        if report.unchanged:
            ui.say("Nothing changed: the node is as asked.")
        else:
            ui.say(f"Done: {plural(len({c.name for c in report.changes}), 'resource')} made or changed.")
        ui.say(f'Log in as {outputs.spec.admin_email}; the password: gridup outputs "{name}" --show-secrets')

    ui.result(data, human)
