"""What a build of the node's image takes from the environment of whoever deploys."""

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
"""The build's arguments -> the person's variables that say the same; the first that is set counts."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

NAMES = (*MIRRORS, *PROXIES, *(name.lower() for name in PROXIES))
"""All that a build may be handed."""


def build_arguments() -> dict[str, str]:
    """The person's proxies and package mirrors, as the build takes them. There may be passwords in them."""
    found = {}
    for ours, theirs in MIRRORS.items():
        if value := next((os.environ[name] for name in theirs if os.environ.get(name)), ""):
            found[ours] = value
    for name in (*PROXIES, *(name.lower() for name in PROXIES)):
        if value := os.environ.get(name, ""):
            found[name] = value
    return found


def portable_build_args() -> dict[str, str]:
    """Those that mean the same on another machine: what this one alone serves is left out."""
    return {name: value for name, value in build_arguments().items() if not _is_loopback(value)}


def _is_loopback(value: str) -> bool:
    try:
        return "://" in value and is_loopback(urlsplit(value).hostname or "")
    except ValueError:
        return False
