"""Recognises a state with an older layout: one from before the names in it were final.

No release used an older layout. So such a state is not converted, only distinguished from a damaged one.
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
"""The modules that had the provider classes. An older state of any target names one of them."""

OLDER_KEYS = frozenset({"generation"})
"""Keys that only an older stack's configuration has."""


def provider_bytes(value: object) -> bytes:
    """Return the pickle of a dynamic provider in a state; empty if there is none. Never unpickles it."""
    if not isinstance(value, str):
        return b""
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return b""


def is_older_provider(value: object) -> bool:
    """Return whether a dynamic provider in a state seems to have an older layout."""
    raw = provider_bytes(value)
    return any(module in raw for module in OLDER_MODULES)


def is_older_config(config: Mapping[str, str]) -> bool:
    """Return whether a stack's configuration has a key of an older layout."""
    return any(key.removeprefix(f"{PROJECT}:") in OLDER_KEYS for key in config)


def older(what: str) -> StateError:
    """Return the error for what has an older layout, such as "The stack inst"."""
    return StateError(
        f"{what} was deployed by an older Gridup. This one can't read that state. Nothing was run.",
        "Destroy it with that version, and deploy it again with this one.",
    )
