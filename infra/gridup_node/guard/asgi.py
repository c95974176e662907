"""The guard: an ASGI layer before syft and the portal. It passes on only the requests that its tables allow.

The guard reads the request body itself, and checks who signed it and what it asks for. Only then does it pass
the request on. The guard uses syft only through the few methods of `Syft`.
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
"""Bytes of a signed call that the guard reads before it knows the key that the call names."""
SMALL = 8 * 1024
"""Bytes of a call that is checked in the event loop's own thread: this takes half a millisecond."""
SCIENTIST_BODY = 64 * MIB
"""Largest call of a data scientist, in bytes: code and its small inputs."""
BODY_SECONDS = 15.0
"""Time limit for a body of up to `STRANGER_BODY` bytes, and for each pause within a larger body."""
SLOWEST = 16 * 1024
"""Minimum average rate of a larger body, in bytes per second."""
LINGER_SECONDS = 5.0
"""How long the guard reads the rest of a refused body. The reverse proxy disconnects at the answer."""
OPEN_REQUESTS, OPEN_OF_ADDRESS = 1000, 50
"""Open requests of callers that are not known yet: in total, and from one address."""
ACCOUNT_CALLS, CALLS_OF_ACCOUNT, STAFF_CALLS = 16, 6, 8
"""Concurrent calls in syft: of all data scientists, of one account, and in addition of all staff."""
UPLOADS, UPLOADS_OF_ACCOUNT = 6, 3
"""Concurrent uploads of all data scientists and of one account. Staff have as many in addition."""
UNPROVED_UPLOADS, UNPROVED_SLOWEST = 2, 256 * 1024
"""Without proof of the key: concurrent large bodies (one per address), and minimum bytes per second."""
PROVED_SECONDS = 12 * 60 * 60.0
"""How long an address counts as proved for an account, after a signed call or a sign-in from there."""
UNPROVED_EACH_SECOND, UNPROVED_BURST = 20.0, 200
STRANGER_EACH_SECOND, STRANGER_BURST = 1.0, 30
"""Rate of calls without an account from one address, on a node that accepts such calls."""
ASKING_EACH_SECOND, ASKING_BURST = 1 / (60 * 60), 10
"""Rate of association requests from one address: fewer per day than may wait for an answer (`quotas`)."""
STRANGER_CALLS, SIGN_INS, SIGN_INS_OF_ONE = 4, 2, 8
KNOWN_SIGN_INS = 1
"""Additional slots for users who have signed in before, from this address or with this browser."""
KNOWN_EACH_SECOND, KNOWN_BURST = 1.0, 20
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE of Linux's <asm-generic/mman.h>: an announced body takes no memory until it arrives."""
WAIT_SECONDS = 20.0
LONGEST_NUMBER = 15
"""Digits."""
PROTOCOL = re.compile("[0-9]{1,6}")
NO_ACCOUNT = "this key has no account here"
CHECKS = 4
"""Threads that check calls."""

Asgi = Callable[[Any, Any, Any], Any]

answers_to: ContextVar[bytes] = ContextVar("answers_to", default=b"")
"""The key of the caller that this context answers."""


@dataclass(frozen=True)
class Caller:
    """The holder of a key.

    Attributes:
        role: the account's role; `NOBODY` without an account.
        peer: whether the key is that of an associated node.
    """

    role: Role
    peer: bool = False


class Syft(Protocol):
    """The guard's interface to syft's server. Every method blocks, unless its docstring says otherwise."""

    @property
    def server(self) -> bytes:
        """The node's id, 16 bytes."""

    @property
    def own_key(self) -> bytes:
        """The node's own public key. It is public: the metadata contains it."""

    @property
    def is_network(self) -> bool:
        """Whether this is a network node, with which other nodes associate."""

    def caller(self, key: bytes) -> Caller:
        """Return the holder of a key."""

    def is_remembered(self, key: bytes) -> bool:
        """Whether `caller` can answer for this key without a look-up. Neither call then blocks."""

    def open_to_sign_up(self) -> bool:
        """Whether anybody may create an account."""

    def signed_refusal(self, message: str) -> bytes:
        """Return the answer that refuses a signed call, in the form that syft's client reads."""

    def refusal(self, message: str) -> bytes:
        """Return the answer that refuses another request, in the form that syft's client reads."""

    def sign_in(self, email: str, password: str) -> tuple[bytes, bytes] | None:
        """Return the account's public key and the answer with its private key; None if they do not match."""

    def is_own_password(self, password: str) -> bool:
        """Whether this is the administrator password that the node generated. Nobody can guess that one."""

    def has_peers(self) -> bool:
        """Whether other nodes are associated with this one."""

    def has_room(self) -> bool:
        """Whether the disk has room for data from data scientists. This does not block."""


