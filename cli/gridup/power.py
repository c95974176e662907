"""Starting and stopping a node: the same steps for `gridup start` and `gridup stop`."""

from __future__ import annotations

from gridup import health, probes
from gridup.session import Session, require
from gridup_infra.targets.base import Capability, Power


def start(session: Session, name: str | None, *, wait_lock: float, timeout: float) -> None:
    """Start a node and wait until its endpoints answer.

    Raises:
        DeadlineError: they did not within `timeout` seconds.
        UsageError: its target can't.
    """
    record, outputs, target = session.deployed(name)
    require(target, Capability.POWER, "start")
    with session.ui.progress() as reporter:
        with session.engine(reporter).lock(record.stack, record.name, "a start", wait_lock):
            reporter.step(f"Starting {record.name}")
            target.start(outputs)
        results = health.wait_healthy(target, outputs, reporter, timeout, own=session.own_address)
    data = {"name": record.name, "state": Power.RUNNING.value, "endpoints": probes.to_json(results)}
    session.ui.result(data, lambda: health.show(session.ui, results, record.name, outputs))


def stop(session: Session, name: str | None, *, wait_lock: float) -> None:
    """Stop a node; its data stays.

    Raises:
        ResourceError: something would not end.
        UsageError: its target can't.
    """
    record, outputs, target = session.deployed(name)
    require(target, Capability.POWER, "stop")
    with (
        session.ui.progress() as reporter,
        session.engine(reporter).lock(record.stack, record.name, "a stop", wait_lock),
    ):
        reporter.step(f"Stopping {record.name}")
        target.stop(outputs)
    done = f'{record.name} is stopped; its data stays. `gridup start "{record.name}"` starts it.'
    session.ui.result({"name": record.name, "state": Power.STOPPED.value}, lambda: session.ui.line(done))
