"""What long work tells: a protocol, so that the engine and the commands know no terminal."""

from __future__ import annotations

from dataclasses import dataclass
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
