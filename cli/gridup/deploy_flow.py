"""Deploys one node: plan, preflight checks, engine run, health check, table of results."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from gridup import freshness, health, public_ip
from gridup.engine_api import Engine, Report
from gridup.reporter import Reporter
from gridup.session import Session, needs, require
from gridup.ssh_keys import check_types
from gridup.state import Record
from gridup.ui import Ui, plural
from gridup_infra import resolving, room, targets
from gridup_infra.errors import (
    BusyError,
    GridupError,
    InvalidNameError,
    PreflightError,
    ResourceError,
    UsageError,
)
from gridup_infra.naming import stack_name, typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import NEW_DATA, PROJECT, DeploySpec
from gridup_infra.targets.base import Capability, ReadSecret, Retained, Target
from gridup_node import services

REQUIRED_CAPABILITY: dict[str, Capability] = {
    "port": Capability.PORT,
    "bind": Capability.BIND,
    "scheme": Capability.SCHEME,
    "keep_data": Capability.KEEP_DATA,
    "region": Capability.REGION,
    "size": Capability.REGION,
    "disk_size": Capability.REGION,
    "cpu_credits": Capability.CPU_CREDITS,
    "allow_cidr": Capability.FIREWALL,
    "web_cidr": Capability.FIREWALL,
    "domain_name": Capability.DOMAIN_NAME,
    "ssh_keys": Capability.SSH_KEYS,
    "admin_ssh_keys": Capability.ADMIN_SSH_KEYS,
    "reboot_at": Capability.REBOOT,
    "no_node": Capability.HOST_ONLY,
    "subnet_id": Capability.SUBNET,
    "resource_group": Capability.RESOURCE_GROUP,
    "private": Capability.PRIVATE,
    "image": Capability.IMAGE,
    "allow_egress": Capability.EGRESS,
    "machine_revision": Capability.NEW_MACHINE,
    "host": Capability.HOST,
    "host_key": Capability.HOST_KEY,
    "key_from": Capability.KEY_FROM,
}
"""Field of a spec -> the capability that the target needs for it."""

FLAGS = {
    "scheme": "--plain-http",
    "ssh_keys": "--ssh-key",
    "admin_ssh_keys": "--admin-ssh-key",
    "target": "--cloud",
    "node_type": "--type",
    "machine_revision": "--new-machine",
}
"""Field of a spec -> its flag, for flags that are not simply the field's name."""


@dataclass(frozen=True)
class DeployOptions:
    """Options of the deploy itself. What is deployed is in `DeploySpec`.

    Attributes:
        timeout: seconds for the endpoints to answer.
        wait_lock: seconds to wait for another update of the node to end.
        wait: whether to wait for the endpoints.
        preflight: whether to check for obstacles before anything is created.
        yes: do not ask; continue.
        password: the admin's password, to be set on the node; Gridup never stores it.
    """

    timeout: float = 300
    wait_lock: float = 0
    wait: bool = True
    preflight: bool = True
    yes: bool = False
    password: str | None = None


@dataclass(frozen=True)
class Plan:
    """The wanted node, its target, its record in the state, and what the change destroys.

    Attributes:
        spec: the wanted node.
        target: the place where it runs.
        record: what the state has of the node; None for a new one.
        destructive_changes: what the change destroys, a line each.
        retained: retained data of an earlier node of this name, if this node is new: it may adopt it.
    """

    spec: DeploySpec
    target: Target
    record: Record | None
    destructive_changes: tuple[str, ...] = ()
    retained: Retained | None = None

    @property
    def current(self) -> NodeOutputs | None:
        """The node as deployed; None for a new node, and if its first deploy was interrupted."""
        return self.record.outputs if self.record else None


