"""Sessions of signed-in users, and tokens that prove that a form came from the portal's own page.

Sessions are in memory only: a restart ends all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gridup_node.account import Account

IDLE_SECONDS = 60 * 60
LIFE_SECONDS = 12 * 60 * 60
MOST_SESSIONS = 500
DEVICE_SECONDS = 180 * 24 * 60 * 60


@dataclass
class Session:
    """A signed-in browser. Times are seconds on the clock of `Sessions`."""

    account: Account
    mark: bytes
    """The value of `account.password_mark` when the session began."""
    began: float
    seen: float


class Sessions:
    """The sessions, by the hash of their id. So the content of the memory gives access to none of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_SESSIONS) -> None:
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, account: Account, mark: bytes = b"") -> str:
        """Start a session. Returns its id. If there are too many, the least recently used session ends."""
        made = secrets.token_urlsafe(32)
        with self._lock:
            self._sweep()
            while len(self._sessions) >= self._most:
                del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].seen)]
            now = self._clock()
            self._sessions[_digest(made)] = Session(account, mark, began=now, seen=now)
        return made

    def find(self, identity: str) -> Session | None:
        """Return the live session with this id; None if there is none."""
        with self._lock:
            self._sweep()
            session = self._sessions.get(_digest(identity))
            if session is not None:
                session.seen = self._clock()
            return session

    def end(self, identity: str) -> None:
        """End the session with this id, if there is one."""
        with self._lock:
            self._sessions.pop(_digest(identity), None)

    def _sweep(self) -> None:
        now = self._clock()
        over = [
            key
            for key, session in self._sessions.items()
            if now - session.seen > IDLE_SECONDS or now - session.began > LIFE_SECONDS
        ]
        for key in over:
            del self._sessions[key]


def form_token(key: bytes, cookie: str) -> str:
    """Return the token that a form must send. Only the node can make it, for the browser with this cookie."""
    return hmac.new(key, b"form:" + cookie.encode(), hashlib.sha256).hexdigest()


def is_ours(key: bytes, cookie: str, token: str) -> bool:
    """Return whether `token` is the `form_token` of a browser with this cookie."""
    return bool(cookie) and hmac.compare_digest(form_token(key, cookie).encode(), token.encode())


def device_token(key: bytes, email: str) -> str:
    """Return a token for a browser that has signed in to this account. The token gives no access."""
    nonce = secrets.token_urlsafe(16)
    return f"{nonce}.{_device(key, nonce, email)}.{_device(key, nonce, '')}"


def is_device_of(key: bytes, token: str, email: str) -> bool:
    """Return whether `token` is a `device_token` of this account."""
    return is_device(key, token) and _same(_device(key, token.split(".")[0], email), token.split(".")[1])


def is_device(key: bytes, token: str) -> bool:
    """Return whether `token` is a `device_token` of any account."""
    parts = token.split(".")
    return len(parts) == 3 and _same(_device(key, parts[0], ""), parts[2])


def _device(key: bytes, nonce: str, email: str) -> str:
    return hmac.new(key, f"device:{nonce}:{email.casefold()}".encode(), hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def cookie_name(key: bytes, name: str, https: bool) -> str:
    """Return a cookie name that is unique for the node: all ports of a host share a browser's cookies."""
    mine = hashlib.sha256(b"cookie:" + key).hexdigest()[:8]
    # A browser accepts a name with this prefix only from this host, over https (RFC 6265bis, 4.1.3.2).
    return f"{'__Host-' if https else ''}gridup_{name}_{mine}"


def _digest(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).digest()
