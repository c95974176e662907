"""The guard: an ASGI layer that lets nothing through to syft and the portal but what its tables allow.

It reads a request's body itself, checks who signed it and what it asks for, and only then passes it on. It
knows syft by the few questions of `Syft` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode

import anyio
import anyio.to_thread

from gridup_node.account import WRONG
from gridup_node.guard import budget, methods, quotas, wire
from gridup_node.guard.headers import with_headers
from gridup_node.guard.known import Known
from gridup_node.guard.methods import Role
from gridup_node.guard.origins import Origins
from gridup_node.guard.refusals import Failures, Refusal, Refusals
from gridup_node.guard.routes import ROUTES, Route, Who, find
from gridup_node.guard.slots import Busy, Crowd, Rate, Seen, Slots, network
from gridup_node.guard.throttle import Throttle
from gridup_node.guard.types import OF_A_SIGN_UP

MIB = 1024 * 1024
STRANGER_BODY = 64 * 1024
"""Bytes that are taken of a signed call before it is known whose it says it is."""
SMALL = 8 * 1024
"""Bytes of a call that is looked at at once: half a millisecond."""
SCIENTIST_BODY = 64 * MIB
"""Bytes of a data scientist's call: code, and small inputs of it."""
BODY_SECONDS = 15.0
"""How long a body of `STRANGER_BODY` may take, and how long a larger one may stand still."""
SLOWEST = 16 * 1024
"""Bytes a second of a larger body, in the long run."""
LINGER_SECONDS = 5.0
"""How long the rest of a refused body is taken. The reverse proxy hangs up as soon as it has the answer."""
OPEN_REQUESTS, OPEN_OF_ADDRESS = 1000, 50
"""Of callers that are not known yet."""
ACCOUNT_CALLS, CALLS_OF_ACCOUNT, STAFF_CALLS = 16, 6, 8
"""At once in syft: of data scientists together, of one account, and for staff beside those."""
UPLOADS, UPLOADS_OF_ACCOUNT = 6, 3
"""Of data scientists together, and as many of staff."""
UNPROVED_UPLOADS, UNPROVED_SLOWEST = 2, 256 * 1024
"""Large bodies of those who have proved nothing yet, one of an address, and their bytes a second."""
PROVED_SECONDS = 12 * 60 * 60.0
"""How long an address counts as that of an account which has signed a call or signed in from there."""
UNPROVED_EACH_SECOND, UNPROVED_BURST = 20.0, 200
STRANGER_EACH_SECOND, STRANGER_BURST = 1.0, 30
"""Calls of one address, without an account, to a node that takes some."""
ASKING_EACH_SECOND, ASKING_BURST = 1 / (60 * 60), 10
"""Requests of one address to be associated: fewer in a day than wait for an answer (`quotas`)."""
STRANGER_CALLS, SIGN_INS, SIGN_INS_OF_ONE = 4, 2, 8
KNOWN_SIGN_INS = 1
"""Beside the others, for those who have signed in before: from this address, or with this browser."""
KNOWN_EACH_SECOND, KNOWN_BURST = 1.0, 20
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE of Linux's <asm-generic/mman.h>: what is announced costs nothing before it comes."""
WAIT_SECONDS = 20.0
LONGEST_NUMBER = 15
"""Digits."""
PROTOCOL = re.compile("[0-9]{1,6}")
NO_ACCOUNT = "this key has no account here"
CHECKS = 4
"""Threads that check calls."""

Asgi = Callable[[Any, Any, Any], Any]

answers_to: ContextVar[bytes] = ContextVar("answers_to", default=b"")
"""Whose call this context answers: their key."""


@dataclass(frozen=True)
class Caller:
    """Whose key it is.

    Attributes:
        role: of the account; `NOBODY` without one.
        peer: whether it is the key of an associated node.
    """

    role: Role
    peer: bool = False


