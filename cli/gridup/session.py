"""The context of a command: settings, state, target and engine. Each is created at its first use."""

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
    """Return the disk space that a deploy needs on this machine: for the engine and for its target."""
    from gridup.setup import engine

    return (*engine.needs(settings.home), *target.needs(spec))


LOCK = "lock"
"""Name of the lock file in a stack's folder."""


@dataclass(frozen=True)
class Which:
    """The deployment that a command is for: by the node's or the stack's name. With neither: the only one."""

    name: str | None = None
    stack: str | None = None


class Session:
    """One run of a command.

    Args:
        ui: the terminal.
        settings: the settings of this run; None to load them.
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
        # Both streams may go to one file. With --json it must contain only JSON.
        ui.quiet = ui.quiet or json
        return cls(ui)

    @cached_property
    def state(self) -> State:
        return State.of(self.settings, self.ui.say)

    @contextlib.contextmanager
    def lock(self, stack: str, name: str, what: str, wait: float) -> Iterator[None]:
        """Lock a stack against other runs on this machine.

        At the end deletes the stack's folder if nothing but the lock is in it.

        Args:
            name: the node's name, for messages.
            what: what this run does, such as "a deploy".
            wait: seconds to wait for another run to end.

        Raises:
            BusyError: another run held the lock all that time.
            StateError: GRIDUP_HOME can't be created, or other accounts may replace files in it.
        """
        ensure_home(self.settings.home)
        path = self.settings.home.stack(stack) / LOCK
        with locked(path, what, wait=wait, busy=f'"{name}" is busy', about=name):
            try:
                yield
            finally:
                leave_no_folder(path)

    def under_way(self) -> dict[str, Holder]:
        """Return stack -> holder of its lock on this machine. A new stack may not be in the state yet."""
        found = {path.parent.name: holder(path) for path in self.settings.home.stacks.glob(f"*/{LOCK}")}
        return {stack: other for stack, other in found.items() if other}

    def elsewhere(self, record: Record) -> Holder | None:
        """Return who deploys an incomplete node right now, on another machine or with another GRIDUP_HOME.

        Only a file backend has this information. Returns None if nobody deploys it, or if that is unknown.
        """
        stack = record.stack
        for lock in engine_locks.held(self.settings.file_backend, stack):
            if not engine_locks.is_dead(lock, self.settings.home.stack(stack)):
                return Holder("an update", lock.pid, lock.since, record.name, lock.hostname)
        return None

    @property
    def or_elsewhere(self) -> str:
        """The addition to the message "not completed" if the backend can't show who deploys elsewhere."""
        return "" if self.settings.file_backend else ", or is still under way elsewhere"

    def unfinished(self, record: Record) -> str:
        """Return the message for a deploy that was not completed; `Record.way_on` is its suggestion."""
        return f'The deploy of "{record.name}" was not completed{self.or_elsewhere}.'

    def find(self, which: Which, wait_lock: float = 0) -> Record:
        """Return the deployment that was asked for; without a name the only one.

        Args:
            wait_lock: seconds to wait for a first deploy that is not in the state yet.

        Raises:
            NotFoundError: there is no such deployment.
            BusyError: its first deploy is running.
            StateError: its state is damaged.
            UsageError: no name was given and there are several deployments.
        """
        # Read the locks before the state: a deploy that ends in between is then in the state.
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
        """Return the outputs of a node's last successful deploy.

        Raises:
            StateError: the node's state is damaged.
            ResourceError: its first deploy was interrupted.
            BusyError: its first deploy is still running.
        """
        if record.problem:
            raise StateError(record.problem, record.way_on)
        if record.outputs is None and (other := self.elsewhere(record)):
            raise BusyError(f'"{record.name}" is busy: {other.describe()}.', "Wait for it to end.")
        if record.outputs is None:
            raise ResourceError(self.unfinished(record), record.way_on)
        return record.outputs

    def require_target(self, record: Record) -> tuple[NodeOutputs, Target]:
        """Return the same as `outputs`, and the target with its SDK installed."""
        outputs = self.outputs(record)
        return outputs, self.target(outputs.spec.target)

    def known(self, record: Record) -> tuple[NodeOutputs, Target]:
        """Return what the state alone knows of a node. After an incomplete deploy that is only its machine.

        Raises:
            ResourceError: the deploy was interrupted before there was a machine.
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
        """Return the same as `known`, with the SDK installed. For commands that need only the machine."""
        outputs, target = self.known(record)
        self.prepare(target)
        return outputs, target

    @classmethod
    def check_answers(cls, outputs: NodeOutputs, target: Target) -> None:
        """Call `check_running` if the node does not answer. Commands call this before they connect."""
        if not target.answers(outputs):
            cls.check_running(outputs, target)

    @staticmethod
    def stopped(outputs: NodeOutputs, target: Target) -> bool:
        """Return whether a node is known to be stopped."""
        with contextlib.suppress(GridupError):
            return target.inspect(outputs).power is NodeStatus.STOPPED
        return False

    @staticmethod
    def refusal(outputs: NodeOutputs) -> UnhealthyError:
        """Return the error for a request that a stopped node can't serve."""
        name = outputs.spec.name
        return UnhealthyError(f'"{name}" is stopped.', f"`{typed('start', name)}` starts it.")

    @classmethod
    def check_running(cls, outputs: NodeOutputs, target: Target) -> None:
        """Raise an error if a node that does not answer is stopped. Does nothing if that is unknown.

        Raises:
            UnhealthyError: the node is stopped.
        """
        if cls.stopped(outputs, target):
            raise cls.refusal(outputs)

    def target(self, name: str) -> Target:
        """Return the target called `name`, with its SDK installed. It can read the secrets of stacks.

        Raises:
            SetupError: the SDK could not be installed.
        """
        target = targets.target(name, self.state.secret)
        self.prepare(target)
        return target

    def prepare(self, target: Target) -> None:
        """Install the target's SDK if it is missing, and sign in. Thread-safe.

        Raises:
            SetupError: the SDK could not be installed.
            CredentialsError: the credentials need an answer of the user, and there is no terminal to ask.
        """
        with self._turn:
            if target.extra not in self._extras:
                from gridup.setup import extras

                try:
                    extras.ensure(target.extra, self.ui.say)
                    os.environ.update(target.sign_in(self.ui.ask_for))
                except GridupError as error:
                    # Try only once in a run: it would fail again, and each further node would wait for it.
                    self._extras[target.extra] = error
                else:
                    self._extras[target.extra] = None
            if failed := self._extras[target.extra]:
                raise failed

    def own_address(self) -> str | None:
        """Return this machine's address as the internet sees it; None if it is unknown.

        Asks the service only once in a run. Thread-safe.
        """
        with self._turn:
            if not self._own:
                from gridup import public_ip

                self._own.append(public_ip.ask(public_ip.url(self.settings.environment)))
            return self._own[0]

    def binary(self, reporter: Reporter) -> Binary:
        """Return the pinned Pulumi engine. Downloads or builds it if it is missing.

        Raises:
            SetupError: the engine could not be downloaded or built.
        """
        from gridup.setup.engine import ensure_engine

        return ensure_engine(self.settings.home, reporter.step)

    def engine(self, reporter: Reporter, wait: float = 0) -> Engine:
        """Return the engine. Creates the state's folder and the passphrase if they are missing.

        Args:
            wait: seconds to wait for an update of a stack that runs elsewhere.
        """
        self.settings.ensure_state(self.state.stacks)
        binary = self.binary(reporter)
        from gridup.engine import PulumiEngine

        return PulumiEngine(self.settings, binary, wait)


def _same(found: NodeOutputs, record: Record) -> bool:
    """Return whether the machine in the state is the one that the last successful deploy exported."""
    had = record.outputs.facts if record.outputs else {}
    return all(had.get(key) == value for key, value in found.facts.items())


def require(target: Target, capability: Capability, what: str) -> None:
    """Check that the target has a capability.

    Args:
        what: the capability's name in the message.

    Raises:
        UsageError: the target does not have the capability.
    """
    if capability not in target.capabilities:
        raise UsageError(f"A node on {target.title} has no {what}.")
