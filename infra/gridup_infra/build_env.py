"""Build arguments of the node's image that come from the environment variables of the user who deploys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from gridup_infra.loopback import is_loopback

BASE_IMAGE_VARIABLE = "GRIDUP_BASE_IMAGE"

MIRRORS: Mapping[str, tuple[str, ...]] = {
    "PIP_INDEX_URL": ("PIP_INDEX_URL",),
    "PIP_EXTRA_INDEX_URL": ("PIP_EXTRA_INDEX_URL",),
    "UV_DEFAULT_INDEX": ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"),
    "UV_INDEX": ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
}
"""Build argument -> the user's variables with the same meaning. The first one that is set is used."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

NAMES = (*MIRRORS, *PROXIES, *(name.lower() for name in PROXIES))
"""The names of all arguments that a build may get."""


def build_arguments() -> dict[str, str]:
    """Return the user's proxies and package mirrors as build arguments. They may contain passwords."""
    found = {}
    for ours, theirs in MIRRORS.items():
        if value := next((os.environ[name] for name in theirs if os.environ.get(name)), ""):
            found[ours] = value
    for name in (*PROXIES, *(name.lower() for name in PROXIES)):
        if value := os.environ.get(name, ""):
            found[name] = value
    return found


def portable_build_args() -> dict[str, str]:
    """Return the build arguments that also work on another machine: without addresses on the loopback."""
    return {name: value for name, value in build_arguments().items() if not _is_loopback(value)}


def _is_loopback(value: str) -> bool:
    try:
        return "://" in value and is_loopback(urlsplit(value).hostname or "")
    except ValueError:
        return False
