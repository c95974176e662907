"""What a caller has of an earlier sign-in: a browser the token of its device, syft's client a cookie.

syft's client asks what a key may call without a signature, and a public key is no secret. It asks by the
connection that it has signed in by, which keeps cookies.
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
"""A notebook may stay open for that long."""
DESCRIPTION_PATH = f"{API}/api"
NONCE = "."


class Known:
    """Reads, and makes, what says that somebody has signed in before.

    Args:
        key: of the node; nobody else can make one.
        clock: seconds since 1970: these outlive a restart.
    """

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key, self._clock = key, clock

    def device(self, scope: Any) -> str:
        """The token of a browser that somebody has signed in with to some account; empty for another."""
        name = cookie_name(self._key, "device", scope.get("scheme") == "https")
        return next((value for value in _cookies(scope, name) if is_device(self._key, value)), "")

    def cookie(self, scope: Any, account: bytes) -> bytes:
        """The Set-Cookie header that lets its holder ask what the account of this public key may call."""
        until = f"{int(self._clock()) + DESCRIPTION_SECONDS:x}"
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        return (
            f"{self._name(account)}={until}{NONCE}{self._mark(account, until)}; Path={DESCRIPTION_PATH}; "
            f"Max-Age={DESCRIPTION_SECONDS}; HttpOnly; SameSite=Strict{secure}"
        ).encode()

    def has_signed_in(self, scope: Any, account: bytes) -> bool:
        """Whether a request has the cookie of this account."""
        for value in _cookies(scope, self._name(account)):
            until, _, mark = value.partition(NONCE)
            same = hmac.compare_digest(mark.encode(), self._mark(account, until).encode())
            if same and int(until, 16) > self._clock():
                return True
        return False

    def _name(self, account: bytes) -> str:
        # One for each account: a gateway signs in for many by one connection.
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