def plan(
    session: Session,
    name: str,
    asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
    announced: DeploySpec | None = None,
    look: Callable[[DeploySpec, Target, NodeOutputs | None], None] = lambda *_: None,
) -> Plan:
    """Return the plan for the node called `name`. Refuses everything impossible; creates nothing.

    Args:
        asked: fields of a `DeploySpec`, `new_machine`, `rebuild`, `rotate`, and `adopt` (whether to adopt an
            earlier node's data). A value of None keeps the stack's value, or the default for a new node.
        defaults: the same keys, used for a new node only.
        announced: the spec that was shown to the user. A new node gets the same stack id, because names are
            made from it. Its packages get the same versions.
        look: is called with the spec, the target and the current outputs before anything is fetched; raises
            an error to refuse the deploy.

    Raises:
        GridupError: something that was asked for is impossible.
        UsageError: another stack holds the node, or --adopt or --new-data was given for a deployed node.
    """
    stack = stack_name(name)
    record = session.state.read(stack)
    if record is None and announced is None and (others := session.state.renamed(name)):
        raise _elsewhere(name, stack, others)
    stored = session.settings.stored_config(stack)
    given, usual = (
        {key: value for key, value in options.items() if key != "adopt"} for options in (asked, defaults)
    )
    new = announced.stack_id if announced else ""
    spec, target = resolve(
        given, usual, name, record, stored, session.state.secret, session.prepare, new_id=new
    )
    look(spec, target, record.outputs if record else None)
    anew = bool({**(usual if record is None else {}), **given}.get("rebuild"))
    spec = locked(session, with_default_cidr(session, spec, target), announced, anew=anew)
    if record and record.outputs:
        if asked.get("adopt") is not None:
            raise UsageError(
                f'"{name}" is deployed, and has its data: --adopt and --new-data are for a new node.'
            )
        return Plan(spec, target, record, target.destructive_changes(spec, record.outputs))
    # An interrupted deploy may have recorded its choice already: keep that choice.
    found = None if spec.adopted else target.retained(spec)
    said = {key for options in (usual, given) for key, value in options.items() if value is not None}
    return Plan(chosen(spec, found, _adopt(asked, defaults), said), target, record, (), found)


def _elsewhere(name: str, stack: str, others: tuple[str, ...]) -> UsageError:
    """Return the error for a node whose stack was renamed: a deploy would create a second node."""
    other, *more = others
    if more:
        return UsageError(
            f'Several stacks hold a node called "{name}": {", ".join(others)}.',
            "Destroy those that are not wanted: `gridup destroy --stack STACK`.",
        )
    rename = shlex.join(["stack", "rename", "-s", other, stack])
    return UsageError(
        f'"{name}" is deployed, in the stack {other}: it was renamed. A deploy would make a second node.',
        f'`eval "$({typed("env", "--stack", other)})" && pulumi -C "$GRIDUP_PROJECT" {rename}` gives the '
        "stack its own name back.",
    )


