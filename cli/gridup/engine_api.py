"""What the commands need of an engine. No import of the SDK here: `gridup.engine` is the real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gridup.reporter import Reporter
from gridup_infra.spec import DeploySpec


@dataclass(frozen=True)
class Change:
    """One resource that an operation touched, or would touch."""

    name: str
    operation: str
    changed: tuple[str, ...] = ()


@dataclass
class Report:
    """What an operation did: the resources it touched, those that only stayed the same apart.

    Attributes:
        failures: by resource, why it failed.
        refused: those of them that failed for want of credentials.
    """

    changes: list[Change] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    @property
    def unchanged(self) -> bool:
        return not self.changes


class Engine(Protocol):
    """What the commands need of an engine; one contract suite runs against each."""

    def up(self, spec: DeploySpec, reporter: Reporter, *, refresh: bool = True) -> Report:
        """Make the stack what the spec says; with `refresh` after looking at what is really there."""
        ...

    def preview(self, spec: DeploySpec, reporter: Reporter, *, new: bool) -> Report:
        """What `up` would do; with `new` for a stack that does not exist, and makes none."""
        ...

    def refresh(self, stack: str, reporter: Reporter) -> Report:
        """Take what is really there into the state."""
        ...

    def import_existing(self, stack: str, ids: Mapping[str, str], reporter: Reporter) -> Report:
        """Take what creates that were interrupted have made after all into the state; forget the other ones.

        Args:
            ids: the cloud's own, by URN.
        """
        ...

    def destroy(self, stack: str, reporter: Reporter) -> Report:
        """Delete every resource of the stack."""
        ...

    def remove_stack(self, stack: str) -> None:
        """Remove an empty stack, its history and its configuration."""
        ...

    def unlock(self, stack: str) -> bool:
        """Take away a lock whose holder is dead; whether there was one."""
        ...
