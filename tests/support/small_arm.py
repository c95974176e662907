"""A handful of ARM, for tests of what follows an operation: it keeps what it is given, and knows no rule.

The emulator proper is `support.arm`. This one answers each PUT and DELETE in the way that a test chooses.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.listening import Listening

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
TENANT = "99999999-8888-7777-6666-555555555555"
CLIENT = "00000000-aaaa-bbbb-cccc-dddddddddddd"
SECRET = "not-a-secret"
LOOKS = 2
"""How often an operation is under way before it has ended."""


@dataclass
class SmallArm:
    """Attributes:
    things: bodies by id, in lower case.
    style: how a PUT or a DELETE goes on: "at once", "operation" (Azure-AsyncOperation), "location", "state".
    fails: (code, message) that every accepted operation comes to.
    errors: (method, status, code) that the next calls are answered with.
    endless: operations never end.
    calls: (method, path, query, body) of each that came by, tokens apart.
    held: clear to keep back the answers to PUTs.
    """

    things: dict[str, Any] = field(default_factory=dict)
    style: str = "at once"
    fails: tuple[str, str] | None = None
    errors: list[tuple[str, int, str]] = field(default_factory=list)
    calls: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    endless: bool = False
    tokens: int = 0
    operations: dict[str, int] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> SmallArm:
        handler = type("Handler", (_Handler,), {"arm": self})
        self.held.set()
        self._listening = Listening(handler)
        self.url = self._listening.url
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self._listening.close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "GRIDUP_TEST_ARM_ENDPOINT": self.url,
            "AZURE_AUTHORITY_HOST": self.url,
            "ARM_SUBSCRIPTION_ID": SUBSCRIPTION,
            "ARM_TENANT_ID": TENANT,
            "ARM_CLIENT_ID": CLIENT,
            "ARM_CLIENT_SECRET": SECRET,
            "NO_PROXY": "127.0.0.1",
        }

    def made(self, method: str) -> list[str]:
        """The paths that were called with a method."""
        return [path for called, path, _, _ in self.calls if called == method]

    def sent(self, path: str) -> Any:
        """The last body that was put at a path's end."""
        return [body for method, at, _, body in self.calls if method == "PUT" and at.endswith(path)][-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    arm: SmallArm

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        form = parse_qs(self._text())
        self.arm.tokens += 1
        if form["client_secret"] != [SECRET]:
            self._answer(
                401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid secret."}
            )
        else:
            self._answer(200, {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"})

    def _text(self) -> str:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()

    def _called(self) -> str | None:
        """The id; None when the call was answered with an error."""
        at = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(at.query).items()}
        text = self._text()
        with self.arm.lock:
            if not at.path.startswith("/operations/"):
                self.arm.calls.append((self.command, at.path, query, json.loads(text) if text else None))
            for error in self.arm.errors:
                method, status, code = error
                if method == self.command:
                    self.arm.errors.remove(error)
                    self._error(status, code, "It was made to fail.")
                    return None
        assert self.headers["Authorization"] == "Bearer token"
        return at.path

    def do_GET(self) -> None:
        path = self._called()
        if path is None:
            return
        if path.startswith("/operations/"):
            self._operation(path)
            return
        thing = self.arm.things.get(path.lower())
        if thing is None:
            self._error(404, "ResourceNotFound", f"The Resource '{path}' was not found.")
            return
        if thing.get("properties", {}).get("provisioningState") == "Updating":
            with self.arm.lock:
                self.arm.operations[path] = self.arm.operations.get(path, 0) + 1
                if self.arm.operations[path] > LOOKS:
                    thing["properties"]["provisioningState"] = "Failed" if self.arm.fails else "Succeeded"
        self._answer(200, thing)

    def _operation(self, path: str) -> None:
        with self.arm.lock:
            looks = self.arm.operations[path] = self.arm.operations.get(path, 0) + 1
        under_way = looks <= LOOKS or self.arm.endless
        if "location" in path:
            self._answer(202 if under_way else 204, None, {"Location": self.arm.url + path})
        elif under_way:
            self._answer(200, {"status": "InProgress"})
        elif self.arm.fails:
            code, message = self.arm.fails
            self._answer(200, {"status": "Failed", "error": {"code": code, "message": message}})
        else:
            self._answer(200, {"status": "Succeeded"})

    def do_PUT(self) -> None:
        path = self._called()
        if path is None:
            return
        body = self.arm.calls[-1][3]
        properties = {**body.get("properties", {}), "provisioningState": "Succeeded"}
        if self.arm.style == "state":
            properties["provisioningState"] = "Updating"
        name = path.rpartition("/")[2]
        thing = {"id": path, "name": name, "etag": "one", **body, "properties": properties}
        self.arm.things[path.lower()] = thing
        self.arm.held.wait(60)
        self._accepted(thing)

    def do_DELETE(self) -> None:
        path = self._called()
        if path is None:
            return
        if self.arm.things.pop(path.lower(), None) is None:
            self._error(404, "ResourceNotFound", "gone")
        else:
            self._accepted(None)

    def _accepted(self, thing: Any) -> None:
        address = f"{self.arm.url}/operations/{self.arm.style}/{len(self.arm.calls)}?api-version=1"
        if self.arm.style == "operation":
            self._answer(201 if thing else 202, thing, {"Azure-AsyncOperation": address})
        elif self.arm.style == "location":
            self._answer(202, thing, {"Location": address})
        else:
            self._answer(200, thing)

    def _error(self, status: int, code: str, message: str) -> None:
        self._answer(status, {"error": {"code": code, "message": message}})

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
