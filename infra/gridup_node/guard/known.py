"""Proofs of an earlier sign-in: a browser has a device token, syft's client has a cookie.

syft's client sends no signature when it asks which methods a key may call, and a public key is no secret. So
the guard requires a cookie. The client uses the same connection as for the sign-in, which keeps cookies.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any

from gridup_node.guard.routes import API
from gridup_node.portal.sessions import cookie_name, is_device

DESCRIPTION_SECONDS = 30 * 24 * 60 * 60
"""How long the cookie is valid: a notebook may stay open that long."""
DESCRIPTION_PATH = f"{API}/api"
NONCE = "."


class Known:
    """Reads and creates the proofs of an earlier sign-in.

    Args:
        key: the node's key; nobody can create a proof without it.
        clock: returns seconds since 1970, because proofs stay valid after a restart.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key, self._clock = key, clock

    def device(self, scope: Any) -> str:
        """Return the device token of a browser that has signed in to any account before; else ""."""
        name = cookie_name(self._key, "device", scope.get("scheme") == "https")
        return next((value for value in _cookies(scope, name) if is_device(self._key, value)), "")

    def cookie(self, scope: Any, account: bytes) -> bytes:
        """Return a Set-Cookie header. Its holder may ask which methods this account's public key may call."""
        until = f"{int(self._clock()) + DESCRIPTION_SECONDS:x}"
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        return (
            f"{self._name(account)}={until}{NONCE}{self._mark(account, until)}; Path={DESCRIPTION_PATH}; "
            f"Max-Age={DESCRIPTION_SECONDS}; HttpOnly; SameSite=Strict{secure}"
        ).encode()

    def has_signed_in(self, scope: Any, account: bytes) -> bool:
        """Whether the request has a valid cookie of this account."""
        for value in _cookies(scope, self._name(account)):
            until, _, mark = value.partition(NONCE)
            same = hmac.compare_digest(mark.encode(), self._mark(account, until).encode())
            if same and int(until, 16) > self._clock():
                return True
        return False

    def _name(self, account: bytes) -> str:
        # One cookie per account: a gateway signs in to many accounts on one connection.
        return f"{cookie_name(self._key, 'api', False)}_{hashlib.sha256(account).hexdigest()[:8]}"

    def _mark(self, account: bytes, until: str) -> str:
        said = b"description:" + account + until.encode()
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()[:32]


def _cookies(scope: Any, name: str) -> Iterator[str]:
    for header, text in scope["headers"]:
        if header == b"cookie":
            for part in text.decode("latin-1").split(";"):
                key, _, value = part.strip().partition("=")
                if key == name:
                    yield value
