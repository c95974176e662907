"""Packages that a data owner adds to a node: which lines are allowed, and the format of their lock. Pure.

The data owner writes lines as in a requirements file, but only for packages from an index. The lock is text
that uv and pip can read. It has a hash for each wheel that a node may install. Its first line has a hash of
its sources: the data owner's lines and the node's own lock. So each version of syft needs another lock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST_LINE = 500
"""The longest line, in characters."""

LONGEST_LOCK = 100_000
"""The longest lock, in characters. Plain Pulumi passes a stack's configuration to the program in one
environment variable. Linux allows 128 KiB for it (MAX_ARG_STRLEN in execve(2))."""

MOST = 200
"""The highest number of lines."""

OWN = ("syft",)
"""The packages that every node has. `--tag` chooses their version."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===?|~=|!=|<=?|>=?)\s*[A-Za-z0-9.*+!_-]+"
_REQUIREMENT = re.compile(
    rf"({_NAME})\s*(?:\[\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\])?"
    rf"\s*(?:{_VERSION}(?:\s*,\s*{_VERSION})*)?\s*(?:;[\w\s.*'\"<>=!()~,-]+)?",
    re.ASCII,
)
"""PEP 508 without URLs."""

_MADE_OF = "# of "
_ENTRY = re.compile(
    rf"{_NAME}==[A-Za-z0-9.+!_-]+(?: ; [\w .*'<>=!()~,-]+)?(?: \\\n    --hash=sha256:[0-9a-f]{{64}})+",
    re.ASCII,
)


@dataclass(frozen=True)
class Pin:
    """One package of a lock.

    Attributes:
        name: the package's name.
        version: its exact version.
        marker: the systems and Pythons that it is installed on (PEP 508); empty for all.
        hashes: the SHA-256, in hex, of each wheel that may be installed.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def text(self) -> str:
        """Return its entry in a lock."""
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n".join((head, *(f"    --hash=sha256:{digest}" for digest in self.hashes)))


def parse(text: str) -> tuple[str, ...]:
    """Return the lines of a requirements file, without comments and blank lines.

    Raises:
        ValueError: a line is not a package, or there are too many; the message has the line's number.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        try:
            found.append(check(line))
            Requirement(line)
        except ValueError as error:
            why = str(error).splitlines()[0]
            told = f"is {line[:60]!r}: {why}" if isinstance(error, InvalidRequirement) else why
            raise ValueError(f"line {number} {told}") from None
        if len(found) > MOST:
            raise ValueError(f"line {number} is one too many: {MOST} packages may be asked for")
    return tuple(found)


def check(line: str) -> str:
    """Return the line unchanged if it asks for a package by name.

    Raises:
        ValueError: it does not. The message does not repeat text that may contain a password.
    """
    if "--hash" in line:
        raise ValueError("has hashes, which are made of what is found at the deploy: leave them out")
    if line.startswith("-"):
        raise ValueError("is an option; there may be only packages, from the index that your settings name")
    if "://" in line or "@" in line:
        raise ValueError("is an address; there may be only packages, from the index that your settings name")
    if line.startswith((".", "/", "~", "\\")) or re.search(r"[/\\]|\.(whl|zip|txt|gz)$", line):
        raise ValueError("is a path; there may be only packages, from the index that your settings name")
    found = _REQUIREMENT.fullmatch(line) if len(line) <= LONGEST_LINE else None
    if not found:
        raise ValueError(f"is {line[:60]!r}, which is no package such as humanize or humanize>=4,<5")
    if canonical(found[1]) in OWN:
        raise ValueError(f"asks for {found[1]}, which a node has of itself: --tag chooses its version")
    return line


def check_lock(text: str) -> None:
    """Check that a lock contains only packages with their hashes.

    Raises:
        ValueError: the lock contains something else, or is too long.
    """
    if len(text) > LONGEST_LOCK:
        raise ValueError(f"their lock has {len(text)} characters, and may have {LONGEST_LOCK}")
    lines = text.split("\n", 1)
    entries = re.split(r"\n(?=\S)", lines[1].rstrip("\n")) if len(lines) > 1 and lines[1].strip() else []
    if not text.startswith(_MADE_OF) or not all(_ENTRY.fullmatch(entry) for entry in entries):
        raise ValueError("their lock is not one of Gridup's")


def lock_text(wanted: Sequence[str], own: bytes, pins: Iterable[Pin]) -> str:
    """Return the lock with `pins`.

    Args:
        wanted: the lines of the data owner that the pins were found for.
        own: the node's own lock.
    """
    return "\n".join((_made_of(wanted, own), *(pin.text() for pin in pins))) + "\n"


def is_of(lock: str, wanted: Sequence[str], own: bytes) -> bool:
    """Return whether a lock was made from these lines and this lock of the node's own."""
    return lock.startswith(_made_of(wanted, own) + "\n")


def _made_of(wanted: Sequence[str], own: bytes) -> str:
    made = hashlib.sha256("\n".join(wanted).encode() + b"\0" + own)
    return f"{_MADE_OF}{made.hexdigest()[:16]}"


def named(lines: Iterable[str]) -> list[str]:
    """Return the names of the packages that the lines ask for, without duplicates."""
    found = (_REQUIREMENT.fullmatch(line) for line in lines)
    return list(dict.fromkeys(canonical(match[1]) for match in found if match))


def chosen(lines: Iterable[str], pins: Iterable[str]) -> list[str]:
    """Return the `pins` (`name==version`) that the lines ask for, in the order of the lines, each once."""
    known: dict[str, list[str]] = {}
    for pin in dict.fromkeys(pins):
        known.setdefault(canonical(pin.partition("==")[0]), []).append(pin)
    return [pin for name in named(lines) for pin in known.get(name, ())]


def canonical(name: str) -> str:
    """Return a package's normalized name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
