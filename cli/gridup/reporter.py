"""Progress of long work: a protocol, so that the engine and the commands don't depend on a terminal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol


class Phase(Enum):
    """Progress of one operation on a resource."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class ResourceEvent:
    """Progress of the engine's work on one resource.

    Attributes:
        name: the resource's name in the program, such as `runtime`.
        operation: what the engine does: create, update, delete, replace, refresh, read, same.
        phase: see `Phase`.
        seconds: duration of the operation; 0 while it runs.
        changed: the properties that made the operation necessary, if the engine reports them.
    """

    name: str
    operation: str
    phase: Phase
    seconds: float = 0.0
    changed: tuple[str, ...] = ()


class Reporter(Protocol):
    """Receiver of progress. It never writes to standard output."""

    def step(self, text: str) -> None:
        """Report that a new step of the work begins."""

    def resource(self, event: ResourceEvent) -> None:
        """Report that the engine began or ended work on a resource."""

    def detail(self, resource: str, text: str) -> None:
        """Report the current activity on a resource."""

    def note(self, text: str) -> None:
        """Report something worth knowing."""

    def warn(self, text: str) -> None:
        """Report something that may be wrong."""


class Silent:
    """A reporter that discards everything."""

    def step(self, text: str) -> None: ...

    def resource(self, event: ResourceEvent) -> None: ...

    def detail(self, resource: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


class _Through:
    """Base of reporters that pass everything on to another reporter."""

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
    """The reporter of a preview.

    It drops the changes that a deploy would make: these are the preview's result, not its progress.
    """

    def resource(self, event: ResourceEvent) -> None:
        if event.phase is Phase.FAILED or event.operation in ("refresh", "read"):
            super().resource(event)


class Keeping(_Through):
    """The reporter of a destroy that retains the data.

    The engine reports the data's resource as deleted because the resource leaves the state. This reporter
    passes on "keep" instead.

    Args:
        kept: name of the resource that holds the data.
    """

    def __init__(self, reporter: Reporter, kept: str) -> None:
        super().__init__(reporter)
        self._kept = kept

    def resource(self, event: ResourceEvent) -> None:
        kept = event.name == self._kept and event.operation == "delete"
        super().resource(replace(event, operation="keep") if kept else event)
