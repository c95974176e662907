"""What a command works with: settings, state, target, engine, each made when first used."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import typer

from gridup import engine_locks
from gridup.settings import Settings
from gridup.state import Record, State
from gridup.ui import Ui
from gridup_infra import targets
from gridup_infra.errors import (
    BusyError,
    GridupError,
    InvalidNameError,
    NotFoundError,
    ResourceError,
    StateError,
    UnhealthyError,
    UsageError,
)
from gridup_infra.locking import Holder, holder, leave_no_folder, locked
from gridup_infra.naming import stack_name, typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.paths import ensure_home
from gridup_infra.targets.base import Capability, NodeStatus, Target

if TYPE_CHECKING:
    from gridup.engine_api import Engine
    from gridup.reporter import Reporter
    from gridup.setup.engine import Engine as Binary
    from gridup_infra.room import Need
    from gridup_infra.spec import DeploySpec


def needs(settings: Settings, spec: DeploySpec, target: Target) -> tuple[Need, ...]:
    """What a deploy writes to this machine's disks: the engine, and what its target does."""
    from gridup.setup import engine

    return (*engine.needs(settings.home), *target.needs(spec))


LOCK = "lock"
"""In a stack's folder."""


@dataclass(frozen=True)
class Which:
    """Which deployment a command is about: by the node's name, or by its stack's. Neither: the only one."""

    name: str | None = None
    stack: str | None = None


