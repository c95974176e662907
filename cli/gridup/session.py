"""What a command works with: settings, state, target, engine, each made when first used."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING

import typer

from gridup.settings import Settings
from gridup.state import Record, State
from gridup.ui import Ui
from gridup_infra import targets
from gridup_infra.errors import GridupError, NotFoundError, ResourceError, UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.targets.base import Capability, Target

if TYPE_CHECKING:
    from gridup.engine_api import Engine
    from gridup.reporter import Reporter
    from gridup.setup.engine import Engine as Binary


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

    def find(self, name: str | None, flag: str = "--name") -> Record:
        """The deployment called `name`; with None the only one there is.

        Raises:
            NotFoundError: there is none.
            UsageError: no name was given and there are several.
        """
        if name is not None:
            return self.state.find(name)
        records = self.state.records()
        if not records:
            raise NotFoundError(
                "There are no deployments yet.", "`gridup deploy --name NAME` makes one on this machine."
            )
        if len(records) > 1:
            known = ", ".join(f'"{record.name}"' for record in records)
            raise UsageError(f"Which node? There are {known}.", f"Name it: {flag} NAME")
        return records[0]

    def located(self, name: str | None) -> tuple[Record, NodeOutputs]:
        """As `find`, of a node whose deploy has succeeded.

        Raises:
            ResourceError: its deploy was broken off.
        """
        record = self.find(name)
        if record.outputs is None:
            raise ResourceError(
                f"The deploy of {record.name} was not completed.",
                f'`gridup deploy --name "{record.name}"` completes it.',
            )
        return record, record.outputs

    def deployed(self, name: str | None) -> tuple[Record, NodeOutputs, Target]:
        """As `located`, with its target ready to be asked."""
        record, outputs = self.located(name)
        return record, outputs, self.target(outputs.spec.target)

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
        """
        with self._turn:
            if target.extra not in self._extras:
                from gridup.setup import extras

                try:
                    extras.ensure(target.extra, self.ui.say)
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
                from gridup import own_address

                self._own.append(own_address.ask(own_address.url(self.settings.environment)))
            return self._own[0]

    def binary(self, reporter: Reporter) -> Binary:
        """The pinned Pulumi engine, fetched or built when it is not there.

        Raises:
            SetupError: it could not be had.
        """
        from gridup.setup.engine import ensure_engine

        return ensure_engine(self.settings.home, reporter.step)

    def engine(self, reporter: Reporter) -> Engine:
        """The engine, with the state's folder and passphrase in place."""
        self.settings.ensure_state()
        binary = self.binary(reporter)
        from gridup.engine import PulumiEngine

        return PulumiEngine(self.settings, binary)


def require(target: Target, capability: Capability, what: str) -> None:
    """Refuse what this target can't do.

    Raises:
        UsageError: it does not have the capability.
    """
    if capability not in target.capabilities:
        raise UsageError(f"A node on {target.title} has no {what}.")
