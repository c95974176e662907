"""gridup destroy: delete a node and all its resources, except retained data."""

from __future__ import annotations

import contextlib
from typing import Any

import typer

from gridup.commands.options import Json, NameArgument, NameOption, StackOption, WaitLock, Yes, meant
from gridup.deploy_flow import explaining
from gridup.engine_api import Engine
from gridup.reporter import Keeping, Reporter
from gridup.session import Session, Which
from gridup.state import Record
from gridup_infra.errors import CredentialsError, GridupError, ResourceError, UsageError
from gridup_infra.naming import typed
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
    stack: StackOption = None,
    yes: Yes = False,
    wait_lock: WaitLock = 0,
    json: Json = False,
) -> None:
    """Destroy a node."""
    session = Session.of(context, json=json)
    given = meant(argument, name, stack)
    if given == Which():
        raise UsageError("Which node?", "Name it: gridup destroy NAME")
    destroy(session, given, yes=yes, wait_lock=wait_lock)


def destroy(session: Session, which: Which, *, yes: bool, wait_lock: float = 0) -> None:
    """Destroy one node and show the result.

    Raises:
        See `destroyed`.
    """
    data = destroyed(session, which, yes=yes, wait_lock=wait_lock)

    def human() -> None:
        session.ui.line(f'"{data["name"]}" is destroyed.')
        if left := data["retained"]:
            again = typed("deploy", data["name"], "--adopt")
            session.ui.line(f"Its data is kept: {left['what']}. `{again}` takes it over.")

    session.ui.result(data, human)


def destroyed(session: Session, which: Which, *, yes: bool, wait_lock: float = 0) -> dict[str, Any]:
    """Destroy one node. Returns the result for JSON.

    Raises:
        NotFoundError: there is no such node.
        UsageError: there is no terminal to ask for confirmation, and --yes was not given.
        DeclinedError: the user did not confirm.
        ResourceError: something is left. The details list it.
    """
    record = session.find(which, wait_lock)
    target, spec = _what(session, record)
    keeps = bool(spec and spec.keeps)
    held = target.data_resource if target and keeps else ""
    removes, kept = (target.removes(spec), target.retained_on_destroy(spec)) if target and spec else ((), ())
    lines = [f'This deletes "{record.name}":', *(f"  - {line}" for line in removes)]
    lines += [f"It keeps {line}" for line in kept]
    if yes or session.ui.interactive:
        for line in lines:
            session.ui.say(line)
    session.ui.confirm(f'Destroy "{record.name}"?', yes=yes)
    with (
        session.ui.progress() as reporter,
        session.lock(record.stack, record.name, "a destroy", wait_lock),
    ):
        engine = session.engine(reporter, wait_lock)
        _delete(session, record, engine, Keeping(reporter, held), (target, spec), looks=not keeps)
    retained = None
    if target and spec and keeps:
        # The data is retained even if it can't be read now.
        with contextlib.suppress(GridupError):
            retained = target.retained(spec)
    return {
        "name": record.name,
        "destroyed": [name for name in record.resources if name != held],
        "kept": list(kept),
        "retained": {"id": retained.id, "what": retained.what} if retained else None,
    }


def _delete(
    session: Session,
    record: Record,
    engine: Engine,
    reporter: Reporter,
    where: tuple[Target | None, DeploySpec | None],
    *,
    looks: bool,
) -> None:
    """Destroy the stack with the engine, then remove it from the state.

    Args:
        where: the node's target and spec, if known.
        looks: whether to search the target for leftovers.

    Raises:
        ResourceError: something is left. The details list it.
    """
    reporter.step(f'Destroying "{record.name}"')
    there = where[0] if looks else None
    try:
        with explaining(*where):
            engine.destroy(record.stack, reporter)
    except GridupError as error:
        try:
            left = _left(session, record, there)
        except CredentialsError:
            # The credentials that failed for the engine also fail for the search.
            left = _left(session, record, None)
        if left and isinstance(error, (ResourceError, CredentialsError)):
            raise type(error)(error.message, error.suggestion, (*error.details, *left)) from error
        raise
    if left := _left(session, record, there):
        raise ResourceError(
            f'Something of "{record.name}" is left.', "Run the same command again.", tuple(left)
        )
    engine.remove_stack(record.stack)


def _left(session: Session, record: Record, target: Target | None) -> list[str]:
    """Return what is left of the node: resources in the state, and leftovers if `target` is given."""
    after = session.state.read(record.stack)
    left = [f"left in the state: {name}" for name in (after.resources if after else ())]
    if target and record.identity:
        left += [f"left: {thing}" for thing in target.leftovers(record.identity)]
    return left


def _what(session: Session, record: Record) -> tuple[Target | None, DeploySpec | None]:
    # Don't read the stack's configuration on this machine: a damaged one must not prevent a destroy.
    spec = record.previous_spec({})
    return (session.target(spec.target), spec) if spec else (None, None)
