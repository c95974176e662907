"""A request as the handlers see it, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from support.arm import refusals
from support.arm.errors import ArmError
from support.arm.ids import Id
from support.arm.operations import Operation
from support.arm.world import World


@dataclass
class Answer:
    """Of a handler: JSON, or bytes as they are, or nothing."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """One that came.

    Attributes:
        base: the address that it came to, for those that an answer names.
        actions: the rights that it takes; the first is its own, the others those on what it links to.
        late: the error that its operation is to end with.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: bytes
    world: World
    base: str
    actions: list[str] = field(default_factory=list)
    late: ArmError | None = None
    retry_after: int = 0
    page: int = 100
    allowed: Callable[[str, str], bool] = lambda _action, _scope: True

    @property
    def version(self) -> str:
        return self.query.get("api-version", "")

    def body(self) -> dict[str, Any]:
        """The JSON object that it has."""
        try:
            body = json.loads(self.raw or b"null")
        except ValueError as error:
            raise refusals.BAD_JSON(
                f"The request content was invalid and could not be deserialized: '{error}'."
            ) from None
        if not isinstance(body, dict):
            raise refusals.BAD_JSON("The request content was invalid: it must be a JSON object.")
        return body

    def link(self, action: str, target: str, scope: Id) -> None:
        """Ask for the right on something that the request's own thing is joined to."""
        if action not in self.actions:
            self.actions.append(action)
        if not self.allowed(action, target):
            raise refusals.NO_LINKED_RIGHT(
                f"The client has permission to perform action '{self.actions[0]}' on scope '{scope}'; "
                f"however, it does not have permission to perform action(s) '{action}' on the linked "
                f"scope(s) '{target}' or the linked scope(s) are invalid."
            )

    def url(self, path: str, **query: str) -> str:
        return f"{self.base}{quote(path, safe='/()')}?{urlencode({**query, 'api-version': self.version})}"

    def follow(self, operation: Operation, subscription: str, *, location: bool) -> dict[str, str]:
        """The headers that say where an operation can be asked after."""
        headers = {"Retry-After": str(self.retry_after)}
        if operation.namespace == "Microsoft.Resources":
            path = f"/subscriptions/{subscription}/operationresults/{operation.id}"
            return {**headers, "Location": self.url(path)}
        place = (
            f"/subscriptions/{subscription}/providers/{operation.namespace}/locations/{operation.location}"
        )
        # Disks have a service of their own, with a place of its own.
        word = "DiskOperations" if "/microsoft.compute/disks/" in operation.works_on else "operations"
        headers["Azure-AsyncOperation"] = self.url(f"{place}/{word}/{operation.id}")
        if location:
            if operation.namespace == "Microsoft.Compute":
                headers["Location"] = self.url(f"{place}/{word}/{operation.id}", monitor="true")
            else:
                headers["Location"] = self.url(f"{place}/operationResults/{operation.id}")
        return headers
