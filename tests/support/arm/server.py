"""The server: TLS, a thread a connection. It hands requests on, and does to them what a test wants."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from support.arm import certificates, refusals
from support.arm.api import Api, check_version, check_writable
from support.arm.calls import Call, Fault, Interference, matches
from support.arm.compute import console
from support.arm.errors import ArmError
from support.arm.ids import split
from support.arm.requests import Answer, Request
from support.arm.things import Things
from support.arm.tokens import Principal, Tokens
from support.arm.world import Subscription, World
from support.delayed_response import Held

SUBSCRIPTION = "5ab5c71b-0000-4000-8000-00000000a2e0"
PRINCIPAL = Principal(
    tenant="7e4a47aa-0000-4000-8000-00000000a2e0",
    client="c11e47aa-0000-4000-8000-00000000a2e0",
    secret="not~a.secret",
    object="0b3ec7aa-0000-4000-8000-00000000a2e0",
)


class Arm:
    """An Azure of the tests' own: `with Arm(folder) as arm:`.

    Attributes:
        url: its address, for ARM and for Entra.
        ca_file: the certificate that it is trusted by, alone; `bundle` has this machine's beside it.
        calls: those that came, in the order in which they were answered.
        delay: seconds that each call takes longer.
        rights: the actions that the customer may do, `*` for any part of one; None is all.
        retry_after: seconds that its answers tell clients to wait before they ask again.
        page: how many rows a page of a listing has.
        after: called with the action of a request that was taken, before anybody is told.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api = Api()
        self.interference = Interference()
        self.broken: Exception | None = None
        self.reset()

    def __enter__(self) -> Arm:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca_file, context = certificates.make(self.folder)
        self.bundle = certificates.bundle(self.folder, self.ca_file)
        handler = type("Handler", (_Handler,), {"arm": self, "context": context})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.interference.clear()
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """A subscription with nothing in it."""
        self.interference.clear()
        self.calls: list[Call] = []
        self.delay = 0.0
        self.rights: tuple[str, ...] | None = None
        self.retry_after = 0
        self.page = 100
        self.after: Callable[[str], None] = lambda _action: None
        self.world = World()
        self.tokens = Tokens(PRINCIPAL)
        self.subscription = Subscription(
            SUBSCRIPTION,
            PRINCIPAL.tenant,
            providers={f"Microsoft.{name}": "Registered" for name in ("Network", "Compute", "Resources")},
        )
        self.world.subscriptions[SUBSCRIPTION] = self.subscription

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process a customer of this Azure, and of no other."""
        return {
            "AZURE_TENANT_ID": PRINCIPAL.tenant,
            "AZURE_CLIENT_ID": PRINCIPAL.client,
            "AZURE_CLIENT_SECRET": PRINCIPAL.secret,
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_RESOURCE_MANAGER_URL": self.url,
            "GRIDUP_TEST_ARM_ENDPOINT": self.url,
            # The provider's own names for the same.
            "ARM_TENANT_ID": PRINCIPAL.tenant,
            "ARM_CLIENT_ID": PRINCIPAL.client,
            "ARM_CLIENT_SECRET": PRINCIPAL.secret,
            "ARM_SUBSCRIPTION_ID": SUBSCRIPTION,
            "SSL_CERT_FILE": str(self.bundle),
            "REQUESTS_CA_BUNDLE": str(self.bundle),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def things(self) -> Things:
        """What there is, seen past the API."""
        return Things(self.world)

    # What a test does to it.

    @property
    def lasts(self) -> float:
        """Seconds that an operation takes."""
        return self.world.lasts

    @lasts.setter
    def lasts(self, seconds: float) -> None:
        self.world.lasts = seconds

    def fail(self, action: str, code: str, message: str = "It was made to fail.", **how: Any) -> Fault:
        """Have the next calls of an action fail: `count` of them, or all; `late` as their operations' end."""
        error = ArmError(
            how.pop("status", 400), code, message, how.pop("target", None), how.pop("details", ())
        )
        error.headers = how.pop("headers", {})
        fault = Fault(action, error, **how)
        self.interference.faults.append(fault)
        return fault

    def hold(self, action: str) -> Held:
        """Keep back the answer to the next call of an action, which is accepted."""
        held = Held(action)
        self.interference.holds.append(held)
        return held

    def actions(self) -> Counter[str]:
        """How often each action was called."""
        return Counter(call.action for call in list(self.calls))

    # What it does.

    def handle(self, request: Request, call: dict[str, Any]) -> Answer:
        """Answer a request, noting in `call` what it was."""
        token = self.tokens.answer(request.base, split(request.path), request.raw)
        if token is not None:
            call["action"] = "token"
            return self._met("token", request, lambda: token, call)
        with self.world.lock:
            self.world.settle()
            blob = console(self.world, split(request.path), request.query.get("sig", ""))
            if blob is not None:
                call["action"] = "console"
                return blob
            self.tokens.check(request.headers.get("Authorization"))
            route = self.api.route(request.method, request.path, self.world)
        call["action"] = route.action
        request.actions.append(route.action)

        def answer() -> Answer:
            with self.world.lock:
                self.world.settle()
                check_version(request, route)
                if not self.allowed(route.action, route.scope):
                    raise refusals.NO_RIGHT(
                        f"The client '{PRINCIPAL.client}' with object id '{PRINCIPAL.object}' does not have "
                        f"authorization to perform action '{route.action}' over scope '{route.scope}' or "
                        "the scope is invalid. If access was recently granted, please refresh your "
                        "credentials."
                    )
                check_writable(request, route)
                return route.handle(request)

        return self._met(route.action, request, answer, call)

    def _met(self, action: str, request: Request, answer: Any, call: dict[str, Any]) -> Answer:
        """Answer, unless something is to happen to the call."""
        fault = self.interference.fault_for(action, request.path, call["body"])
        if fault and not fault.late:
            raise fault.error
        request.late = fault.error if fault else None
        answered: Answer = answer()
        if held := self.interference.hold_for(action):
            held.over.wait(600)
            return Answer(0)
        return answered

    def allowed(self, action: str, scope: str) -> bool:
        return self.rights is None or any(matches(right, action) for right in self.rights)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None:
        """A client that went away is not worth a word; what fails in a handler is answered by it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 600
    arm: Arm
    context: ssl.SSLContext

    def setup(self) -> None:
        # In the connection's own thread: a slow handshake keeps nobody waiting.
        self.request = self.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        # The server knows only the socket below it.
        self.request.close()

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        arm, began = self.arm, time.monotonic()
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(
            self.command,
            unquote(parts.path),
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            self.headers,
            raw,
            arm.world,
            f"https://{self.headers.get('Host') or urlsplit(arm.url).netloc}",
            retry_after=arm.retry_after,
            page=arm.page,
            allowed=arm.allowed,
        )
        call: dict[str, Any] = {"action": "", "body": _read(raw), "code": "", "refusal": None}
        time.sleep(arm.delay)
        try:
            answer = arm.handle(request, call)
            arm.after(call["action"])
        except ArmError as error:
            call["code"], call["refusal"] = error.code, error.refusal
            answer = Answer(error.status, error.body(), dict(error.headers))
        except Exception as error:  # noqa: BLE001 - a fault of the emulator's is an answer, and is kept
            arm.broken = error
            call["code"] = "InternalServerError"
            answer = Answer(500, ArmError(500, "InternalServerError", repr(error)).body())
        arm.calls.append(
            Call(
                call["action"],
                tuple(request.actions),
                self.command,
                request.path,
                request.query,
                call["body"],
                began,
                time.monotonic(),
                answer.status,
                call["code"],
                call["refusal"],
            )
        )
        self._send(answer)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_any

    def _send(self, answer: Answer) -> None:
        if answer.status == 0:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        plain = isinstance(answer.body, bytes)
        body = answer.body if plain else b"" if answer.body is None else json.dumps(answer.body).encode()
        with contextlib.suppress(OSError):
            self.send_response(answer.status)
            id_ = str(uuid.uuid4())
            for name, value in {
                "x-ms-request-id": id_,
                "x-ms-correlation-request-id": id_,
                "Content-Type": "text/plain" if plain else "application/json; charset=utf-8",
                **answer.headers,
            }.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)


def _read(raw: bytes) -> Any:
    """A JSON body, for the record: as it was sent. A form has the customer's own secret, and is not kept."""
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None
