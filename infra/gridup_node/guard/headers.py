"""Security headers of every answer: browsers must not cache or share the answer, and must trust its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_PAGE: Mapping[bytes, bytes] = {
    # A browser loads, frames and runs nothing from an answer that is no page. A page sets its own policy.
    b"content-security-policy": (
        b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    # Not `no-referrer`: with it, a browser would also hide from the node that a form came from its own page.
    b"referrer-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
}
"""Headers of an answer that is no page."""

HEADERS: Mapping[bytes, bytes] = {**NO_PAGE, b"cache-control": b"no-store"}
"""Headers that are added if the answer does not set them itself."""


def with_headers(send: Any) -> Any:
    """Wrap an ASGI `send` so that it adds `HEADERS`."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            there = {bytes(name).lower() for name, _ in own}
            missing = [(name, value) for name, value in HEADERS.items() if name not in there]
            message = {**message, "headers": own + missing}
        await send(message)

    return send_with_headers
