"""The registry of targets. A new one is a module here and a line below, and nothing else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gridup_infra.errors import UsageError

if TYPE_CHECKING:
    from gridup_infra.targets.base import Secret, Target

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


def target(name: str, secret: Secret | None = None) -> Target:
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
