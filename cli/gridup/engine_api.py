"""The interface between the commands and an engine.

This module does not import Pulumi's SDK. `gridup.engine` implements the interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gridup.reporter import Reporter
from gridup_infra.spec import DeploySpec


@dataclass(frozen=True)
class Change:
    """One resource that an operation changed, or would change.

    Attributes:
        name: name of the resource.
        operation: what the engine did, such as `create`.
        changed: the properties that differ.
    """

    name: str
    operation: str
    changed: tuple[str, ...] = ()


@dataclass
class Report:
    """The result of an operation.

    Attributes:
        changes: the resources that changed, without those that stayed the same.
        failures: resource -> why it failed.
        refused: the resources that failed because of missing or invalid credentials.
    """

    changes: list[Change] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    @property
    def unchanged(self) -> bool:
        return not self.changes


class Engine(Protocol):
    """The engine as the commands use it. One contract test suite runs against each implementation."""

    def up(self, spec: DeploySpec, reporter: Reporter, *, refresh: bool = True) -> Report:
        """Create or update the stack as the spec says; with `refresh` read the real resources first."""
        ...

    def preview(self, spec: DeploySpec, reporter: Reporter, *, new: bool) -> Report:
        """Return what `up` would do. With `new` the stack does not exist yet, and this does not create it."""
        ...

    def refresh(self, stack: str, reporter: Reporter) -> Report:
        """Read the real resources and update the state."""
        ...

    def import_existing(self, stack: str, ids: Mapping[str, str], reporter: Reporter) -> Report:
        """Import what interrupted creates did make; drop pending operations that made nothing.

        Args:
            ids: URN -> the cloud's id.
        """
        ...

    def destroy(self, stack: str, reporter: Reporter) -> Report:
        """Delete every resource of the stack."""
        ...

    def remove_stack(self, stack: str) -> None:
        """Remove an empty stack with its history and its configuration."""
        ...

    def unlock(self, stack: str) -> bool:
        """Remove the stack's locks whose holder is dead. Returns whether there was one."""
        ...
