"""uvicorn's HTTP/1.1 with a limit of what stands before a body: where it uses httptools it has none."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEADERS = 16 * 1024
"""Bytes."""


class Protocol(HttpToolsProtocol):  # type: ignore[misc]
    """One connection."""

    _in_head = False
    _waits = 0
    """Bytes that came of a head which is not whole yet."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._waits = self._waits + len(data) if self._in_head else 0
        if self._waits > LARGEST_HEADERS:
            self._in_head = False
            self.send_400_response("The headers are too large.")

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> Any:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEADERS:
            # The caller makes an answer of it, 400.
            raise ValueError("the headers are too large")
        return super().on_headers_complete()
