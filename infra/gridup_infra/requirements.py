"""The packages that a data owner adds to a node: what may be asked for, and the form of their lock. Pure.

What is asked for is lines as in a requirements file, of packages alone. Their lock is text that uv and pip
read, with a hash for each wheel that a node may install. Its first line says what it was made of: of these
lines and of the node's own lock, so that another version of syft has another one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST_LINE = 500
"""Characters."""

LONGEST_LOCK = 100_000
"""Characters. Plain Pulumi hands a program its stack's configuration in one variable of the environment, of
which Linux takes 128 KiB (MAX_ARG_STRLEN in execve(2))."""

MOST = 200
"""Lines that may be asked for."""

OWN = ("syft",)
"""What every node has of itself, and what `--tag` chooses the version of."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===?|~=|!=|<=?|>=?)\s*[A-Za-z0-9.*+!_-]+"
_REQUIREMENT = re.compile(
    rf"({_NAME})\s*(?:\[\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\])?"
    rf"\s*(?:{_VERSION}(?:\s*,\s*{_VERSION})*)?\s*(?:;[\w\s.*'\"<>=!()~,-]+)?",
    re.ASCII,
)
"""PEP 508 without addresses."""

_MADE_OF = "# of "
_ENTRY = re.compile(
    rf"{_NAME}==[A-Za-z0-9.+!_-]+(?: ; [\w .*'<>=!()~,-]+)?(?: \\\n    --hash=sha256:[0-9a-f]{{64}})+",
    re.ASCII,
)


@dataclass(frozen=True)
class Pin:
    """One package of a lock.

    Attributes:
        marker: where it is installed (PEP 508); empty for everywhere.
        hashes: SHA-256, in hex, of each wheel that may be.
    """

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def text(self) -> str:
        """As a lock has it."""
        head = f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")
        return " \\\n".join((head, *(f"    --hash=sha256:{digest}" for digest in self.hashes)))


def parse(text: str) -> tuple[str, ...]:
    """The packages that a requirements file asks for.

    Raises:
        ValueError: a line asks for something else, or there are too many; the message has its number.
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
    """A line, when it asks for a package by its name.

    Raises:
        ValueError: it does not. What may hold a password is not repeated in the message.
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
    """Nothing, when a lock holds nothing but packages with their hashes.

    Raises:
        ValueError: it does not, or is too long.
    """
    if len(text) > LONGEST_LOCK:
        raise ValueError(f"their lock has {len(text)} characters, and may have {LONGEST_LOCK}")
    lines = text.split("\n", 1)
    entries = re.split(r"\n(?=\S)", lines[1].rstrip("\n")) if len(lines) > 1 and lines[1].strip() else []
    if not text.startswith(_MADE_OF) or not all(_ENTRY.fullmatch(entry) for entry in entries):
        raise ValueError("their lock is not one of Gridup's")


def lock_text(wanted: Sequence[str], own: bytes, pins: Iterable[Pin]) -> str:
    """The lock of `pins`.

    Args:
        wanted: the lines that it was made of.
        own: the node's own lock.
    """
    return "\n".join((_made_of(wanted, own), *(pin.text() for pin in pins))) + "\n"


def is_of(lock: str, wanted: Sequence[str], own: bytes) -> bool:
    """Whether a lock was made of these lines and this lock of the node's own."""
    return lock.startswith(_made_of(wanted, own) + "\n")


def _made_of(wanted: Sequence[str], own: bytes) -> str:
    made = hashlib.sha256("\n".join(wanted).encode() + b"\0" + own)
    return f"{_MADE_OF}{made.hexdigest()[:16]}"


def named(lines: Iterable[str]) -> list[str]:
    """The names of the packages that are asked for, each once."""
    found = (_REQUIREMENT.fullmatch(line) for line in lines)
    return list(dict.fromkeys(canonical(match[1]) for match in found if match))


def chosen(lines: Iterable[str], pins: Iterable[str]) -> list[str]:
    """Those of `pins` (`name==version`) that are asked for, in that order, each once."""
    known: dict[str, list[str]] = {}
    for pin in dict.fromkeys(pins):
        known.setdefault(canonical(pin.partition("==")[0]), []).append(pin)
    return [pin for name in named(lines) for pin in known.get(name, ())]


def canonical(name: str) -> str:
    """A package's name as an index has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
