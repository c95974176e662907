"""The syft versions that a node can run: one lock with pinned hashes for each, next to this module."""

from __future__ import annotations

import re
from pathlib import Path

LOCKS = Path(__file__).parent / "locks"

TAGS: tuple[str, ...] = ("0.9.5",)
"""The syft versions that Gridup ships, the newest last."""

LATEST = "latest"

PYTHONS = ((3, 10), (3, 12))
"""The oldest and the newest Python version that these syft versions run on."""


def pythons() -> str:
    """Return `PYTHONS` as text for users."""
    return " to ".join(".".join(map(str, version)) for version in PYTHONS)


def resolve(tag: str) -> str:
    """Return the syft version that `tag` stands for.

    Raises:
        ValueError: Gridup does not ship this version; the message lists the versions that it ships.
    """
    if tag == LATEST:
        return TAGS[-1]
    if tag not in TAGS:
        raise ValueError(f"syft {tag!r} is not shipped; there is {', '.join((LATEST, *reversed(TAGS)))}")
    return tag


def lock_for(tag: str) -> Path:
    """Return the lock of the environment that runs the syft version `tag`; `latest` is the newest.

    Raises:
        ValueError: Gridup does not ship this version; the message lists the versions that it ships.
    """
    return LOCKS / f"syft-{resolve(tag)}.txt"


def pins(tag: str) -> list[str]:
    """Return the packages that the lock of `tag` installs, see `pins_of`."""
    return pins_of(lock_for(tag).read_text(encoding="utf-8"))


def pins_of(lock: str) -> list[str]:
    """Return the packages that a lock installs, as `name==version`.

    If a package's version depends on the Python version, the result has each of its versions.
    """
    return re.findall(r"^([\w.-]+==[^\s;]+)", lock, re.MULTILINE)
