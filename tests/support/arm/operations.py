"""Long-running operations: accepted at once, done later, asked after meanwhile.

https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.arm.errors import ArmError


@dataclass
class Operation:
    """One.

    Attributes:
        due: when it is over, on the world's clock.
        finish: what happens then; what it raises is what the operation fails with.
        abandon: what happens when it failed.
        result: what the `Location` address answers in the end; None is "no content".
        works_on: the key of the resource.
    """

    namespace: str
    location: str
    due: float
    finish: Callable[[], None]
    abandon: Callable[[], None] = lambda: None
    result: Callable[[], dict[str, Any] | None] = lambda: None
    works_on: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    began: str = field(default_factory=lambda: timestamp())
    ended: str = ""
    error: ArmError | None = None

    @property
    def over(self) -> bool:
        return bool(self.ended)

    @property
    def status(self) -> str:
        if not self.over:
            return "InProgress"
        return "Failed" if self.error else "Succeeded"

    def settle(self, now: float) -> None:
        """End it, if its time has come."""
        if self.over or now < self.due:
            return
        try:
            if self.error is None:
                self.finish()
        except ArmError as error:
            self.error = error
        if self.error is not None:
            self.abandon()
        self.ended = timestamp()

    def told(self) -> dict[str, Any]:
        """What the `Azure-AsyncOperation` address answers."""
        told: dict[str, Any] = {"name": self.id, "startTime": self.began, "status": self.status}
        if self.over:
            told["endTime"] = self.ended
        if self.error:
            told["error"] = self.error.told()
        return told


def timestamp() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()
