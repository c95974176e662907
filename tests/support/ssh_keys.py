"""Public keys that are whole but open nothing: any length and comment, made without ssh-keygen."""

from __future__ import annotations

import base64
import hashlib


def ed25519(comment: str = "", seed: str = "") -> str:
    return _line("ssh-ed25519", comment, _noise(seed or comment, 32))


def rsa4096(comment: str = "", seed: str = "") -> str:
    return _line("ssh-rsa", comment, b"\x01\x00\x01", b"\x00" + _noise(seed or comment, 512))


def rsa(bits: int, comment: str = "") -> str:
    return _line("ssh-rsa", comment, b"\x01\x00\x01", b"\x00" + _noise(comment, bits // 8))


def ecdsa(comment: str = "") -> str:
    curve = b"nistp256"
    return _line("ecdsa-sha2-nistp256", comment, curve, b"\x04" + _noise(comment, 64))


def dsa(comment: str = "") -> str:
    return _line("ssh-dss", comment, *(_noise(f"{comment}{number}", 128) for number in range(4)))


def _line(kind: str, comment: str, *parts: bytes) -> str:
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), *parts))
    return f"{kind} {base64.b64encode(blob).decode()} {comment}".rstrip()


def _noise(seed: str, size: int) -> bytes:
    """Bytes that no compressor makes smaller, the same each time; the first has its highest bit set."""
    return b"\x80" + hashlib.shake_256(seed.encode()).digest(size - 1)
