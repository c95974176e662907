"""Sockets with one total deadline for name resolution, connect, TLS and reads."""

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
"""Maximum number of a name's addresses to try."""

_CHAIN_NOT_TRUSTED = {18, 19, 20, 21}
"""X509_V_ERR_*: self-signed, or an unknown issuer. Other codes (expired, wrong name) are worth reporting."""


class Phase(Enum):
    """How far a probe got. The value is the message for users if the time runs out in that phase."""

    LOOKUP = "the name could not be looked up"
    CONNECT = "no answer from this address"
    TLS = "connected, but TLS did not start"
    ANSWER = "connected, but no whole answer"


class Failure(Exception):
    """Ends a probe with a final result: the service is not up, and why."""

    def __init__(self, state: ProbeState, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


@dataclass
class Deadline:
    """The deadline of one attempt, and its progress.

    Attributes:
        end: when the time is over, measured by `clock`.
        seconds: the total time, for messages.
        reached: whether something accepted a connection.
        led_to: the address that a redirect led to. Later errors are errors of that address.
    """

    end: float
    seconds: float
    clock: Callable[[], float] = time.monotonic
    phase: Phase = Phase.LOOKUP
    reached: bool = False
    led_to: str = ""

    def fork(self) -> Deadline:
        """Return a copy with the same deadline, for another attempt in parallel."""
        return Deadline(self.end, self.seconds, self.clock, self.phase)

    def where(self) -> str:
        """Return a suffix for messages that names the redirect's address; empty without a redirect."""
        return f" (redirected to {self.led_to})" if self.led_to else ""

    def left(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: no time is left.
        """
        left = self.end - self.clock()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True)
class Target:
    """An IP address to connect to. It has no port because a redirect may change the port."""

    family: int
    ip: str
    scope: int = 0

    def with_port(self, port: int) -> tuple[Any, ...]:
        if self.family == socket.AF_INET6:
            return self.ip, port, 0, self.scope
        return self.ip, port


def resolve(host: str) -> list[Target]:
    """Return the addresses to try, in order.

    `localhost` always means 127.0.0.1 and ::1, whatever the hosts file says. For other names, the system's
    resolver may block without limit: call this function on a thread that may be abandoned.

    Raises:
        OSError: the name is not known, or can't be looked up.
    """
    if is_loopback(host) and not is_ip(host):
        return [Target(socket.AF_INET, "127.0.0.1"), Target(socket.AF_INET6, "::1")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    targets = list(dict.fromkeys(_target(family, address) for family, _, _, _, address in found))
    # Put one address of each family first. If one family has no route, the other must not wait for it.
    firsts = list({target.family: target for target in reversed(targets)}.values())
    firsts.sort(key=targets.index)
    return [*firsts, *(t for t in targets if t not in firsts)][:MAX_ADDRESSES]


def _target(family: int, address: tuple[Any, ...]) -> Target:
    return Target(family, str(address[0]), int(address[3]) if family == socket.AF_INET6 else 0)


def connect(target: Target, port: int, budget: Deadline) -> socket.socket:
    """Return a connected socket.

    Raises:
        OSError: the connection failed. It is a TimeoutError if no time is left.
    """
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
    """Open a socket and start TLS on it. Return the socket and a note about an untrusted certificate.

    If the certificate of a node that Gridup did not deploy does not verify, connect again without
    verification, and say so in the note. A node that Gridup deployed must verify: otherwise another server
    answers in its place.

    Raises:
        Failure: the certificate does not verify, or the CA can't be read.
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
    """Return a context that trusts one CA. If that CA signs for this node only, the name is not checked."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = trust.named
    context.load_verify_locations(cadata=trust.ca)
    return context


def _handshake(sock: socket.socket, context: ssl.SSLContext, host: str, budget: Deadline) -> socket.socket:
    budget.phase = Phase.TLS
    try:
        # The timeout covers the whole handshake, and `wrap_socket` keeps it.
        sock.settimeout(budget.left())
        secured = context.wrap_socket(sock, server_hostname=host.partition("%")[0])
    except BaseException:
        sock.close()
        raise
    budget.phase = Phase.ANSWER
    return secured


class DeadlineReader(io.RawIOBase):
    """A socket's reader. Each read has only the time that is left, so a slow sender can't go on for ever."""

    def __init__(self, sock: socket.socket, budget: Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._budget.left())
        return self._sock.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002 - the signature that http.client requires
        return io.BufferedReader(self)


def send(sock: socket.socket, data: bytes, budget: Deadline) -> None:
    sock.settimeout(budget.left())
    sock.sendall(data)
