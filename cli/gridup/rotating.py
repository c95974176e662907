"""Replaces every secret of a node, both in the state and on the node itself. Then checks the node's health.

A former secret works until the new one is in use. So a run may be interrupted at any point: the same command
continues it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from gridup import health
from gridup.deploy_flow import Plan, bring_to, outputs_of, plan
from gridup.engine_api import Engine
from gridup.reporter import Reporter
from gridup.session import Session, Which
from gridup_infra.errors import ResourceError
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.targets.base import Capability, NodeAccess, NodeStatus, Target
from gridup_node.rotation import concerns

RENEW_SECONDS = 120
SETTLE_SECONDS = 600
"""Limits in seconds: to generate new secrets; until a restarted service uses them. The api rewrites its whole
database meanwhile."""


@dataclass(frozen=True)
class DeployOptions:
    """Options of a rotation.

    Attributes:
        lock: whether the passwords of all accounts except the administrator's stop working.
        timeout: seconds for the endpoints to answer.
        wait_lock: seconds to wait for another update of the node to end.
        yes: do not ask; continue.
    """

    lock: bool = False
    timeout: float = 300
    wait_lock: float = 0
    yes: bool = False


def rotate(session: Session, which: Which, how: DeployOptions) -> None:
    """Replace every secret of one node, and show the result.

    Raises:
        NotFoundError: there is no such node.
        ResourceError: the node does not run; or the secrets of a service could not be replaced, and its
            former ones stay valid.
        UsageError: there is no terminal to ask, and --yes was not given.
        DeclinedError: the answer was not yes.
        DeadlineError: the endpoints did not answer in time; the secrets are replaced.
    """
    record = session.find(which, how.wait_lock)
    outputs, target = session.require_target(record)
    name = record.name
    _check_runs(name, outputs, target)
    # Keep `no_node`: the rotation must not start a node on a container host that has none.
    asked = {"rotate": True, "no_node": outputs.spec.no_node}
    foreseen = plan(session, name, asked, {})
    session.ui.confirm(f'Replace every secret of "{name}"?', yes=how.yes, about=_about(foreseen, how))
    with (
        session.ui.progress() as reporter,
        session.lock(record.stack, name, "a rotate", how.wait_lock),
    ):
        now = plan(session, name, asked, {})
        now.target.preflight(now.spec, now.current)
        engine = session.engine(reporter, how.wait_lock)
        reporter.step(f'Replacing the secrets of "{name}"')
        bring_to(now, engine, reporter)
        outputs = outputs_of(session, record.stack)
        with health.interrupted(
            f'Stopped. The secrets of "{name}" are not all replaced; those that are not still hold.',
            f"`{typed('rotate', name)}` goes on with it.",
        ):
            came = _rotate_node(target.access(outputs), now.spec.rotated, how, reporter)
            outputs = _conclude(session, outputs, engine, reporter)
        results = health.wait_healthy(target, outputs, reporter, how.timeout, own=session.own_address)
    _show(session, outputs, how, came, results)


def _check_runs(name: str, outputs: NodeOutputs, target: Target) -> None:
    found = target.inspect(outputs)
    if found.power in (NodeStatus.STOPPED, NodeStatus.MISSING, NodeStatus.UNKNOWN):
        how = {
            NodeStatus.STOPPED: "stopped",
            NodeStatus.MISSING: "missing",
            NodeStatus.UNKNOWN: "not to be reached",
        }[found.power]
        hint = f"`{typed('start', name)}` starts it." if found.power is NodeStatus.STOPPED else ""
        raise ResourceError(
            f'"{name}" is {how}: its secrets are replaced by its own programs, which must run.',
            hint or f"`{typed('deploy', name)}` puts it right.",
            found.problems,
        )


def _about(foreseen: Plan, how: DeployOptions) -> list[str]:
    spec = foreseen.spec
    lines = [
        f'This replaces every secret of "{spec.name}":',
        "  - the administrator's password, the node's own key, and the key of every account",
        "  - Jupyter's token, the key of the portal's sessions, the keys and certificates of https",
        "  - ssh keys: the node's host key, and the one that `gridup ssh` enters with",
        "It ends all sessions of the portal, of Jupyter (its kernels too) and of ssh, and jobs that run. "
        "Datasets, requests, approved code and results stay.",
        "Nodes that it is associated with know it by its former key: they must be associated again.",
    ]
    if how.lock:
        lines.append("Nobody but the administrator can log in before that sets them a new password (--lock).")
    else:
        lines.append("The other accounts keep their passwords (--lock has them need new ones).")
    if Capability.NEW_MACHINE in foreseen.target.capabilities:
        lines.append("Its VM is replaced by another one, on the same data disk: that has keys of its own.")
    elif {Capability.HOST, Capability.HOST_KEY} <= foreseen.target.capabilities:
        lines.append(f"The host key of {spec.host} is the machine's own, and stays.")
    lines += [f"It destroys {line}" for line in foreseen.destructive_changes]
    return lines


def _rotate_node(access: NodeAccess, id_: str, how: DeployOptions, reporter: Reporter) -> dict[str, Any]:
    """Let the node replace its own secrets. The api goes first because its secrets include Jupyter's token.

    Returns the results of the services that report any.
    """
    told = json.dumps({"id": id_, "lock": how.lock}).encode()
    came: dict[str, Any] = {}

    def run(command: str, service: str, timeout: float) -> dict[str, Any]:
        argv = ["python", "-m", "gridup_node.rotation", command, service]
        done = access.run(argv, timeout=timeout, input=told, service=service)
        if not done.ok:
            raise ResourceError(
                f"The secrets of {service} could not be replaced: {' '.join(done.tail(1))}",
                "Run the same command again: it goes on with what is left.",
            )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    first, *others = access.programs() or ("",)
    for services in filter(None, ([first] * bool(first), others)):
        # Skip services without secrets: in such a service a job could answer instead.
        own = [service for service in services if concerns(service)]
        for service in own:
            reporter.step(f"Replacing the secrets of {service}")
            run("renew", service, RENEW_SECONDS)
        reporter.step(f"Starting {', '.join(services)} anew")
        access.restart(services)
        for service in own:
            try:
                came |= run("settle", service, SETTLE_SECONDS)
            except ResourceError:
                # The service goes back to its former secrets: it must load them again.
                access.restart([service])
                raise
    return came


def _conclude(session: Session, outputs: NodeOutputs, engine: Engine, reporter: Reporter) -> NodeOutputs:
    """Record in the state what the node generated, and remove the former management key."""
    reporter.step("Ending what opened the node before")
    now = plan(session, outputs.spec.name, {"no_node": outputs.spec.no_node}, {})
    bring_to(replace(now, spec=replace(now.spec, rotating=False)), engine, reporter)
    return outputs_of(session, now.spec.stack)


def _show(
    session: Session, outputs: NodeOutputs, how: DeployOptions, came: dict[str, Any], results: Any
) -> None:
    from gridup import probes

    name = outputs.spec.name
    if how.lock and not came.get("locked") and came.get("accounts"):
        session.ui.warn(
            f'The other accounts of "{name}" keep their passwords: what was gone on with was begun without '
            "--lock. Run the same command again to have them need new ones."
        )
    accounts, locked = int(came.get("accounts", 0)), int(came.get("locked", 0))
    peers = [str(peer) for peer in came.get("peers", ())]
    data = {
        "name": name,
        "rotated": outputs.spec.rotated,
        "accounts": accounts,
        "locked": locked,
        "associate_again": peers,
        "endpoints": probes.to_json(results) if results else None,
    }
    show = typed("outputs", name, "--show-secrets")

    def human() -> None:
        if results:
            health.show(session.ui, results, name, outputs)
        session.ui.say(f'Every secret of "{name}" is replaced. `{show}` shows the new password and token.')
        if locked:
            session.ui.say(f"{locked} accounts need a new password, which the administrator sets.")
        for peer in peers:
            session.ui.say(f'Associate it with "{peer}" again.')
        for line in health.ca_instructions(outputs):
            session.ui.say(line)

    session.ui.result(data, human)
