"""Starts and stops a node: the steps of `gridup start` and `gridup stop`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from gridup import health, probes
from gridup.session import Session, Which, require
from gridup_infra.naming import typed
from gridup_infra.targets.base import Capability, NodeStatus


def start(session: Session, which: Which, *, wait_lock: float, timeout: float) -> None:
    """Start a node and wait until its endpoints answer.

    Raises:
        DeadlineError: the endpoints did not answer within `timeout` seconds.
        UsageError: the node's target can't start nodes.
    """
    record = session.find(which, wait_lock)
    outputs, target = session.reached(record)
    require(target, Capability.POWER, "start")
    results = []
    with session.ui.progress() as reporter:
        with (
            _told_how_to_go_on("start", record.name),
            session.lock(record.stack, record.name, "a start", wait_lock),
        ):
            reporter.step(f'Starting "{record.name}"')
            target.start(outputs)
        if outputs is record.outputs:
            results = health.wait_healthy(target, outputs, reporter, timeout, own=session.own_address)
    data = {"name": record.name, "state": NodeStatus.RUNNING.value, "endpoints": probes.to_json(results)}

    def human() -> None:
        if outputs is record.outputs:
            health.show(session.ui, results, record.name, outputs)
        else:
            session.ui.line(
                f'The machine of "{record.name}" is started. {session.unfinished(record)} {record.way_on}'
            )

    session.ui.result(data, human)


def stop(session: Session, which: Which, *, wait_lock: float) -> None:
    """Stop a node; its data stays.

    Raises:
        ResourceError: a program of the node did not end.
        UsageError: the node's target can't stop nodes.
    """
    record = session.find(which, wait_lock)
    outputs, target = session.reached(record)
    require(target, Capability.POWER, "stop")
    with (
        session.ui.progress() as reporter,
        _told_how_to_go_on("stop", record.name),
        session.lock(record.stack, record.name, "a stop", wait_lock),
    ):
        reporter.step(f'Stopping "{record.name}"')
        target.stop(outputs)
    done = f'"{record.name}" is stopped; its data stays. `{typed("start", record.name)}` starts it.'
    session.ui.result({"name": record.name, "state": NodeStatus.STOPPED.value}, lambda: session.ui.line(done))


def _told_how_to_go_on(command: str, name: str) -> AbstractContextManager[None]:
    """Report how to continue after Ctrl-C: a machine may need minutes, and it continues by itself."""
    again = typed(command, name)
    return health.interrupted(
        f'Stopped waiting for the {command} of "{name}".', f"`{again}` goes on with it."
    )