class Syft(Protocol):
    """What the guard asks of syft's server. All of it blocks."""

    @property
    def server(self) -> bytes:
        """The node's id, 16 bytes."""

    @property
    def own_key(self) -> bytes:
        """The node's own public key, which the metadata tells everybody."""

    @property
    def is_network(self) -> bool:
        """Whether other nodes are associated with it."""

    def caller(self, key: bytes) -> Caller:
        """Whose key it is."""

    def is_remembered(self, key: bytes) -> bool:
        """Whether whose key it is need not be looked up. This does not block, nor does `caller` then."""

    def open_to_sign_up(self) -> bool:
        """Whether anybody may make an account."""

    def signed_refusal(self, message: str) -> bytes:
        """The answer to a signed call, as syft's client reads it: it was refused."""

    def refusal(self, message: str) -> bytes:
        """The answer to another request, as syft's client reads it."""

    def sign_in(self, email: str, password: str) -> tuple[bytes, bytes] | None:
        """The account's public key and the answer with its private one; None when they do not match."""

    def is_own_password(self, password: str) -> bool:
        """Whether it is the administrator's that the node has made, which nobody guesses."""

    def has_peers(self) -> bool:
        """Whether other nodes are associated with this one."""

    def has_room(self) -> bool:
        """Whether the disk has room for what data scientists send. This does not block."""


@dataclass(frozen=True)
class Limits:
    """What an administrator sets.

    Attributes:
        max_upload: bytes of a call of staff.
        guests: whether a key without an account may read the catalogue.
    """

    max_upload: int
    guests: bool = False

    def body(self, role: Role) -> int:
        """The largest call of `role`, in bytes."""
        if role >= Role.DATA_OWNER:
            return self.max_upload
        return min(SCIENTIST_BODY, self.max_upload) if role >= Role.DATA_SCIENTIST else STRANGER_BODY

    def built(self, role: Role) -> int:
        """What the values of an account's call may expand to, all together, in bytes."""
        return max(4 * self.body(role), 256 * MIB)


class _Request:
    """One request on its way through the guard."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.body = b""
        self.started = self.answered = False
        self._ended = False

    def length(self) -> int | None:
        """What the request says of its body's length; None when it has one without a length.

        Raises:
            Refusal: it says it in two ways.
        """
        headers = self.scope["headers"]
        lengths = [value for name, value in headers if name == b"content-length"]
        if any(name == b"transfer-encoding" for name, _ in headers):
            return None
        if not lengths:
            return 0
        if len(set(lengths)) > 1 or not lengths[0].isdigit() or len(lengths[0]) > LONGEST_NUMBER:
            raise Refusal(400, "the length of the body is no number")
        return int(lengths[0])

    async def fill(self, body: _Body, enough: int, seconds: float, gone: asyncio.Future[None] | None) -> None:
        """Read until `enough` bytes are there.

        Args:
            seconds: for all of it; no part of it may take longer than `BODY_SECONDS`.
            gone: ends it when it is done: there were too many requests.

        Raises:
            Refusal: it took too long, or the caller has gone.
        """
        end = time.monotonic() + seconds
        while body.filled < enough:
            message = await self._next(min(end - time.monotonic(), BODY_SECONDS), gone)
            if gone is not None and gone.done():
                raise Refusal(503, "too many requests; try again in a while")
            if message is None:
                raise Refusal(408, "the body came too slowly")
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the caller has gone")
            body.add(message.get("body", b""))
            if not message.get("more_body", False):
                self._ended = True
                break
        if self._ended and body.filled < body.length:
            raise Refusal(400, "the body is shorter than it says")

    async def _next(self, seconds: float, gone: asyncio.Future[None] | None) -> Any:
        """What comes next; None when nothing does in time, or `gone` is done before."""
        with anyio.move_on_after(max(seconds, 0)) as scope:

            def stop(_gone: asyncio.Future[None]) -> None:
                scope.cancel()

            if gone is not None:
                gone.add_done_callback(stop)
            try:
                return await self._receive()
            finally:
                if gone is not None:
                    gone.remove_done_callback(stop)
        return None

    async def pass_to(self, app: Asgi, slot: Callable[[], None] | None = None) -> None:
        """Let it through. `slot` is called when the answer begins: what is sent takes no room any more."""
        handed_over = False

        async def receive() -> Any:
            nonlocal handed_over
            if not handed_over:
                handed_over = True
                body, self.body = self.body, b""
                return {"type": "http.request", "body": body, "more_body": False}
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return message

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.started = True
                if slot is not None:
                    slot()
            await self._send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.answered = True

        await app(self.scope, receive, send)

    async def reply(
        self,
        status: int,
        body: bytes,
        kind: bytes = b"application/octet-stream",
        close: bool = False,
        more: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Answer it here, with `more` headers."""
        self.started = True
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            *more,
        ]
        if status in (429, 503):
            headers.append((b"retry-after", b"5"))
        if close:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": close})
        if close:
            # All is on its way. Were the connection closed now, the reverse proxy could still be writing what
            # was not read, fail at that, and tell the caller of this failure and not of the answer.
            await self._drop(LINGER_SECONDS)
            await self._send({"type": "http.response.body", "body": b""})

    async def _drop(self, seconds: float) -> None:
        """Take what still comes of the body, for `seconds` at most, and keep none of it."""
        end = time.monotonic() + seconds
        while not self._ended:
            message = await self._next(end - time.monotonic(), None)
            self._ended = message is None or not message.get("more_body", False)


