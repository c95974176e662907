"""People's public keys: read from whatever file they have, and refused before anything is made."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from gridup_infra.errors import UsageError
from gridup_infra.targets.base import Target

RSA_BITS = 2048
"""NIST SP 800-131A, and what clouds ask at least; shorter keys can be broken."""

LONGEST = 100_000
"""Bytes of a public key file at most: a whole authorized_keys is smaller."""


def read_key(path: Path, flag: str = "--ssh-key") -> str:
    """A public key file's one line, clean, whatever editor or system it went through.

    Args:
        flag: what named it.

    Raises:
        UsageError: it can't be read, or holds no public key, or one that is too short.
    """
    from gridup_node.vm.user_data import public_key

    try:
        with path.expanduser().open("rb") as file:
            text = _text(file.read(LONGEST))
    except OSError as error:
        raise UsageError(f"{flag} {path} can't be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{flag} {path} is not a text file.", "Give the .pub file.") from None
    if not text.strip():
        raise UsageError(f"{flag} {path} is empty.", "Give the .pub file.")
    try:
        line = public_key(text)
    except ValueError as error:
        raise UsageError(f"{flag} {path}: {error}.", "Give the .pub file of an ed25519 key.") from None
    bits = rsa_bits(line)
    if bits and bits < RSA_BITS:
        raise UsageError(
            f"{flag} {path}: an RSA key of {bits} bits is too short; it needs {RSA_BITS}.",
            "`ssh-keygen -t ed25519` makes a good one.",
        )
    return line


def _text(raw: bytes) -> str:
    # What PowerShell's > makes.
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if utf16 else "utf-8-sig")


def check_types(target: Target, keys: Iterable[str], flag: str = "--ssh-key") -> None:
    """Nothing, when the target takes keys of these types.

    Args:
        flag: what gave them.

    Raises:
        UsageError: it does not take one of them; its type is named.
    """
    for key in keys if target.key_types else ():
        kind, _, rest = key.partition(" ")
        if kind not in target.key_types:
            whose = rest.partition(" ")[2]
            named = f" {whose!r}" if whose else ""
            known = " and ".join(target.key_types)
            raise UsageError(
                f"{flag}{named} is of the type {kind}; {target.title} takes {known}.",
                "`ssh-keygen -t ed25519` makes one of a type that every target takes.",
            )


def rsa_bits(line: str) -> int:
    """How long an RSA key is, in bits; 0 for a key of another type."""
    kind, encoded, *_ = line.split(" ")
    if kind != "ssh-rsa":
        return 0
    parts = list(_parts(base64.b64decode(encoded)))
    # RFC 4253 6.6: its type, the exponent, the modulus.
    return int.from_bytes(parts[2], "big").bit_length() if len(parts) > 2 else 1


def _parts(blob: bytes) -> Iterator[bytes]:
    while blob:
        length = int.from_bytes(blob[:4], "big")
        yield blob[4 : 4 + length]
        blob = blob[4 + length :]
