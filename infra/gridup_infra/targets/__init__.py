"""The registry of targets. A new target needs only a module in this folder and a line below."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gridup_infra.errors import UsageError

if TYPE_CHECKING:
    from gridup_infra.targets.base import ReadSecret, Target

_REGISTRY: dict[str, str] = {
    "local": "gridup_infra.targets.local:LocalTarget",
    "docker": "gridup_infra.targets.docker:DockerTarget",
    "aws": "gridup_infra.targets.aws:AwsTarget",
    "azure": "gridup_infra.targets.azure:AzureTarget",
    "ssh": "gridup_infra.targets.ssh:SshTarget",
}

_PLANNED: tuple[str, ...] = ()
"""Planned targets: the error for one of them is "not there yet" instead of "unknown"."""

DEFAULT = "local"


def names() -> tuple[str, ...]:
    """Return the names of all targets, the default first."""
    return tuple(_REGISTRY)


def target(name: str, secret: ReadSecret | None = None) -> Target:
    """Return the target called `name`. Its module is imported at this moment.

    Args:
        secret: see `Target`.

    Raises:
        UsageError: there is no target of that name (yet).
    """
    if name not in _REGISTRY:
        what = "is not there yet" if name in _PLANNED else "is unknown"
        raise UsageError(f"The target {name!r} {what}.", f"This version has: {', '.join(names())}.")
    module, _, attribute = _REGISTRY[name].partition(":")
    kind: type[Target] = getattr(importlib.import_module(module), attribute)
    return kind(secret) if secret else kind()


def packages() -> frozenset[str]:
    """Return the Pulumi packages whose resources any target uses, in addition to Gridup's own."""
    return frozenset(package for name in names() for package in target(name).packages)


def is_own_provider(value: object) -> bool:
    """Return whether a dynamic provider in a state equals, byte for byte, one of Gridup's provider classes.

    Never unpickles it. Imports a provider module only if the value contains that module's name.
    """
    from gridup_infra.layout import provider_bytes
    from gridup_infra.targets.dynamic import serialized

    raw = provider_bytes(value)

    modules = {module for name in names() for module in target(name).providers}
    return any(value in serialized(module) for module in modules if module.encode() in raw)
