"""A node's own secrets, read and set through its way in; none is ever kept here."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gridup_infra.errors import ResourceError
from gridup_infra.targets.base import NodeAccess

READ_SECONDS = 30
CHANGE_SECONDS = 120
"""The node logs in to its own server for it, whose client takes some seconds to import."""


@dataclass(frozen=True)
class Secrets:
    """What a node's owner needs to log in."""

    admin_email: str
    admin_password: str
    jupyter_token: str

    def __repr__(self) -> str:
        return f"Secrets(admin_email={self.admin_email!r}, …)"


def read_secrets(access: NodeAccess) -> Secrets:
    """The node's secrets.

    Raises:
        ResourceError: the node can't be entered, or has none yet.
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
    """Set the root account's password; the same one again changes nothing.

    Raises:
        ResourceError: the node would not.
    """
    result = access.run(
        ["python", "-m", "gridup_node.admin", "set-password"],
        timeout=CHANGE_SECONDS,
        input=json.dumps({"password": password}).encode(),
    )
    if not result.ok:
        raise ResourceError(f"The admin's password could not be set: {' '.join(result.tail(1))}")
