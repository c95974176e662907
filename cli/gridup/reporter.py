"""What long work tells: a protocol, so that the engine and the commands know no terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol


class Phase(Enum):
    """How far one operation on a resource is."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class ResourceEvent:
    """One resource, as the engine works on it.

    Attributes:
        name: in the program, such as `runtime`.
        operation: what the engine does: create, update, delete, replace, refresh, read, same.
        phase: see `Phase`.
        seconds: how long it took; 0 while it is under way.
        changed: the properties that made it necessary, where the engine tells.
    """

    name: str
    operation: str
    phase: Phase
    seconds: float = 0.0
    changed: tuple[str, ...] = ()


class Reporter(Protocol):
    """Where progress goes: never to standard output."""

    def step(self, text: str) -> None:
        """A new step of the work begins."""

    def resource(self, event: ResourceEvent) -> None:
        """The engine began or ended work on a resource."""

    def detail(self, resource: str, text: str) -> None:
        """What is being done to a resource right now."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that may be wrong."""


class Silent:
    """Tells nobody."""

    def step(self, text: str) -> None: ...

    def resource(self, event: ResourceEvent) -> None: ...

    def detail(self, resource: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


class _Through:
    """Tells another one."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def step(self, text: str) -> None:
        self._reporter.step(text)

    def resource(self, event: ResourceEvent) -> None:
        self._reporter.resource(event)

    def detail(self, resource: str, text: str) -> None:
        self._reporter.detail(resource, text)

    def note(self, text: str) -> None:
        self._reporter.note(text)

    def warn(self, text: str) -> None:
        self._reporter.warn(text)


class Foreseeing(_Through):
    """Of a preview: what would be done to resources is its result, and no progress of work."""

    def resource(self, event: ResourceEvent) -> None:
        if event.phase is Phase.FAILED or event.operation in ("refresh", "read"):
            super().resource(event)


class Keeping(_Through):
    """Of a destroy that keeps the data: for the engine what holds it is deleted, as it leaves the state.

    Args:
        kept: the resource that holds it.
    """

    def __init__(self, reporter: Reporter, kept: str) -> None:
        super().__init__(reporter)
        self._kept = kept

    def resource(self, event: ResourceEvent) -> None:
        kept = event.name == self._kept and event.operation == "delete"
        super().resource(replace(event, operation="keep") if kept else event)
