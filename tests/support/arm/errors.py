"""ARM's errors: how one looks on the wire, and what each is refused for, with Microsoft's page on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ArmError(Exception):
    """An answer that is an error.

    Attributes:
        headers: that the answer has beside the usual ones.
        refusal: the rule that was broken; None for what a test made fail.
    """

    status: int
    code: str
    message: str
    target: str | None = None
    details: Sequence[tuple[str, str]] = ()
    headers: dict[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"

    def told(self) -> dict[str, Any]:
        """The error as ARM's JSON has it, without the envelope.

        https://learn.microsoft.com/rest/api/resources/resources/list#errorresponse
        """
        told: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            told["target"] = self.target
        if self.details:
            told["details"] = [{"code": code, "message": message} for code, message in self.details]
        return told

    def body(self) -> dict[str, Any]:
        return {"error": self.told()}


@dataclass(frozen=True)
class Refusal:
    """One thing that Azure refuses.

    Attributes:
        code, status: of the answer.
        source: the page of Microsoft's that has the rule.
        seen: where the answer itself was seen, when the page gives the rule only. Where neither has the code
            of the answer, it is what Azure most likely says: nothing may hang on such a code's letters.
    """

    code: str
    status: int
    source: str
    seen: str = ""

    def __call__(
        self, message: str, target: str | None = None, details: Sequence[tuple[str, str]] = (), **headers: str
    ) -> ArmError:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ArmError(self.status, self.code, message, target, details, named, self)