def _adopt(asked: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool | None:
    said = asked.get("adopt")
    return defaults.get("adopt") if said is None else said


def chosen(
    spec: DeploySpec, found: Retained | None, adopt: bool | None, said: Collection[str] = ()
) -> DeploySpec:
    """Return the spec with the decision whether the node adopts an earlier node's retained data.

    Args:
        found: the retained data; None if there is none.
        adopt: the user's choice; None if there is no choice yet.
        said: the fields of the spec that the user or the defaults set. Some other fields are taken from the
            earlier node.

    Raises:
        UsageError: there is no data to adopt, or it is of a node of another type.
    """
    if adopt is None or spec.adopted:
        return spec
    if adopt and found is None:
        raise UsageError(f'--adopt: no data of an earlier "{spec.name}" was kept here.')
    if adopt and found:
        if "node_type" in said and found.node_type not in ("", spec.node_type):
            raise UsageError(
                f"--adopt: {found.what} is of a {found.node_type} node; its data are no "
                f"{spec.node_type} node's.",
                f"Leave --type out, or begin with none of it: --new-data --type {spec.node_type}.",
            )
        # The data was retained because of `keep_data`, so that stays set. Users log in as before.
        had = {"keep_data": True, "admin_email": found.admin_email, "node_type": found.node_type}
        kept: dict[str, Any] = {key: value for key, value in had.items() if value and key not in said}
        return replace(spec, adopted=found.id, adopting=True, **kept)
    return replace(spec, adopted=NEW_DATA)


def deploy(
    session: Session, name: str, asked: Mapping[str, Any], defaults: Mapping[str, Any], how: DeployOptions
) -> None:
    """Deploy one node and show the result.

    Args:
        asked, defaults: see `plan`.
    """
    # Lock first, so that other commands see this deploy: planning may install an SDK or ask the user.
    with session.lock(stack_name(name), name, "a deploy", how.wait_lock):
        _deploy(session, name, asked, defaults, how)


def _deploy(
    session: Session, name: str, asked: Mapping[str, Any], defaults: Mapping[str, Any], how: DeployOptions
) -> None:
    # `plan` calls this check before anything is fetched or created.
    look = partial(glance, session) if how.preflight else lambda *_: None
    foreseen = plan(session, name, asked, defaults, look=look)
    if how.password is not None and foreseen.spec.no_node:
        raise UsageError(
            "--admin-password-file: with --no-node there is no node to set it on.",
            "Give it to the deploy that brings the node up.",
        )
    if foreseen.record is None and not (how.yes or session.ui.json):
        answers: dict[str, Any] = about(session.ui, {**defaults, **asked})
        asked = {**asked, **answers}
        foreseen = replace(foreseen, spec=replace(foreseen.spec, **answers))
    for line in foreseen.target.warnings(foreseen.spec, foreseen.current):
        session.ui.warn(line)
    if foreseen.spec.rotating:
        session.ui.warn(
            f'The secrets of "{name}" were not all replaced yet: `{typed("rotate", name)}` goes on with it.'
        )
    asked = {**asked, "adopt": adoption(session.ui, foreseen, _adopt(asked, defaults), yes=how.yes)}
    confirm(session.ui, foreseen, yes=how.yes)
    with (
        _machine_told(session, foreseen.spec.stack),
        session.ui.progress() as reporter,
    ):
        now = plan(session, name, asked, defaults, foreseen.spec)
        if foreseen.retained != now.retained and now.spec.adopting:
            raise BusyError(f'The data of "{name}" were changed meanwhile.', "Run the same command again.")
        if not how.yes and set(now.destructive_changes) - set(foreseen.destructive_changes):
            raise BusyError(f'"{name}" was changed by another run meanwhile.', "Run the same command again.")
        spec, target = now.spec, now.target
        if how.preflight:
            # Quick checks come first: to get the engine and to build what the node runs on may take minutes.
            target.preflight(spec, now.current)
        engine = session.engine(reporter, how.wait_lock)
        reporter.step(f'Deploying "{name}" on {target.title}')
        report = bring_to(now, engine, reporter)
        outputs = outputs_of(session, spec.stack)
        results = None
        if how.wait or how.password is not None:
            results = health.wait_healthy(target, outputs, reporter, how.timeout, own=session.own_address)
        if results and spec.adopting and not spec.no_node:
            reporter.step("Taking over the data for good")
            bring_to(replace(now, spec=replace(spec, adopting=False)), engine, reporter)
            outputs = outputs_of(session, spec.stack)
        if how.password is not None:
            set_password(target, outputs, reporter, how.password)
    for line in moved(outputs, target, now.current):
        session.ui.say(line)
    render_result(session.ui, outputs, target, report, results, password=how.password is not None)


def glance(session: Session, spec: DeploySpec, target: Target, current: NodeOutputs | None) -> None:
    """Run the quick checks on this machine, before any step that takes minutes.

    Raises:
        PreflightError: a disk has no room for what the deploy writes, or `Target.glance` finds an obstacle.
    """
    if lack := room.lacking(needs(session.settings, spec, target)):
        raise PreflightError(lack, room.MAKE_ROOM)
    target.glance(spec, current)


QUESTIONS = {
    "organization": "Who runs it, as its visitors read it (Enter: nothing)",
    "description": "What it is for, in a line (Enter: nothing)",
}


def about(ui: Ui, said: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the user for the texts that a new node shows to its visitors; only if there is a terminal.

    Args:
        said: the options that are set already; these are not asked for.
    """
    answers = {key: ui.ask_for(text) for key, text in QUESTIONS.items() if said.get(key) is None}
    return {key: answer for key, answer in answers.items() if answer}


@contextlib.contextmanager
def _machine_told(session: Session, stack: str) -> Iterator[None]:
    """If a first deploy fails after its machine was created, warn that the machine costs money."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(GridupError):
            record = session.state.read(stack)
            if record and record.outputs is None:
                outputs, target = session.known(record)
                if place := target.place(outputs):
                    gone = typed("destroy", record.name)
                    session.ui.warn(
                        f"The machine was made, and costs money: {', '.join(place.values())}. "
                        f"`{typed('status', record.name)}` looks at it, `{gone}` deletes all of it."
                    )
        raise


def bring_to(plan: Plan, engine: Engine, reporter: Reporter) -> Report:
    """Let the engine create or change a node as planned.

    Raises:
        GridupError: the engine failed. The state has what exists; the same command continues the work.
    """
    look = needs_refresh(plan.record, plan.target)
    if look and plan.record:
        recover(plan.record, plan.target, engine, reporter)
    with explaining(plan.target, plan.spec):
        return engine.up(plan.spec, reporter, refresh=look)


@contextlib.contextmanager
def explaining(target: Target | None, spec: DeploySpec | None) -> Iterator[None]:
    """Translate an engine's ResourceError with `Target.translate_error`, if the target is known."""
    try:
        yield
    except ResourceError as error:
        if not target or not spec:
            raise
        raise target.translate_error(error, spec) from error


def adoption(ui: Ui, plan: Plan, adopt: bool | None, *, yes: bool) -> bool | None:
    """Return whether to adopt an earlier node's retained data: as given by a flag, else as the user answers.

    Returns None if there is no retained data and no flag was given.

    Raises:
        UsageError: no flag was given, and there is no terminal to ask or --yes was given.
        DeclinedError: the answer was not yes.
    """
    if plan.retained is None or adopt is not None:
        return adopt
    about = about_retained(plan.spec, plan.retained)
    if yes or not ui.interactive:
        raise UsageError(
            f'Data of an earlier "{plan.spec.name}" was kept, and --yes does not say what becomes of it.'
            if yes
            else f'Data of an earlier "{plan.spec.name}" was kept. There is no terminal to ask.',
            "Give --adopt to take it over, or --new-data to begin with none and leave it.",
            tuple(about),
        )
    ui.confirm(f'Take it over for "{plan.spec.name}"?', yes=False, about=about)
    return True


def about_retained(spec: DeploySpec, found: Retained) -> list[str]:
    """Return lines that describe the retained data and the choices that the user has."""
    when = f", kept {found.since[:16].replace('T', ' ')}" if found.since else ""
    size = f", {amount(found.size)}" if found.size else ""
    return [
        f'An earlier "{spec.name}" has left its data: {found.what}{when}{size}.',
        "Taken over (--adopt), the node has its datasets, its accounts with their passwords, and its keys; "
        f"`{typed('rotate', spec.name)}` replaces those. Else nothing is done now; with --new-data the node "
        "begins with none, and the data stay as they are.",
    ]


def outlook(spec: DeploySpec, found: Retained) -> str:
    """Return a sentence for a preview: what a deploy would do with an earlier node's retained data."""
    if spec.adopting:
        return f"It takes over {found.what}, which an earlier node has left"
    if spec.adopted:
        return f"It leaves {found.what}, which an earlier node has left, as it is"
    left = f"{found.what}, which an earlier node has left"
    return f"It asks about {left}: --adopt takes it over, --new-data does not"


def amount(size: int) -> str:
    """Return a number of bytes as text, in MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def confirm(ui: Ui, plan: Plan, *, yes: bool) -> None:
    """Ask the user to confirm destructive changes, and to confirm a new node that costs money.

    Without a terminal a new node needs no confirmation: the command itself asked for it.

    Raises:
        UsageError: something would be destroyed, there is no terminal to ask, and --yes was not given.
        DeclinedError: the answer was not yes.
    """
    name, title = plan.spec.name, plan.target.title
    if plan.destructive_changes:
        about = [
            f'This changes "{name}", and destroys:',
            *(f"  - {line}" for line in plan.destructive_changes),
        ]
        ui.confirm(f'Change "{name}"?', yes=yes, about=about)
    elif plan.record is None and Capability.REGION in plan.target.capabilities and (yes or ui.interactive):
        about = [f'This makes "{name}" on {title}:']
        about += [f"  - {line}" for line in plan.target.makes(plan.spec)]
        ui.confirm(f'Make "{name}"?', yes=yes, about=about)


def locked(session: Session, spec: DeploySpec, announced: DeploySpec | None, *, anew: bool) -> DeploySpec:
    """Return the spec with a lock of the packages that the data owner adds.

    Keeps the existing lock if it fits the packages that are asked for now.

    Args:
        announced: a spec with the versions that were found earlier in this run; None if there is none.
        anew: whether to look for the newest versions.

    Raises:
        UsageError: the packages do not exist or do not fit.
        PreflightError: the package index could not be reached.
    """
    if not spec.packages:
        return replace(spec, packages_lock="")
    if announced and announced.packages == spec.packages:
        spec, anew = replace(spec, packages_lock=announced.packages_lock), False
    if spec.no_node or (resolving.is_locked(spec) and not anew):
        return spec
    session.ui.say(f"Looking for {plural(len(spec.packages), 'package')} beside those of the node …")
    former = "" if anew else spec.packages_lock
    return replace(spec, packages_lock=resolving.lock(spec.packages, spec.tag, former))


def with_default_cidr(session: Session, spec: DeploySpec, target: Target) -> DeploySpec:
    """Return the spec with the networks that may reach ssh and jupyter; by default this machine's address.

    Raises:
        UsageError: this machine's public address can't be determined.
    """
    if Capability.CLOSED not in target.capabilities or spec.allow_cidr:
        return spec
    address = session.own_address()
    if address is None:
        proxy = public_ip.proxy(session.settings.environment)
        why = f": ssh does not go by the proxy that {proxy} names, whose address is another" if proxy else ""
        raise UsageError(
            "ssh and jupyter are opened to your own public address alone, and that can't be told from here"
            f"{why}.",
            "Say who may reach them, such as --allow-cidr 203.0.113.0/24.",
        )
    return replace(spec, allow_cidr=(public_ip.network(address),))


def resolve(
    asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
    name: str,
    record: Record | None,
    stored: Mapping[str, str],
    secret: ReadSecret | None = None,
    prepare: Callable[[Target], None] = lambda _target: None,
    now: Callable[[], datetime] = freshness.now,
    *,
    new_id: str = "",
) -> tuple[DeploySpec, Target]:
    """Return the wanted spec and its target: flags override the stack's values or, if new, the defaults.

    Args:
        asked, defaults: see `plan`, but without `adopt`.
        stored: the stack's configuration on this machine, for a first deploy that was interrupted.
        secret: reads a stack's secrets; passed to the target.
        prepare: installs the target's SDK if it is missing; called after the checks that need no SDK.
        now: returns the current time.
        new_id: the stack id of a new node; empty to generate one.

    Raises:
        InvalidNameError: the stack belongs to a node of another name.
        UsageError: the target does not offer what is asked for, or an option can't be changed.
    """
    previous = with_begun_rotation(record.previous_spec(stored) if record else None, stored)
    if previous and previous.name != name:
        raise InvalidNameError(
            f'"{name}" and the deployed "{previous.name}" would share the stack {previous.stack}.',
            "Choose a name that differs in its letters and digits.",
        )
    if previous is None:
        asked = {**defaults, **{key: value for key, value in asked.items() if value is not None}}
    given = {key: value for key, value in asked.items() if value is not None}
    if given.get("port") == 0:
        # In a spec 0 means "not asked for", so the node would move to another port.
        raise UsageError("--port 0: a port is a number from 1 to 65535.")
    fresh = DeploySpec(name=name, target=targets.DEFAULT, stack_id=new_id)
    base = previous or (fresh if new_id else fresh.with_new_id())
    wanted = given.get("target", base.target)
    if previous and wanted != previous.target:
        raise UsageError(
            f'"{name}" is deployed on {previous.target}; it can\'t be moved to {wanted}.',
            "Deploy it there under another name, or destroy it first.",
        )
    kind = given.get("node_type", base.node_type)
    if previous and kind != previous.node_type:
        raise UsageError(
            f'"{name}" is deployed as a {previous.node_type} node; its data are no {kind} node\'s.',
            f"Deploy a {kind} node under another name, or destroy this one first.",
        )
    target = targets.target(wanted, secret)
    if given.pop("new_machine", False):
        require(target, Capability.NEW_MACHINE, FLAGS["machine_revision"])
        if previous:
            given["machine_revision"] = previous.machine_revision + 1
    if given.pop("rebuild", False):
        if given.get("image", base.image):
            raise UsageError(
                "--rebuild: this node runs a published image, which is not built here.",
                "Give a newer one with --image.",
            )
        given["rebuilt"] = now().isoformat(timespec="microseconds")
    if given.pop("rotate", False) and not base.rotating:
        given |= {"rotated": now().isoformat(timespec="microseconds"), "rotating": True}
        if Capability.NEW_MACHINE in target.capabilities:
            # A machine generates its own secrets, such as its host key, at first boot: replace the machine.
            given["machine_revision"] = base.machine_revision + 1
    for key in given.keys() & REQUIRED_CAPABILITY.keys():
        if given[key]:
            require(target, REQUIRED_CAPABILITY[key], FLAGS.get(key, f"--{key.replace('_', '-')}"))
    for part in ("ssh_keys", "admin_ssh_keys"):
        check_types(target, given.get(part, ()), FLAGS[part])
    # `no_node` is the one option that is not stored: the next deploy without it starts the node.
    whole = replace(base, **{"no_node": False, **given})
    if whole.packages and whole.image:
        raise UsageError(
            "--packages: a published image has its own packages, and gets no others here.",
            'Give --packages none, or --image "" for an image that is built with them.',
        )
    prepare(target)
    return target.resolve(whole, previous), target


def recover(record: Record, target: Target, engine: Engine, reporter: Reporter) -> None:
    """Import into the state what an interrupted deploy created, as far as the target can find it."""
    if record.identity and (made := target.recover_interrupted(record.identity, record.resource_ids)):
        reporter.step(f'Taking over what was made of "{record.name}" before it was interrupted')
        engine.import_existing(record.stack, made, reporter)


def needs_refresh(record: Record | None, target: Target) -> bool:
    """Return whether the engine must refresh first.

    A new stack has nothing to refresh. For others the target may see in milliseconds that all is healthy.
    """
    if record is None:
        return False
    return record.incomplete or record.outputs is None or not target.inspect(record.outputs).healthy


def with_begun_rotation(previous: DeploySpec | None, stored: Mapping[str, str]) -> DeploySpec | None:
    """Return the previous spec, with a rotation of secrets that was interrupted before the stack exported it.

    So the interrupted rotation continues and no second one begins.

    Args:
        previous: the spec as known from the state; None for a new node.
        stored: the stack's configuration on this machine.
    """
    had = {key.removeprefix(f"{PROJECT}:"): value for key, value in stored.items()}
    if previous is None or had.get("stack-id") != previous.stack_id:
        return previous
    if had.get("rotated", "") <= previous.rotated:
        return previous
    begun = DeploySpec.from_config(stored)
    return replace(previous, rotated=begun.rotated, rotating=True, machine_revision=begun.machine_revision)


def outputs_of(session: Session, stack: str) -> NodeOutputs:
    """Return the outputs of a stack that was just deployed."""
    record = session.state.read(stack)
    assert record is not None and record.outputs is not None
    return record.outputs


def set_password(target: Target, outputs: NodeOutputs, reporter: Reporter, password: str) -> None:
    """Set the password of the node's root account by a command on the node: no state or argv contains it."""
    from gridup.secrets import change_password

    reporter.step("Setting the admin's password")
    change_password(target.access(outputs), password)


def moved(outputs: NodeOutputs, target: Target, before: NodeOutputs | None = None) -> list[str]:
    """Return a line for each port that was in use, so that the node got another one.

    Args:
        before: the node before this deploy; None for a new one, whose ports are compared with the usual ones.
    """
    usual = target.usual_ports(outputs.spec)
    if before:
        usual = {name: (before.ports[name],) for name in usual if name in before.ports}
    return [
        f"Port {usual[row.name][-1]} was in use: "
        f"{'the node' if row.name == services.PROXY else row.title} is at {outputs.ports[row.name]}."
        for row in services.probed()
        if row.name in usual
        and not row.front_path
        and row.name not in outputs.not_offered
        and outputs.ports.get(row.name, usual[row.name][0]) not in usual[row.name]
        and not (row.name == services.PROXY and outputs.spec.port)
    ]


def render_result(
    ui: Ui, outputs: NodeOutputs, target: Target, report: Report, results: Any, *, password: bool = False
) -> None:
    """Show the result of a deploy: the table, where the node is, and what to do next.

    Args:
        password: whether the administrator's password was set.
    """
    from gridup import probes

    name = outputs.spec.name
    place = target.place(outputs)
    data = {
        "name": name,
        "stack": outputs.spec.stack,
        "target": outputs.spec.target,
        "address": outputs.address,
        **place,
        "adopted": outputs.spec.took_over,
        "changes": [{"resource": c.name, "operation": c.operation} for c in report.changes],
        "endpoints": probes.to_json(results) if results else None,
    }

    def human() -> None:
        if results:
            health.show(ui, results, name, outputs)
        if password:
            ui.say("The administrator's password was changed to the one that was given.")
        if report.unchanged and password:
            ui.say("Nothing else changed: the node is as asked.")
        elif report.unchanged:
            ui.say("Nothing changed: the node is as asked.")
        else:
            ui.say(f"Done: {plural(len({c.name for c in report.changes}), 'resource')} made or changed.")
        if place:
            ui.say(f"It is at {', '.join(place.values())}.")
        if outputs.not_offered.get("api"):
            enter, further = typed("ssh", name), typed("deploy", name)
            if results:
                ui.say(f"The container host is ready: `{enter}` enters it, `{further}` goes on.")
            else:
                waiting = typed("check", name, "--wait")
                ui.say(f"The machine is made; its first boot may still go on. `{waiting}` waits for it.")
            return
        secret = typed("outputs", name, "--show-secrets")
        ui.say(f"Log in as {outputs.spec.admin_email}. `{secret}` shows the password.")
        for line in health.ca_instructions(outputs):
            ui.say(line)

    ui.result(data, human)
