"""The layouts that a stack's state had before its names were final.

Nothing was released with one of them, so no state is converted: it is recognised, and told apart from damage.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from gridup_infra.errors import StateError
from gridup_infra.spec import PROJECT

OLDER_MODULES = tuple(
    f"gridup_infra.{module}.resources".encode()
    for module in ("targets.local", "targets.docker", "targets.ssh", "vm")
)
"""Where the classes of providers were. A state of each target has one of them."""

OLDER_KEYS = frozenset({"generation"})
"""Keys of a stack's configuration."""


def is_older_provider(value: object) -> bool:
    """Whether a state's dynamic provider seems to be of an older layout. It is never unpickled."""
    if not isinstance(value, str):
        return False
    try:
        raw = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return False
    return any(module in raw for module in OLDER_MODULES)


def is_older_config(config: Mapping[str, str]) -> bool:
    """Whether a stack's configuration has a key of an older layout."""
    return any(key.removeprefix(f"{PROJECT}:") in OLDER_KEYS for key in config)


def older(stack: str = "") -> StateError:
    """The error for a stack of an older layout."""
    what = f"The stack {stack}" if stack else "The stack"
    return StateError(
        f"{what} was deployed by an older Gridup, whose state this one can't read. Nothing was run.",
        "Destroy it with that version, and deploy it anew with this one.",
    )
