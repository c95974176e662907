"""uvicorn's HTTP/1.1 protocol with a size limit for headers. With httptools, uvicorn has no such limit."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEADERS = 16 * 1024
"""Bytes."""


class Protocol(HttpToolsProtocol):  # type: ignore[misc]
    """One connection."""

    _in_head = False
    _waits = 0
    """Bytes that have arrived of an incomplete header section."""

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
            # The caller turns this error into a 400 answer.
            raise ValueError("the headers are too large")
        return super().on_headers_complete()
