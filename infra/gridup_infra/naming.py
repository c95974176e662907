"""A person's name for a node -> its stack's name (and, on clouds, its resources' names)."""

from __future__ import annotations

import hashlib
import shlex
import unicodedata

from gridup_infra.errors import InvalidNameError

NAME_MAX = 200
"""Characters of a name as typed: enough for any institution, and it still fits one line."""

STACK_MAX = 40
"""Characters of a stack's name. Pulumi allows 100; the strictest name we derive from it
(an Azure resource group of 90 with our prefixes and suffixes, a DNS label of 63) leaves
this much."""

RULE = (
    f"a name has at least one letter or digit, at most {NAME_MAX} characters, no control characters, and "
    "begins with no hyphen"
)

JOINERS = "\u200c\u200d"
"""Of the invisible characters those that words of some scripts, and some emoji, are written with."""


def check_name(name: str) -> str:
    """The name itself, when it is one.

    Raises:
        InvalidNameError: it is empty, has no letter or digit, is too long, begins with a hyphen, or holds
            control characters.
    """
    if name.startswith("-"):
        # What follows `--name` without a value.
        raise InvalidNameError(f"{name!r} can't be a node's name: {RULE}.", "Is the name missing before it?")
    if not any(c.isalnum() for c in name):
        raise InvalidNameError(f"{name!r} can't be a node's name: {RULE}.", 'For example --name "Inst".')
    if len(name) > NAME_MAX:
        raise InvalidNameError(f"A name of {len(name)} characters is too long: {RULE}.")
    if moves_text(name):
        raise InvalidNameError(f"{name!r} can't be a node's name: {RULE}.")
    return name


def moves_text(text: str) -> bool:
    """Whether it holds what a terminal acts on: a control character, the end of a line, or what turns the
    direction of text."""
    return any(unicodedata.category(c) in ("Cc", "Cs", "Cf", "Zl", "Zp") and c not in JOINERS for c in text)


def typed(command: str, name: str, *more: str) -> str:
    """A command about a node, to be copied into a shell: whatever its name is, it is one word there.

    Args:
        command: such as "destroy".
        more: what follows the name.
    """
    return shlex.join(["gridup", command, *(["--name"] if command == "deploy" else []), name, *more])


def stack_name(name: str) -> str:
    """The Pulumi stack of the node called `name`: lower-case ASCII letters, digits and hyphens.

    `Inst` -> `inst`, `My Lab_2` -> `my-lab-2`; letters of other scripts are transliterated.
    Only a name that had to be shortened gets a suffix, made from a hash of the whole name.

    Raises:
        InvalidNameError: as `check_name`.
    """
    from slugify import slugify

    check_name(name)
    slug: str = slugify(name)
    if slug and len(slug) <= STACK_MAX:
        return slug
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    head = slug[: STACK_MAX - len(digest) - 1].rstrip("-") or "node"
    return f"{head}-{digest}"
