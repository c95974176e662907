"""The registry of targets. A new one is a module here and a line below, and nothing else."""

from __future__ import annotations

import base64
import binascii
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
"""Targets of the design that are not there yet: asking for one says so instead of "unknown"."""

DEFAULT = "local"


def names() -> tuple[str, ...]:
    """The targets there are, the default first."""
    return tuple(_REGISTRY)


def target(name: str, secret: ReadSecret | None = None) -> Target:
    """The target called `name`; its module is imported here and not before.

    Args:
        secret: see `Target`.

    Raises:
        UsageError: there is none of that name (yet).
    """
    if name not in _REGISTRY:
        what = "is not there yet" if name in _PLANNED else "is unknown"
        raise UsageError(f"The target {name!r} {what}.", f"This version has: {', '.join(names())}.")
    module, _, attribute = _REGISTRY[name].partition(":")
    kind: type[Target] = getattr(importlib.import_module(module), attribute)
    return kind(secret) if secret else kind()


def packages() -> frozenset[str]:
    """The packages of Pulumi's of which any target has resources, beside our own."""
    return frozenset(package for name in names() for package in target(name).packages)


def is_own_provider(value: object) -> bool:
    """Whether a state's dynamic provider is, byte for byte, what one of our classes is written as.

    It is never unpickled. Of the modules of providers only one whose name is in it is imported.
    """
    if not isinstance(value, str):
        return False
    try:
        raw = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return False
    from gridup_infra.targets.dynamic import serialized

    modules = {module for name in names() for module in target(name).providers}
    return any(value in serialized(module) for module in modules if module.encode() in raw)
