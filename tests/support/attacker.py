"""Somebody who speaks to a node's api in raw requests: without syft, and not as its client would."""

from __future__ import annotations

import functools
import http.client
import json
import socket
import ssl
from dataclasses import dataclass, field, replace
from typing import Any

from nacl.signing import SigningKey

from gridup_node.guard import wire
from support import frames


@dataclass
class Attacker:
    """One caller.

    Attributes:
        port: the api's or its reverse proxy's.
        address: where they say that they are, as a proxy of the site's would.
        key: what they sign with.
        host: whose port it is.
        ca: the file of the only CA to trust; empty for plain http.
        node: its id, once it was asked for.
    """

    port: int
    address: str = "192.0.2.66"
    key: SigningKey = field(default_factory=SigningKey.generate)
    timeout: float = 60
    host: str = "127.0.0.1"
    ca: str = ""
    node: bytes = b""

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is still to be made."""
        if not self.ca:
            return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        context = _trusting(self.ca)
        return http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=context)

    def dial(self) -> socket.socket:
        """A connection to send on whatever one likes."""
        made = self.connection()
        made.connect()
        return made.sock

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request; returns the status and the answer's body."""
        connection = self.connection()
        try:
            answer = self.ask_on(connection, method, path, body, headers)
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask_on(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """The same on a connection that stays open, if the node leaves it so; read the answer whole."""
        connection.request(method, path, body, {"X-Forwarded-For": self.address, **(headers or {})})
        return connection.getresponse()

    def server(self) -> bytes:
        """The node's id."""
        if not self.node:
            self.node = bytes.fromhex(json.loads(self.ask("GET", "/api/v2/metadata")[1])["id"])
        return self.node

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Send what may be a call."""
        return self.ask("POST", "/api/v2/api_call", body)

    def call(self, path: str, /, *args: Any, **kwargs: Any) -> str:
        """Sign a call as its client would; returns the type of what the answer holds, and its words."""
        status, answer = self.post(frames.signed(self.key, frames.call(self.server(), path, *args, **kwargs)))
        return said(answer) if status == 200 else f"{status} {answer.decode(errors='replace')}"

    def sign_in(self, email: str, password: str) -> Attacker | None:
        """As the account, where the password is right."""
        status, answer = self.ask(
            "POST",
            "/api/v2/login",
            json.dumps({"email": email, "password": password}).encode(),
            {"Content-Type": "application/json"},
        )
        value = wire.read(answer) if status == 200 else None
        if value is None or value.name != "UserPrivateKey":
            return None
        key = wire.read(dict(value.fields)["signing_key"])
        seed = wire.read(dict(key.fields)["signing_key"]).blob
        return replace(self, key=SigningKey(seed))


@functools.cache
def _trusting(ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)


def said(answer: bytes) -> str:
    """What a signed answer of syft's holds: the type of its value and, where it has one, its message."""
    data = wire.read(dict(wire.read(wire.frame(answer).message).fields)["data"])
    fields = dict(data.fields)
    message = wire.read(fields["message"]).blob.decode(errors="replace") if "message" in fields else ""
    return f"{data.name}: {message}"


def value_of(answer: bytes) -> wire.Value:
    """The value in a signed answer that tells of success."""
    data = wire.read(dict(wire.read(wire.frame(answer).message).fields)["data"])
    return wire.read(dict(data.fields)["value"])
