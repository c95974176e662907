"""The table of requests that the node answers: who may send each, how large and how often.

A request that is not in the table is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

API = "/api/v2"


class Who(Enum):
    """Who may send a request. This decides how the guard checks it."""

    ANYBODY = "anybody"
    KNOWN_KEY = "known key"
    """The request names a key, and the key must be allowed to call some method."""
    SIGNED = "signed"
    """The request is a signed call."""
    SIGN_IN = "sign-in"
    SIGN_UP = "sign-up"
    """Anybody, but only if the administrator has opened sign-up."""


@dataclass(frozen=True)
class Route:
    """One row of the table.

    Attributes:
        method: the HTTP method; GET includes HEAD.
        path: the whole path; empty for every path outside the API.
        who: see `Who`.
        body: the largest body, in bytes; None for the upload limit of the caller's role.
        hashes: whether the request checks a password. That takes long, so few run at once.
        each_second, burst: the rate limit of one caller: in the long run, and at once.
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
    # The portal itself answers that it does not accept these.
    Route("POST", "", Who.ANYBODY, body=FORM),
)


def find(method: str, path: str) -> Route | int:
    """Return the row of a request, or the status (RFC 9110) to refuse it with: 404 or 405."""
    method = "GET" if method == "HEAD" else method
    inside = path == API or path.startswith(f"{API}/")
    rows = [row for row in ROUTES if row.path == path or (not row.path and not inside)]
    if not rows:
        return 404
    return next((row for row in rows if row.method == method), 405)
