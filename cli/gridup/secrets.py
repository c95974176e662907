"""Reads and sets a node's own secrets through `NodeAccess`. Gridup never stores any of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gridup_infra.errors import ResourceError
from gridup_infra.targets.base import NodeAccess

READ_SECONDS = 30
CHANGE_SECONDS = 120
"""Limits in seconds. For a change the node logs in to its own server; to import the client takes seconds."""


@dataclass(frozen=True)
class Secrets:
    """The secrets that a data owner needs to log in to the node."""

    admin_email: str
    admin_password: str
    jupyter_token: str

    def __repr__(self) -> str:
        return f"Secrets(admin_email={self.admin_email!r}, …)"


def read_secrets(access: NodeAccess) -> Secrets:
    """Read the node's secrets.

    Raises:
        ResourceError: there is no access to the node, or it has no secrets yet.
    """
    result = access.run(["python", "-m", "gridup_node.admin", "secrets"], timeout=READ_SECONDS)
    if not result.ok:
        raise ResourceError(f"The node's secrets can't be read: {' '.join(result.tail(1))}")
    try:
        return Secrets(**json.loads(result.stdout))
    except (ValueError, TypeError):
        raise ResourceError(
            "The node's secrets can't be read: it answered something else.", "Try again."
        ) from None


def change_password(access: NodeAccess, password: str) -> None:
    """Set the root account's password. If the node has this password already, nothing changes.

    Raises:
        ResourceError: the node could not set it.
    """
    result = access.run(
        ["python", "-m", "gridup_node.admin", "set-password"],
        timeout=CHANGE_SECONDS,
        input=json.dumps({"password": password}).encode(),
    )
    if not result.ok:
        raise ResourceError(f"The admin's password could not be set: {' '.join(result.tail(1))}")
