"""Deploying one node: what it should be, whether that can be, the engine, the proof, the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gridup import health
from gridup.engine_api import Engine, Report
from gridup.own_address import network
from gridup.reporter import Reporter
from gridup.session import Session, require
from gridup.ssh_keys import check_types
from gridup.state import Record
from gridup.ui import Ui, plural
from gridup_infra import targets
from gridup_infra.errors import BusyError, NameError_, ResourceError, UsageError
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
    "resource_group": Capability.RESOURCE_GROUP,
    "private": Capability.PRIVATE,
    "image": Capability.IMAGE,
    "generation": Capability.NEW_MACHINE,
    "host": Capability.HOST,
    "host_key": Capability.HOST,
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
        yes: never ask; go on.
        password: of the admin, to be set on the node; never kept by us.
    """

    timeout: float = 300
    wait_lock: float = 0
    wait: bool = True
    preflight: bool = True
    yes: bool = False
    password: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a node should be, where, what the state has of it, and what going there takes away."""

    spec: DeploySpec
    target: Target
    record: Record | None
    losses: tuple[str, ...] = ()

    @property
    def current(self) -> NodeOutputs | None:
        """The node as it is deployed; None for a new one, and for one whose making was broken off."""
        return self.record.outputs if self.record else None


def plan(session: Session, name: str, asked: Mapping[str, Any], defaults: Mapping[str, Any]) -> Plan:
    """What the node called `name` should be. Whatever is impossible is refused here, and nothing is made.

    Args:
        asked: fields of a `DeploySpec`, and `new_machine`; None keeps what the stack has, or the default.
        defaults: the same, for a new node only.
    """
    stack = stack_name(name)
    record = session.state.read(stack)
    stored = session.settings.stored_config(stack)
    spec, target = resolve(asked, defaults, name, record, stored, session.state.secret, session.prepare)
    spec = opened(session, spec, target)
    losses = target.losses(spec, record.outputs) if record and record.outputs else ()
    return Plan(spec, target, record, losses)


def deploy(
    session: Session, name: str, asked: Mapping[str, Any], defaults: Mapping[str, Any], how: How
) -> None:
    """Deploy one node and show it.

    Args:
        asked, defaults: as `plan` takes them.
    """
    # Before anything is fetched or made.
    foreseen = plan(session, name, asked, defaults)
    if how.password is not None and foreseen.spec.no_node:
        raise UsageError(
            "--admin-password-file: with --no-node there is no node to set it on.",
            "Give it to the deploy that brings the node up.",
        )
    agree(session.ui, foreseen, yes=how.yes)
    with session.ui.progress() as reporter:
        engine = session.engine(reporter)
        with engine.lock(foreseen.spec.stack, name, "a deploy", how.wait_lock):
            now = plan(session, name, asked, defaults)
            if not how.yes and set(now.losses) - set(foreseen.losses):
                raise BusyError(
                    f"{name} was changed by another run meanwhile.", "Run the same command again."
                )
            spec, target, record = now.spec, now.target, now.record
            if how.preflight:
                target.preflight(spec, now.current)
            reporter.step(f'Deploying "{name}" on {target.title}')
            look = must_look(record, target)
            if look and record:
                settle(record, target, engine, reporter)
            try:
                report = engine.up(spec, reporter, refresh=look)
            except ResourceError as error:
                raise target.explained(error, spec) from error
            outputs = outputs_of(session, spec.stack)
            results = None
            if how.wait or how.password is not None:
                results = health.wait_healthy(target, outputs, reporter, how.timeout, own=session.own_address)
            if how.password is not None:
                set_password(target, outputs, reporter, how.password)
    show(session.ui, outputs, report, results)


def agree(ui: Ui, plan: Plan, *, yes: bool) -> None:
    """Have the person agree to what is lost, and to what is made where it costs money.

    Something new is made without a word where there is nobody to ask: the command itself asked for it.

    Raises:
        UsageError: something would be lost, nobody can be asked, and --yes was not given.
        DeclinedError: the answer was not yes.
    """
    name, title = plan.spec.name, plan.target.title
    if plan.losses:
        about = [f'This changes "{name}", and takes away:', *(f"  - {line}" for line in plan.losses)]
        ui.confirm(f'Change "{name}"?', yes=yes, about=about)
    elif plan.record is None and Capability.REGION in plan.target.capabilities and (yes or ui.interactive):
        about = [f'This makes "{name}" on {title}:']
        about += [f"  - {line}" for line in plan.target.summary(plan.spec)]
        ui.confirm(f'Make "{name}"?', yes=yes, about=about)


def opened(session: Session, spec: DeploySpec, target: Target) -> DeploySpec:
    """The spec with whom ssh and jupyter are opened to: by default to whoever deploys.

    Raises:
        UsageError: that address can't be told.
    """
    if Capability.FIREWALL not in target.capabilities or spec.allow_cidr:
        return spec
    address = session.own_address()
    if address is None:
        raise UsageError(
            "ssh and jupyter are opened to your own public address alone, and that can't be told from here.",
            "Say who may reach them, such as --allow-cidr 203.0.113.0/24.",
        )
    return replace(spec, allow_cidr=(network(address),))


def resolve(
    asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
    name: str,
    record: Record | None,
    stored: Mapping[str, str],
    secret: Secret | None = None,
    prepare: Callable[[Target], None] = lambda _target: None,
) -> tuple[DeploySpec, Target]:
    """What the node should be: the flags given, over what the stack has, over the defaults.

    Args:
        stored: the stack's configuration on this machine, for a first deploy that was broken off.
        secret: lent to the target.
        prepare: sees that the target's SDK is there, once what is asked is known to be possible.

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
    if given.pop("new_machine", False):
        require(target, Capability.NEW_MACHINE, FLAGS["generation"])
        if previous:
            given["generation"] = previous.generation + 1
    for key in given.keys() & NEEDS.keys():
        if given[key]:
            require(target, NEEDS[key], FLAGS.get(key, f"--{key.replace('_', '-')}"))
    check_types(target, given.get("ssh_keys", ()))
    # The one option that is not kept: the next deploy without it brings the node up.
    whole = replace(base, **{"no_node": False, **given})
    prepare(target)
    return target.resolve(whole, previous), target


def settle(record: Record, target: Target, engine: Engine, reporter: Reporter) -> None:
    """Have what a broken-off deploy has made taken into the state, where the target can tell of it."""
    if record.identity and (made := target.settle(record.identity, record.known)):
        reporter.step(f"Taking over what was made of {record.name} before it was broken off")
        engine.adopt(record.stack, made, reporter)


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
    # Elsewhere its mark still tells where it was being made.
    where: dict[str, Any] = {
        key: found.facts[key] for key in ("region", "host", "resource_group") if found.facts.get(key)
    }
    return DeploySpec(name=found.name, target=found.target, stack_id=found.stack_id, **where)


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
        if outputs.not_offered.get("api"):
            ui.say(
                f'The container host stands: gridup ssh "{name}". `gridup deploy --name "{name}"` goes on.'
            )
            return
        ui.say(f'Log in as {outputs.spec.admin_email}; the password: gridup outputs "{name}" --show-secrets')
        for line in health.trust(outputs):
            ui.say(line)

    ui.result(data, human)
