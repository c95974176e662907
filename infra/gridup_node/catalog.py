"""Which syft versions a node can run: one hash-pinned lock each, beside this module."""

from __future__ import annotations

import re
from pathlib import Path

LOCKS = Path(__file__).parent / "locks"

TAGS: tuple[str, ...] = ("0.9.5",)
"""The syft versions that are shipped, the newest last."""

LATEST = "latest"

PYTHONS = ((3, 10), (3, 12))
"""The oldest and the newest Python that they run on."""


def pythons() -> str:
    """`PYTHONS`, for people."""
    return " to ".join(".".join(map(str, version)) for version in PYTHONS)


def resolve(tag: str) -> str:
    """The syft version that `tag` stands for.

    Raises:
        ValueError: it is not shipped; the message names those that are.
    """
    if tag == LATEST:
        return TAGS[-1]
    if tag not in TAGS:
        raise ValueError(f"syft {tag!r} is not shipped; there is {', '.join((LATEST, *reversed(TAGS)))}")
    return tag


def lock_for(tag: str) -> Path:
    """The lock of the environment that runs the syft version `tag`; `latest` is the newest.

    Raises:
        ValueError: it is not shipped; the message names those that are.
    """
    return LOCKS / f"syft-{resolve(tag)}.txt"


def pins(tag: str) -> list[str]:
    """What that lock installs, see `pins_of`."""
    return pins_of(lock_for(tag).read_text(encoding="utf-8"))


def pins_of(lock: str) -> list[str]:
    """What a lock installs, as `name==version`; of a package that depends on the Python, each version."""
    return re.findall(r"^([\w.-]+==[^\s;]+)", lock, re.MULTILINE)
