"""Sockets under one total deadline: look-up, connect, TLS, and reads that can't outlast it."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from gridup.probes.address import is_ip, is_loopback
from gridup.probes.model import ProbeState, Trust

if TYPE_CHECKING:
    import ssl

MAX_ADDRESSES = 4
"""How many of a name's addresses are tried."""

_CHAIN_NOT_TRUSTED = {18, 19, 20, 21}
"""X509_V_ERR_*: self-signed, or an issuer we don't know. Other codes (expired, wrong name) say more."""


class Phase(Enum):
    """How far a probe got; the text is what people read when the time ran out there."""

    LOOKUP = "the name could not be looked up"
    CONNECT = "no answer from this address"
    TLS = "connected, but TLS did not start"
    ANSWER = "connected, but no whole answer"


class Failure(Exception):
    """A probe has its finding: not up, and why."""

    def __init__(self, state: ProbeState, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


@dataclass
class Deadline:
    """The time of one attempt, and how far it has got.

    Attributes:
        end: when it is over, by `clock`.
        seconds: how much there was at first, for messages.
        reached: whether something took a connection.
        led_to: where a redirect led; errors from then on are that place's.
    """

    end: float
    seconds: float
    clock: Callable[[], float] = time.monotonic
    phase: Phase = Phase.LOOKUP
    reached: bool = False
    led_to: str = ""

    def fork(self) -> Deadline:
        """The same time for one more attempt."""
        return Deadline(self.end, self.seconds, self.clock, self.phase)

    def where(self) -> str:
        """For the end of a message: where a redirect led, or nothing."""
        return f" (redirected to {self.led_to})" if self.led_to else ""

    def left(self) -> float:
        """Seconds left.

        Raises:
            TimeoutError: none are.
        """
        left = self.end - self.clock()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True)
class Target:
    """An IP address to connect to; the port may differ from one redirect to the next."""

    family: int
    ip: str
    scope: int = 0

    def with_port(self, port: int) -> tuple[Any, ...]:
        if self.family == socket.AF_INET6:
            return self.ip, port, 0, self.scope
        return self.ip, port


def resolve(host: str) -> list[Target]:
    """The addresses to try, in turn. `localhost` is both loopbacks, whatever the hosts file says.

    Blocks for as long as the system's resolver likes: call it on a thread that may be left behind.

    Raises:
        OSError: the name is not known, or can't be looked up.
    """
    if is_loopback(host) and not is_ip(host):
        return [Target(socket.AF_INET, "127.0.0.1"), Target(socket.AF_INET6, "::1")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    targets = list(dict.fromkeys(_target(family, address) for family, _, _, _, address in found))
    # One of each family first: where one of them leads nowhere, the other must not wait for it.
    firsts = list({target.family: target for target in reversed(targets)}.values())
    firsts.sort(key=targets.index)
    return [*firsts, *(t for t in targets if t not in firsts)][:MAX_ADDRESSES]


def _target(family: int, address: tuple[Any, ...]) -> Target:
    return Target(family, str(address[0]), int(address[3]) if family == socket.AF_INET6 else 0)


def connect(target: Target, port: int, budget: Deadline) -> socket.socket:
    """A connection, or the OSError that says why there is none."""
    budget.phase = Phase.CONNECT
    sock = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(budget.left())
        sock.connect(target.with_port(port))
    except BaseException:
        sock.close()
        raise
    budget.phase = Phase.ANSWER
    budget.reached = True
    return sock


def secure(
    open_socket: Callable[[], socket.socket],
    host: str,
    trust: Trust,
    budget: Deadline,
) -> tuple[socket.socket, str]:
    """Speak TLS, trusted if it can be. With a host that is not ours else a second time untrusted, with the
    note that says so: whatever answers in the place of a node of ours is not it.

    Raises:
        Failure: the certificate does not verify, or the CA is none.
    """
    import ssl

    try:
        context = _pinned(trust) if trust.ca else ssl.create_default_context()
    except (OSError, ValueError) as error:
        raise Failure(ProbeState.DOWN, "its CA, as the stack has it, can't be read") from error
    try:
        return _handshake(open_socket(), context, host, budget), ""
    except ssl.SSLCertVerificationError as error:
        if trust.ca or trust.ours:
            detail = f"its certificate is not this node's own: {error.verify_message.rstrip('.')}"
            raise Failure(ProbeState.DOWN, detail) from error
        why = "" if error.verify_code in _CHAIN_NOT_TRUSTED else f": {error.verify_message}"
    anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    return _handshake(open_socket(), anything, host, budget), f"untrusted certificate{why}"


def _pinned(trust: Trust) -> ssl.SSLContext:
    """Trust in one CA. Where that signs for one node only, the name in the certificate proves no more."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = trust.named
    context.load_verify_locations(cadata=trust.ca)
    return context


def _handshake(sock: socket.socket, context: ssl.SSLContext, host: str, budget: Deadline) -> socket.socket:
    budget.phase = Phase.TLS
    try:
        # The timeout holds for the handshake as a whole, and `wrap_socket` keeps it.
        sock.settimeout(budget.left())
        secured = context.wrap_socket(sock, server_hostname=host.partition("%")[0])
    except BaseException:
        sock.close()
        raise
    budget.phase = Phase.ANSWER
    return secured


class DeadlineReader(io.RawIOBase):
    """A socket's bytes; each read has only the time that is left, so a trickle can't go on for ever."""

    def __init__(self, sock: socket.socket, budget: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._budget.left())
        return self._sock.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - the shape http.client asks for
        return io.BufferedReader(self)


def send(sock: socket.socket, data: bytes, budget: Deadline) -> None:
    sock.settimeout(budget.left())
    sock.sendall(data)