@contextlib.asynccontextmanager
async def _held(slots: Slots, caller: bytes) -> AsyncIterator[Callable[[], None]]:
    """A slot that may be given back before the context ends."""
    give_back = await slots.enter(caller)
    try:
        yield give_back
    finally:
        give_back()


@dataclass
class _Body:
    """A body as it comes. Its memory is only used as far as it is filled."""

    length: int
    filled: int = 0
    memory: Any = None

    def __post_init__(self) -> None:
        if self.length <= STRANGER_BODY:
            self.memory = bytearray(self.length)
            return
        # Private: a job's process, which is a copy of this one, sees nothing of what comes later.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        try:
            self.memory = mmap.mmap(-1, max(self.length, 1), flags=flags)
        except OSError:
            raise Refusal(503, "there is no room for this") from None

    def add(self, chunk: bytes) -> None:
        if self.filled + len(chunk) > self.length:
            raise Refusal(400, "the body is longer than it says")
        self.memory[self.filled : self.filled + len(chunk)] = chunk
        self.filled += len(chunk)

    def take(self) -> bytes:
        """All of it, once."""
        if isinstance(self.memory, bytearray):
            return bytes(self.memory)
        found = bytes(self.memory[: self.length])
        self.memory.close()
        return found


class Guard:
    """Guards `api` (syft's app) and `rest` (the portal), which see only what is let through."""

    def __init__(
        self,
        api: Asgi,
        rest: Asgi,
        syft: Syft,
        limits: Limits,
        origins: Origins,
        throttle: Throttle,
        known: Known,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._rest, self._syft, self._limits = api, rest, syft, limits
        self._origins, self._throttle, self._known = origins, throttle, known
        self._rates = {row: Rate(row.each_second, row.burst, clock) for row in ROUTES}
        self._crowd = Crowd(OPEN_REQUESTS, OPEN_OF_ADDRESS)
        self._strangers = Slots(STRANGER_CALLS, STRANGER_CALLS, WAIT_SECONDS)
        self._sign_ins = Slots(SIGN_INS, SIGN_INS_OF_ONE, WAIT_SECONDS)
        self._known_sign_ins = Slots(KNOWN_SIGN_INS, SIGN_INS_OF_ONE, WAIT_SECONDS)
        self._scientists = Slots(ACCOUNT_CALLS, CALLS_OF_ACCOUNT, WAIT_SECONDS)
        self._staff = Slots(STAFF_CALLS, CALLS_OF_ACCOUNT, WAIT_SECONDS)
        self._uploads = Slots(UPLOADS, UPLOADS_OF_ACCOUNT, WAIT_SECONDS)
        self._staff_uploads = Slots(UPLOADS, UPLOADS_OF_ACCOUNT, WAIT_SECONDS)
        self._unproved_uploads = Slots(UNPROVED_UPLOADS, 1, WAIT_SECONDS)
        self._unproved_rate = Rate(UNPROVED_EACH_SECOND, UNPROVED_BURST, clock)
        self._stranger_rate = Rate(STRANGER_EACH_SECOND, STRANGER_BURST, clock)
        self._asking_rate = Rate(ASKING_EACH_SECOND, ASKING_BURST, clock)
        self._known_rate = Rate(KNOWN_EACH_SECOND, KNOWN_BURST, clock)
        self._proved = Seen(PROVED_SECONDS, clock)
        # Nobody has its private half.
        self._nobody = secrets.token_hex(wire.KEY_BYTES)
        self._refusals, self._failures = Refusals(clock), Failures(clock)
        self._checks: anyio.CapacityLimiter | None = None
        self._hashes: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._api(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing behind the guard speaks anything else (Jupyter is not).
            await send({"type": "websocket.close", "code": 1008})
            return
        request = _Request(scope, receive, with_headers(send))
        try:
            scope = await self._origins.resolve(scope)
            request.scope = scope
            await self._answer(request, network(scope["client"][0] if scope["client"] else ""))
        except Refusal as error:
            await self._refuse(request, error)
        except Busy:
            await self._refuse(request, Refusal(429, "too many requests; try again in a while"))
        except Exception:
            if request.started and not request.answered:
                # Half an answer can only be interrupted.
                raise
            # Left to the server it would close the connection without a word, on which the reverse proxy
            # has passed on the next request by then: another person's would be lost.
            self._failures.note(request.scope)
            if not request.started:
                await request.reply(500, b'{"detail":"the node failed"}', b"application/json")

    async def _answer(self, request: _Request, address: str) -> None:
        route = find(request.scope["method"], request.scope["path"])
        if isinstance(route, int):
            raise Refusal(route, "there is no such page" if route == 404 else "that can't be done here")
        if route.who in (Who.SIGNED, Who.SIGN_IN):
            # Counted when it is known whose it is.
            self._origins.check_origin(request.scope)
        if route.path.startswith("/api"):
            # Raised for who turns out to have an account.
            budget.begin(budget.STRANGERS)
        if route.who is Who.SIGNED:
            await self._signed(request, route, address)
            return
        if route.who is Who.SIGN_IN:
            await self._sign_in(request, route, address)
            return
        device = self._known.device(request.scope) if route.hashes else ""
        if device:
            self._known_rate.take(device)
        else:
            self._rates[route].take(address)
        if route.method == "POST":
            self._origins.check_origin(request.scope)
        request.body = await self._read(request, device or address, route.body or 0)
        if route.who is Who.KNOWN_KEY:
            await self._known_key(request, address)
        elif route.who is Who.SIGN_UP:
            await self._sign_up(request, address)
        elif route.path.startswith("/api"):
            async with self._strangers.hold(address):
                await request.pass_to(self._api)
        elif route.hashes:
            async with self._known_sign_ins.hold(device) if device else self._sign_ins.hold(address):
                await request.pass_to(self._rest)
        else:
            await request.pass_to(self._rest)

    async def _known_key(self, request: _Request, address: str) -> None:
        """What syft's client asks for first: the methods that this key may call."""
        try:
            # More fields than it may have are an error of this value's, too.
            said = parse_qs(request.scope.get("query_string", b"").decode("latin-1"), max_num_fields=8)
            (text,) = said["verify_key"]
            key = bytes.fromhex(text)
            if len(key) != wire.KEY_BYTES or text != key.hex():
                raise ValueError
        except (KeyError, ValueError):
            raise Refusal(403, "that is no key") from None
        protocols = said.get("communication_protocol", [])
        if not all(PROTOCOL.fullmatch(one) for one in protocols):
            raise Refusal(422, "a protocol is a number")
        # Who has not signed in is told the same of every key, whoever's it is: a public key is no secret.
        if self._known.has_signed_in(request.scope, key):
            caller = await self._check(self._syft.caller, key)
            if caller.role >= Role.DATA_SCIENTIST:
                budget.begin(self._limits.built(caller.role))
                async with self._room(caller.role, key) as slot:
                    await request.pass_to(self._api, slot)
                return
        open_ = self._limits.guests or self._syft.is_network
        # A node asks itself too, to see whether others find it by a route.
        if not open_ and key != self._syft.own_key and not await self._check(self._syft.has_peers):
            raise Refusal(403, "sign in first")
        query = urlencode({"verify_key": self._nobody, "communication_protocol": protocols}, doseq=True)
        request.scope = {**request.scope, "query_string": query.encode()}
        async with self._strangers.hold(address):
            await request.pass_to(self._api)

    async def _signed(self, request: _Request, route: Route, address: str) -> None:
        length = request.length()
        if length is None:
            raise Refusal(411, "a call must say its length")
        if length > max(self._limits.max_upload, STRANGER_BODY):
            raise Refusal(413, "the call is too large")
        async with contextlib.AsyncExitStack() as room:
            raw, key = await self._read_signed(request, address, length, room)
            if len(raw) <= SMALL and (address, key) in self._proved and self._syft.is_remembered(key):
                # Of an account that is at work here. Another thread would cost more than the look itself.
                checked = self._examine(raw)
            else:
                checked = await self._check(self._examine, raw)
        caller, key = checked.caller, checked.key
        if caller.role >= Role.DATA_SCIENTIST:
            self._proved.add((address, key))
        if checked.refused:
            # To whom has an account here: in the form that syft's client reads.
            self._refusals.note(address, checked.refused)
            await request.reply(200, await self._check(self._syft.signed_refusal, checked.refused))
            return
        request.body = raw
        answers_to.set(key)
        if caller.role >= Role.DATA_SCIENTIST:
            budget.begin(self._limits.built(caller.role))
            self._rates[route].take(key)
            async with self._room(caller.role, key) as slot:
                await request.pass_to(self._api, slot)
        else:
            (self._rates[route] if caller.peer else self._stranger_rate).take(address)
            if checked.path == methods.ASKS and not caller.peer:
                self._asking_rate.take(address)
            async with self._strangers.hold(address):
                await request.pass_to(self._api)

    def _examine(self, raw: bytes) -> _Checked:
        """Who sends this, and may they? Nothing of syft's reads a byte of it meanwhile.

        Raises:
            Refusal: they have no account, or it is no call at all.
        """
        try:
            frame = wire.frame(raw)
        except wire.Malformed as error:
            raise Refusal(400, f"that is no signed call: {error}") from None
        if not wire.signed(frame):
            raise Refusal(403, "the signature is not the sender's")
        caller = self._syft.caller(frame.key)
        role = Role.GUEST if caller.role is Role.NOBODY and self._limits.guests else caller.role
        known = role >= Role.DATA_SCIENTIST
        others = self._for_nodes(caller)
        if not known and not others and role is Role.NOBODY:
            raise Refusal(403, NO_ACCOUNT)
        if len(raw) > self._limits.body(role):
            raise Refusal(413, "the call is too large")
        try:
            call = wire.call(frame.message)
        except wire.Malformed as error:
            if not known:
                raise Refusal(400, f"that is no call: {error}") from None
            return _Checked(frame.key, caller, f"The node does not take this call: {error}.")
        refused = ""
        if call.server != self._syft.server:
            # A network node passes on what its own accounts send to its nodes; nobody else makes it connect.
            if not (self._syft.is_network and known):
                refused = "This call is for another node."
        elif not methods.allowed(role, call.path) and call.path not in others:
            name = role.name.replace("_", " ").lower()
            refused = f"As a {name} you may not call {call.path}."
        elif not call.waits and call.path not in methods.JOBS:
            refused = f"{call.path} can't be called without waiting for its answer."
        elif Role.DATA_SCIENTIST <= role < Role.DATA_OWNER and len(raw) > SMALL and not self._syft.has_room():
            refused = quotas.FULL
        if refused and not known:
            raise Refusal(403, "this key may not call that")
        return _Checked(frame.key, caller, refused, call.path)

    def _for_nodes(self, caller: Caller) -> frozenset[str]:
        if self._syft.is_network:
            return methods.ASSOCIATION | (methods.PEER_OF_NETWORK if caller.peer else frozenset())
        return methods.PEER if caller.peer else frozenset()

    async def _sign_in(self, request: _Request, route: Route, address: str) -> None:
        request.body = await self._read(request, address, route.body or 0)
        try:
            said = json.loads(request.body)
            email, password = said["email"], said["password"]
            if not isinstance(email, str) or not isinstance(password, str):
                raise TypeError
            # Half of a character pair is text for JSON, and for nothing behind it.
            (email + password).encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            self._rates[route].take(address)
            raise Refusal(422, "a sign-in has an email and a password") from None
        # Nobody is made to wait by those who guess at the same address: not who has the password that the
        # node has made, which can't be guessed, and not for long who has signed in from here before.
        own = await self._check(self._syft.is_own_password, password)
        known = own or self._throttle.remembers(address, email)
        if known:
            self._known_rate.take((address, email.casefold(), own))
        else:
            self._rates[route].take(address)
        signed_in: tuple[bytes, bytes] | None = None
        problem = WRONG
        # What finds no room is not tried, and so not counted.
        places = self._known_sign_ins if known else self._sign_ins
        async with places.hold((address, email.casefold(), own) if known else address):
            wait = 0 if own else self._throttle.wait(address, email)
            if wait:
                problem = f"Too many failed sign-ins. Try again in {wait} seconds."
            else:
                # Before it is tried: those that are tried at the same time must not all be let through.
                self._throttle.failed(address, email)
                signed_in = await self._hash(self._syft.sign_in, email, password)
        if signed_in is None:
            self._refusals.note(address, "a sign-in failed")
            await request.reply(200, await self._check(self._syft.refusal, problem))
            return
        await self._check(self._throttle.succeeded, address, email)
        key, answer = signed_in
        self._proved.add((address, key))
        await request.reply(200, answer, more=[(b"set-cookie", self._known.cookie(request.scope, key))])

    async def _sign_up(self, request: _Request, address: str) -> None:
        if not await self._check(self._syft.open_to_sign_up):
            raise Refusal(404, "there is no such page")
        try:
            if wire.read(request.body).name != "UserCreate":
                raise wire.Malformed("no sign-up")
            await self._check(partial(wire.measure, request.body, types=OF_A_SIGN_UP))
        except wire.Malformed as error:
            raise Refusal(400, f"that is no sign-up: {error}") from None
        async with self._sign_ins.hold(address):
            await request.pass_to(self._api)

    def _room(self, role: Role, key: bytes) -> Any:
        return _held(self._staff if role >= Role.DATA_OWNER else self._scientists, key)

    async def _check(self, what: Callable[..., Any], *arguments: Any) -> Any:
        if self._checks is None:
            self._checks = anyio.CapacityLimiter(CHECKS)
        return await anyio.to_thread.run_sync(partial(what, *arguments), limiter=self._checks)

    async def _hash(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """As `_check`, in threads of its own: a password takes a while."""
        if self._hashes is None:
            self._hashes = anyio.CapacityLimiter(SIGN_INS + KNOWN_SIGN_INS)
        return await anyio.to_thread.run_sync(partial(what, *arguments), limiter=self._hashes)

    async def _read(self, request: _Request, address: str, largest: int) -> bytes:
        length = request.length()
        if length is None:
            raise Refusal(411, "a body must say its length")
        if length > largest:
            raise Refusal(413, "too much was sent")
        if not length:
            return b""
        body = _Body(length)
        with self._in_crowd(address) as gone:
            await request.fill(body, length, BODY_SECONDS, gone)
        return body.take()

    async def _read_signed(
        self, request: _Request, address: str, length: int, room: contextlib.AsyncExitStack
    ) -> tuple[bytes, bytes]:
        """The body of a signed call, and the key that it names.

        More than `STRANGER_BODY` is read only of who names an account's key.
        That is no proof: keys are public, and the proof is the signature on the whole. So who has not signed
        anything from this address yet sends less, faster, and gives way when there are too many.

        Args:
            room: keeps the place of a large body until it is checked.
        """
        body = _Body(length)
        with self._in_crowd(address) as gone:
            await request.fill(body, min(length, STRANGER_BODY), BODY_SECONDS, gone)
            try:
                # In this thread: it looks at the beginning alone, and another one costs more.
                key = wire.sender(body.memory)
            except wire.Malformed as error:
                raise Refusal(400, f"that is no signed call: {error}") from None
            proved = (address, key) in self._proved
            if not proved:
                self._unproved_rate.take(address)
            if length <= STRANGER_BODY:
                return body.take(), key
            caller = await self._check(self._syft.caller, key)
            if length > self._limits.body(caller.role):
                if caller.role >= Role.DATA_SCIENTIST:
                    raise Refusal(413, "the call is too large")
                raise Refusal(403, NO_ACCOUNT)
            if not proved:
                if length > SCIENTIST_BODY:
                    raise Refusal(403, "sign in, or make a small call, before a call that is so large")
                await room.enter_async_context(self._unproved_uploads.hold(address))
                await request.fill(body, length, BODY_SECONDS + length / UNPROVED_SLOWEST, gone)
                return body.take(), key
        uploads = self._staff_uploads if caller.role >= Role.DATA_OWNER else self._uploads
        await room.enter_async_context(uploads.hold(key))
        await request.fill(body, length, BODY_SECONDS + length / SLOWEST, None)
        return body.take(), key

    @contextlib.contextmanager
    def _in_crowd(self, address: str) -> Iterator[asyncio.Future[None]]:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        token = self._crowd.enter(address, partial(_settle, gone))
        try:
            yield gone
        finally:
            self._crowd.leave(token)
            gone.cancel()

    async def _refuse(self, request: _Request, error: Refusal) -> None:
        address = request.scope["client"][0] if request.scope.get("client") else ""
        self._refusals.note(address, f"{error.status}: {error}")
        if request.started:
            return
        wanted = request.scope.get("path", "")
        if error.status in (404, 405, 413, 429, 503) and not wanted.startswith("/api"):
            text = f"{error.status}: {error}\n".encode()
            kind = b"text/plain; charset=utf-8"
        else:
            text, kind = json.dumps({"detail": str(error)}).encode(), b"application/json"
        # What was not read of the body can't be told from a next request.
        await request.reply(error.status, text, kind, close=True)


@dataclass(frozen=True)
class _Checked:
    key: bytes
    caller: Caller
    refused: str = ""
    path: str = ""


def _settle(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)
