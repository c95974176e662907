"""What every answer of the node tells a browser: to keep it to itself, and to believe its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_PAGE: Mapping[bytes, bytes] = {
    # Of an answer that is no page, a browser loads, frames and runs nothing. A page says what it needs.
    b"content-security-policy": (
        b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    # Not `no-referrer`: with that a browser hides from us as well that a form came from our own page.
    b"referrer-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
}
"""For an answer that is no page of its own."""

HEADERS: Mapping[bytes, bytes] = {**NO_PAGE, b"cache-control": b"no-store"}
"""Set where an answer does not say otherwise itself."""


def with_headers(send: Any) -> Any:
    """An ASGI `send` that adds `HEADERS`."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            there = {bytes(name).lower() for name, _ in own}
            missing = [(name, value) for name, value in HEADERS.items() if name not in there]
            message = {**message, "headers": own + missing}
        await send(message)

    return send_with_headers
