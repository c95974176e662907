"""Reads users' public ssh keys from files, and refuses invalid ones before anything is created."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from gridup_infra.errors import UsageError
from gridup_infra.targets.base import Target

RSA_BITS = 2048
"""Minimum length of an RSA key in bits (NIST SP 800-131A, and clouds). Shorter keys can be broken."""

LONGEST = 100_000
"""Maximum size of a public key file, in bytes; even a whole authorized_keys is smaller."""


def read_key(path: Path, flag: str = "--ssh-key") -> str:
    """Read the one line of a public key file. Cleans what editors and other systems add or change.

    Args:
        flag: the option that named the file, for messages.

    Raises:
        UsageError: the file can't be read, has no public key, or has a key that is too short.
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
    # PowerShell's `>` writes UTF-16.
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if utf16 else "utf-8-sig")


def check_types(target: Target, keys: Iterable[str], flag: str = "--ssh-key") -> None:
    """Check that the target accepts keys of these types.

    Args:
        flag: the option that gave the keys, for messages.

    Raises:
        UsageError: the target does not accept the type of one of the keys.
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
    """Return the length of an RSA key in bits; 0 for a key of another type."""
    kind, encoded, *_ = line.split(" ")
    if kind != "ssh-rsa":
        return 0
    parts = list(_parts(base64.b64decode(encoded)))
    # RFC 4253 6.6: the key's type, the exponent, the modulus.
    return int.from_bytes(parts[2], "big").bit_length() if len(parts) > 2 else 1


def _parts(blob: bytes) -> Iterator[bytes]:
    while blob:
        length = int.from_bytes(blob[:4], "big")
        yield blob[4 : 4 + length]
        blob = blob[4 + length :]
