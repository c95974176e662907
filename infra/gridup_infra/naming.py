"""Derives a stack's name (and, on clouds, the names of its resources) from the user's name for a node."""

from __future__ import annotations

import hashlib
import shlex
import unicodedata

from gridup_infra.errors import InvalidNameError

NAME_MAX = 200
"""Longest node name, in characters: enough for any institution, and it still fits in one line."""

STACK_MAX = 40
"""Longest stack name, in characters. Pulumi allows 100. The names derived from it have stricter limits (an
Azure resource group: 90 with Gridup's prefixes and suffixes, a DNS label: 63), which leave this length."""

RULE = (
    f"a name has at least one letter or digit, at most {NAME_MAX} characters, no control characters, and "
    "begins with no hyphen"
)

JOINERS = "\u200c\u200d"
"""The invisible characters that are allowed: words of some scripts and some emoji need them."""


def check_name(name: str) -> str:
    """Return the name unchanged if it is a valid node name.

    Raises:
        InvalidNameError: it is empty, has no letter or digit, is too long, begins with a hyphen, or holds
            control characters.
    """
    if name.startswith("-"):
        # The next option, if `--name` was given without a value.
        raise InvalidNameError(f"{name!r} can't be a node's name: {RULE}.", "Is the name missing before it?")
    if not any(c.isalnum() for c in name):
        raise InvalidNameError(f"{name!r} can't be a node's name: {RULE}.", 'For example --name "Inst".')
    if len(name) > NAME_MAX:
        raise InvalidNameError(f"A name of {len(name)} characters is too long: {RULE}.")
    if moves_text(name):
        raise InvalidNameError(f"{name!r} can't be a node's name: {RULE}.")
    return name


def moves_text(text: str) -> bool:
    """Return whether a text has characters that a terminal acts on.

    These are control characters, line ends, and characters that change the direction of text.
    """
    return any(unicodedata.category(c) in ("Cc", "Cs", "Cf", "Zl", "Zp") and c not in JOINERS for c in text)


def typed(command: str, name: str, *more: str) -> str:
    """Return a `gridup` command about a node, ready to copy into a shell. The node's name is quoted.

    Args:
        command: such as "destroy".
        more: the words after the name.
    """
    return shlex.join(["gridup", command, *(["--name"] if command == "deploy" else []), name, *more])


def stack_name(name: str) -> str:
    """Return the Pulumi stack name of the node called `name`: lower-case ASCII letters, digits and hyphens.

    `Inst` -> `inst`, `My Lab_2` -> `my-lab-2`; letters of other scripts are transliterated. A name that gives
    an empty or too long slug gets a suffix: a hash of the whole name.

    Raises:
        InvalidNameError: see `check_name`.
    """
    from slugify import slugify

    check_name(name)
    slug: str = slugify(name)
    if slug and len(slug) <= STACK_MAX:
        return slug
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    head = slug[: STACK_MAX - len(digest) - 1].rstrip("-") or "node"
    return f"{head}-{digest}"
