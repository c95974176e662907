"""gridup destroy: take a node away, all of it but what is said to be kept."""

from __future__ import annotations

from typing import Any

import typer

from gridup.commands.options import Json, NameArgument, NameOption, WaitLock, Yes, one_name
from gridup.deploying import known_spec
from gridup.engine_api import Engine
from gridup.reporter import Reporter
from gridup.session import Session
from gridup.state import Record
from gridup_infra.errors import GridupError, ResourceError, UsageError
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Target

EPILOG = """\b
Examples:
  gridup destroy Inst
  gridup destroy --name Inst --yes      never asks, as in CI"""


def main(
    context: typer.Context,
    argument: NameArgument = None,
    name: NameOption = None,
    yes: Yes = False,
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Take a node away."""
    session = Session.of(context, json=json)
    given = one_name(argument, name)
    if given is None:
        raise UsageError("Which node?", "Name it: gridup destroy NAME")
    destroy(session, given, yes=yes, wait_lock=wait_lock)


def destroy(session: Session, name: str, *, yes: bool, wait_lock: float = 0) -> None:
    """Destroy one node.

    Raises:
        NotFoundError: there is none of that name.
        UsageError: nobody can be asked, and --yes was not given.
        DeclinedError: the answer was not yes.
        ResourceError: something is left; it is listed.
    """
    record = session.state.find(name)
    target, spec = _what(session, record)
    lines = [f'This deletes "{record.name}":']
    if target and spec:
        lines += [f"  - {line}" for line in target.summary(spec)]
        lines += [f"It keeps {line}" for line in target.kept(spec)]
    if yes or session.ui.interactive:
        for line in lines:
            session.ui.say(line)
    session.ui.confirm(f'Destroy "{record.name}"?', yes=yes)
    with session.ui.progress() as reporter:
        engine = session.engine(reporter)
        with engine.lock(record.stack, record.name, "a destroy", wait_lock):
            _delete(session, record, engine, reporter, target)
    data: dict[str, Any] = {
        "name": record.name,
        "destroyed": list(record.resources),
        "kept": list(target.kept(spec)) if target and spec else [],
    }
    session.ui.result(data, lambda: session.ui.line(f'"{record.name}" is destroyed.'))


def _delete(
    session: Session, record: Record, engine: Engine, reporter: Reporter, target: Target | None
) -> None:
    reporter.step(f'Destroying "{record.name}"')
    try:
        engine.destroy(record.stack, reporter)
    except GridupError as error:
        left = _left(session, record, target)
        if left and isinstance(error, ResourceError):
            raise ResourceError(error.message, error.suggestion, (*error.details, *left)) from error
        raise
    if left := _left(session, record, target):
        raise ResourceError(
            f'Something of "{record.name}" is left.', "Run the same command again.", tuple(left)
        )
    engine.forget(record.stack)


def _left(session: Session, record: Record, target: Target | None) -> list[str]:
    after = session.state.read(record.stack)
    left = [f"left in the state: {name}" for name in (after.resources if after else ())]
    if target and record.identity and not _keeps(record):
        left += [f"left: {thing}" for thing in target.leftovers(record.identity)]
    return left


def _keeps(record: Record) -> bool:
    return bool(record.outputs and record.outputs.spec.keep_data)


def _what(session: Session, record: Record) -> tuple[Target | None, DeploySpec | None]:
    # Not from the configuration on this machine: a damaged one must not be in the way of an end.
    spec = known_spec(record, {})
    return (session.target(spec.target), spec) if spec else (None, None)