@dataclass(frozen=True)
class Limits:
    """The limits that an administrator sets.

    Attributes:
        max_upload: the largest call of staff, in bytes.
        guests: whether a key without an account may read the catalogue.
    """

    max_upload: int
    guests: bool = False

    def body(self, role: Role) -> int:
        """Return the size of the largest call of `role`, in bytes."""
        if role >= Role.DATA_OWNER:
            return self.max_upload
        return min(SCIENTIST_BODY, self.max_upload) if role >= Role.DATA_SCIENTIST else STRANGER_BODY

    def built(self, role: Role) -> int:
        """Return how many bytes of memory all values of one call of `role` may take together."""
        return max(4 * self.body(role), 256 * MIB)


class _Request:
    """One request on its way through the guard."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.body = b""
        self.started = self.answered = False
        self._ended = False

    def length(self) -> int | None:
        """Return the body's length from the request's headers; None if there is a body without a length.

        Raises:
            Refusal: the headers contradict each other, or the length is no valid number.
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
        """Read the body until `enough` bytes have arrived.

        Args:
            seconds: the time limit for all of them. No single part may take longer than `BODY_SECONDS`.
            gone: a future that ends the read when it is done: there are too many requests.

        Raises:
            Refusal: the body is too slow, too short or too long, there are too many requests, or the caller
                has disconnected.
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
        """Return the next ASGI message; None if none arrives in time, or if `gone` is done before."""
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
        """Pass the request to `app`. Call `slot` when the answer begins: sending it needs no slot."""
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
        """Send an answer from the guard itself, with the additional headers `more`."""
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
            # The answer is sent. The reverse proxy may still be writing the unread body. If the connection
            # closed now, that write would fail, and the proxy would report the failure instead of the answer.
            await self._drop(LINGER_SECONDS)
            await self._send({"type": "http.response.body", "body": b""})

    async def _drop(self, seconds: float) -> None:
        """Read and discard the rest of the body, for at most `seconds`."""
        end = time.monotonic() + seconds
        while not self._ended:
            message = await self._next(end - time.monotonic(), None)
            self._ended = message is None or not message.get("more_body", False)


@contextlib.asynccontextmanager
async def _held(slots: Slots, caller: bytes) -> AsyncIterator[Callable[[], None]]:
    """Hold a slot. It yields a function that gives the slot back before the context ends."""
    give_back = await slots.enter(caller)
    try:
        yield give_back
    finally:
        give_back()


@dataclass
class _Body:
    """A body while it arrives. It uses memory only for the bytes that have arrived."""

    length: int
    filled: int = 0
    memory: Any = None

    def __post_init__(self) -> None:
        if self.length <= STRANGER_BODY:
            self.memory = bytearray(self.length)
            return
        # Private: a job's process is a fork of this one, and must not see bytes that arrive later.
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
        """Return the whole body. Call it only once."""
        if isinstance(self.memory, bytearray):
            return bytes(self.memory)
        found = bytes(self.memory[: self.length])
        self.memory.close()
        return found


class Guard:
    """The guard of `api` (syft's app) and `rest` (the portal): both see only requests that it allows."""

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
        # A random key: nobody has the private key for it.
        self._nobody = secrets.token_hex(wire.KEY_BYTES)
        self._refusals, self._failures = Refusals(clock), Failures(clock)
        self._checks: anyio.CapacityLimiter | None = None
        self._hashes: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._api(scope, receive, send)
            return
        if scope["type"] != "http":
            # No service behind the guard uses another protocol (Jupyter is not behind it).
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
                # Part of the answer is sent already, so the only way is to break the connection.
                raise
            # If the server handled the exception, it would close the connection without an answer. By then
            # the reverse proxy may have sent another user's request on this connection, which would be lost.
            self._failures.note(request.scope)
            if not request.started:
                await request.reply(500, b'{"detail":"the node failed"}', b"application/json")

    async def _answer(self, request: _Request, address: str) -> None:
        route = find(request.scope["method"], request.scope["path"])
        if isinstance(route, int):
            raise Refusal(route, "there is no such page" if route == 404 else "that can't be done here")
        if route.who in (Who.SIGNED, Who.SIGN_IN):
            # The rate of these is counted later, when the caller is known.
            self._origins.check_origin(request.scope)
        if route.path.startswith("/api"):
            # The budget is raised later if the caller has an account.
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
        """Answer the first request of syft's client: the methods that a key may call."""
        try:
            # `parse_qs` raises ValueError for too many fields, too.
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
        # A public key is no secret. So a caller who has not signed in gets the same answer for every key.
        if self._known.has_signed_in(request.scope, key):
            caller = await self._check(self._syft.caller, key)
            if caller.role >= Role.DATA_SCIENTIST:
                budget.begin(self._limits.built(caller.role))
                async with self._room(caller.role, key) as slot:
                    await request.pass_to(self._api, slot)
                return
        open_ = self._limits.guests or self._syft.is_network
        # A node also sends this request to itself, to check whether others reach it by a route.
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
                # The account is active here. Another thread would cost more than the check itself.
                checked = self._examine(raw)
            else:
                checked = await self._check(self._examine, raw)
        caller, key = checked.caller, checked.key
        if caller.role >= Role.DATA_SCIENTIST:
            self._proved.add((address, key))
        if checked.refused:
            # The caller has an account: answer in the form that syft's client reads.
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
        """Check who sent a call, and whether the sender may make it. No code of syft's reads the body.

        Raises:
            Refusal: the sender has no account, the body is no signed call or too large, or a sender without
                an account may not make this call.
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
            # A network node passes on calls of its own accounts to its nodes. No other caller can make it
            # connect to another node.
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
            # JSON allows a lone surrogate. No code behind the guard can encode one.
            (email + password).encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            self._rates[route].take(address)
            raise Refusal(422, "a sign-in has an email and a password") from None
        # Attackers who guess passwords from the same address must not lock out real users. The holder of the
        # generated password never waits: that password can't be guessed. A user who has signed in from here
        # before waits only a short time.
        own = await self._check(self._syft.is_own_password, password)
        known = own or self._throttle.remembers(address, email)
        if known:
            self._known_rate.take((address, email.casefold(), own))
        else:
            self._rates[route].take(address)
        signed_in: tuple[bytes, bytes] | None = None
        problem = WRONG
        # A sign-in that finds no slot is not tried, and so it does not count as failed.
        places = self._known_sign_ins if known else self._sign_ins
        async with places.hold((address, email.casefold(), own) if known else address):
            wait = 0 if own else self._throttle.wait(address, email)
            if wait:
                problem = f"Too many failed sign-ins. Try again in {wait} seconds."
            else:
                # Count it before the try. Otherwise many concurrent tries would all get through.
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
        """Run like `_check`, but in separate threads: a password check takes long."""
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
        """Return the body of a signed call, and the key that it names.

        The guard reads more than `STRANGER_BODY` bytes only if the call names the key of an account. That is
        no proof: keys are public, and the proof is the signature on the whole body. So a caller who has not
        signed anything from this address yet has stricter limits: a smaller body, a higher minimum rate, and
        an end when there are too many requests.

        Args:
            room: holds the slot of a large body until the body is checked.

        Raises:
            Refusal: the body is no signed call, the account may not send so much, or the read fails.
            Busy: the caller sends too many requests, or there is no slot.
        """
        body = _Body(length)
        with self._in_crowd(address) as gone:
            await request.fill(body, min(length, STRANGER_BODY), BODY_SECONDS, gone)
            try:
                # In this thread: it reads only the beginning of the body, and another thread costs more.
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
        # Close the connection: the unread rest of the body looks like a next request.
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
