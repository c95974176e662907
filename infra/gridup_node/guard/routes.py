"""Which requests the node answers: who may send each, how much, how long and how often.

What is not in the table is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

API = "/api/v2"


class Who(Enum):
    """Who may send a request, and so how it is checked."""

    ANYBODY = "anybody"
    KNOWN_KEY = "known key"
    """It names a key; the key must be one that may call something."""
    SIGNED = "signed"
    """It is a signed call."""
    SIGN_IN = "sign-in"
    SIGN_UP = "sign-up"
    """Nobody, unless the administrator has opened it."""


@dataclass(frozen=True)
class Route:
    """One row.

    Attributes:
        method: of HTTP; GET stands for HEAD as well.
        path: whole; empty for every path outside the api's.
        who: see `Who`.
        body: the largest body, in bytes; None for what the caller's role may upload.
        hashes: whether a password is checked, which takes a while: few at once.
        each_second, burst: how often one caller may send it, in the long run and at once.
    """

    method: str
    path: str
    who: Who
    body: int | None = 0
    hashes: bool = False
    each_second: float = 10
    burst: int = 60


FORM = 16 * 1024
"""Bytes."""
CREDENTIALS = 4 * 1024

ROUTES: tuple[Route, ...] = (
    Route("GET", f"{API}/metadata", Who.ANYBODY, each_second=20, burst=200),
    Route("GET", f"{API}/api", Who.KNOWN_KEY, each_second=2, burst=40),
    Route("POST", f"{API}/api_call", Who.SIGNED, body=None, each_second=100, burst=500),
    Route("POST", f"{API}/login", Who.SIGN_IN, body=CREDENTIALS, hashes=True, each_second=2, burst=40),
    Route("POST", f"{API}/register", Who.SIGN_UP, body=FORM, each_second=0.1, burst=5),
    Route("POST", "/login", Who.ANYBODY, body=FORM, hashes=True, each_second=2, burst=40),
    Route("POST", "/logout", Who.ANYBODY, body=FORM),
    Route("GET", "", Who.ANYBODY, each_second=20, burst=200),
    # The portal says itself that it does nothing with these.
    Route("POST", "", Who.ANYBODY, body=FORM),
)


def find(method: str, path: str) -> Route | int:
    """The row of a request, or the status (RFC 9110) to refuse it with: 404 or 405."""
    method = "GET" if method == "HEAD" else method
    inside = path == API or path.startswith(f"{API}/")
    rows = [row for row in ROUTES if row.path == path or (not row.path and not inside)]
    if not rows:
        return 404
    return next((row for row in rows if row.method == method), 405)