class Session:
    """One run of a command.

    Args:
        ui: the terminal.
    """

    def __init__(self, ui: Ui, settings: Settings | None = None) -> None:
        self.ui = ui
        self.settings = settings or Settings.load()
        self._extras: dict[str, GridupError | None] = {}
        self._own: list[str | None] = []
        self._turn = threading.Lock()

    @classmethod
    def of(cls, context: typer.Context, *, json: bool = False) -> Session:
        ui: Ui = context.obj
        ui.json = json
        # Both streams may go to one file: with --json there is nothing but JSON in it.
        ui.quiet = ui.quiet or json
        return cls(ui)

    @cached_property
    def state(self) -> State:
        return State.of(self.settings, self.ui.say)

    @contextlib.contextmanager
    def lock(self, stack: str, name: str, what: str, wait: float) -> Iterator[None]:
        """Keep other runs on this machine off a stack meanwhile. Where nothing is made of it, no folder is.

        Args:
            what: what this one does, such as "a deploy".
            wait: seconds for another to end.

        Raises:
            BusyError: another run held it all that time.
            StateError: GRIDUP_HOME can't be made, or others may replace what is in it.
        """
        ensure_home(self.settings.home)
        path = self.settings.home.stack(stack) / LOCK
        with locked(path, what, wait=wait, busy=f'"{name}" is busy', about=name):
            try:
                yield
            finally:
                leave_no_folder(path)

    def under_way(self) -> dict[str, Holder]:
        """Who changes which stack on this machine just now; one being made may not be in the state yet."""
        found = {path.parent.name: holder(path) for path in self.settings.home.stacks.glob(f"*/{LOCK}")}
        return {stack: other for stack, other in found.items() if other}

    def elsewhere(self, record: Record) -> Holder | None:
        """Who makes a node just now that is not whole, on another machine or with another GRIDUP_HOME.

        A state in a folder tells it; None where nobody does, or where that can't be told.
        """
        stack = record.stack
        for lock in engine_locks.held(self.settings.file_backend, stack):
            if not engine_locks.is_dead(lock, self.settings.home.stack(stack)):
                return Holder("an update", lock.pid, lock.since, record.name, lock.hostname)
        return None

    @property
    def or_elsewhere(self) -> str:
        """What is added to the word that a deploy was not completed, where nobody can tell."""
        return "" if self.settings.file_backend else ", or is still under way elsewhere"

    def unfinished(self, record: Record) -> str:
        """What people are told of a deploy that was not completed; `Record.way_on` goes with it."""
        return f'The deploy of "{record.name}" was not completed{self.or_elsewhere}.'

    def find(self, which: Which, wait_lock: float = 0) -> Record:
        """The deployment that was asked for; the only one there is where none was.

        Args:
            wait_lock: seconds to wait for a first deploy of it that has not come to the state yet.

        Raises:
            NotFoundError: there is none.
            BusyError: it is just being made.
            StateError: what the state has of it is damaged.
            UsageError: none was named and there are several.
        """
        # Before the state is read: what ends in between is then in the state.
        busy = self.under_way()
        try:
            return self._find(which)
        except NotFoundError:
            name = which.name or which.stack or ""
            stack = which.stack
            with contextlib.suppress(InvalidNameError):
                stack = stack or stack_name(name)
            other = busy.get(stack or "")
            if stack is None or other is None or other.about not in ("", which.name or other.about):
                raise
            with self.lock(stack, other.about or name, "a look", wait_lock):
                pass
            return self._find(which)

    def _find(self, which: Which) -> Record:
        if which.stack is not None:
            return self.state.find_stack(which.stack)
        if which.name is not None:
            return self.state.find(which.name)
        records = self.state.records()
        if not records:
            raise NotFoundError(
                "There are no deployments yet.", "`gridup deploy --name NAME` makes one on this machine."
            )
        if len(records) > 1:
            known = ", ".join(f'"{record.name}"' for record in records)
            raise UsageError(f"Which node? There are {known}.", "Name it: --name NAME")
        if records[0].problem:
            raise StateError(records[0].problem, records[0].way_on)
        return records[0]

    def outputs(self, record: Record) -> NodeOutputs:
        """What a node's deploy has exported.

        Raises:
            StateError: what the state has of it is damaged.
            ResourceError: its deploy was interrupted.
            BusyError: it is still under way.
        """
        if record.problem:
            raise StateError(record.problem, record.way_on)
        if record.outputs is None and (other := self.elsewhere(record)):
            raise BusyError(f'"{record.name}" is busy: {other.describe()}.', "Wait for it to end.")
        if record.outputs is None:
            raise ResourceError(self.unfinished(record), record.way_on)
        return record.outputs

    def require_target(self, record: Record) -> tuple[NodeOutputs, Target]:
        """As `outputs`, with the node's target ready to be asked."""
        outputs = self.outputs(record)
        return outputs, self.target(outputs.spec.target)

    def known(self, record: Record) -> tuple[NodeOutputs, Target]:
        """What is known of a node, by the state alone: while a deploy was not completed, that is its machine.

        Raises:
            ResourceError: its deploy was interrupted before there was a machine.
        """
        stored = {} if record.outputs else self.settings.stored_config(record.stack)
        spec = record.previous_spec(stored)
        target = targets.target(spec.target, self.state.secret) if spec else None
        if record.identity and spec and target:
            found = target.partial_outputs(record.identity, spec, record.states)
            if found and not _same(found, record):
                return found, target
        outputs = self.outputs(record)
        return outputs, target or targets.target(outputs.spec.target, self.state.secret)

    def reached(self, record: Record) -> tuple[NodeOutputs, Target]:
        """As `known`, with the target ready to be asked: for what needs no more than the node's machine."""
        outputs, target = self.known(record)
        self.prepare(target)
        return outputs, target

    @classmethod
    def check_answers(cls, outputs: NodeOutputs, target: Target) -> None:
        """As `check_running`, before a way in is tried that is silent."""
        if not target.answers(outputs):
            cls.check_running(outputs, target)

    @staticmethod
    def stopped(outputs: NodeOutputs, target: Target) -> bool:
        """Whether it is known that a node was stopped."""
        with contextlib.suppress(GridupError):
            return target.inspect(outputs).power is NodeStatus.STOPPED
        return False

    @staticmethod
    def refusal(outputs: NodeOutputs) -> UnhealthyError:
        """What a person is told who asks for something that a stopped node can't do."""
        name = outputs.spec.name
        return UnhealthyError(f'"{name}" is stopped.', f"`{typed('start', name)}` starts it.")

    @classmethod
    def check_running(cls, outputs: NodeOutputs, target: Target) -> None:
        """Say so where a node that does not answer was stopped; nothing where it was not, or who can tell.

        Raises:
            UnhealthyError: it is stopped.
        """
        if cls.stopped(outputs, target):
            raise cls.refusal(outputs)

    def target(self, name: str) -> Target:
        """The target called `name`, with its SDK in place and a way to read the stacks' secrets.

        Raises:
            SetupError: its SDK could not be installed.
        """
        target = targets.target(name, self.state.secret)
        self.prepare(target)
        return target

    def prepare(self, target: Target) -> None:
        """See that the target's SDK is there: a first use installs it. Any thread may call it.

        Raises:
            SetupError: it could not be installed.
            CredentialsError: its credentials need an answer of a person, and there is nobody to ask.
        """
        with self._turn:
            if target.extra not in self._extras:
                from gridup.setup import extras

                try:
                    extras.ensure(target.extra, self.ui.say)
                    os.environ.update(target.sign_in(self.ui.ask_for))
                except GridupError as error:
                    # One try a run: what the next node would wait for once more is known.
                    self._extras[target.extra] = error
                else:
                    self._extras[target.extra] = None
            if failed := self._extras[target.extra]:
                raise failed

    def own_address(self) -> str | None:
        """The address that the internet sees this machine at; None when nobody tells.

        Asked once a run; any thread may call it.
        """
        with self._turn:
            if not self._own:
                from gridup import public_ip

                self._own.append(public_ip.ask(public_ip.url(self.settings.environment)))
            return self._own[0]

    def binary(self, reporter: Reporter) -> Binary:
        """The pinned Pulumi engine, fetched or built when it is not there.

        Raises:
            SetupError: it could not be had.
        """
        from gridup.setup.engine import ensure_engine

        return ensure_engine(self.settings.home, reporter.step)

    def engine(self, reporter: Reporter, wait: float = 0) -> Engine:
        """The engine, with the state's folder and passphrase in place.

        Args:
            wait: seconds to wait for an update of a stack that runs elsewhere.
        """
        self.settings.ensure_state(self.state.stacks)
        binary = self.binary(reporter)
        from gridup.engine import PulumiEngine

        return PulumiEngine(self.settings, binary, wait)


def _same(found: NodeOutputs, record: Record) -> bool:
    """Whether a machine is the one that the last deploy to succeed has exported."""
    had = record.outputs.facts if record.outputs else {}
    return all(had.get(key) == value for key, value in found.facts.items())


def require(target: Target, capability: Capability, what: str) -> None:
    """Refuse what this target can't do.

    Raises:
        UsageError: it does not have the capability.
    """
    if capability not in target.capabilities:
        raise UsageError(f"A node on {target.title} has no {what}.")
