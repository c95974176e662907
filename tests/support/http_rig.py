"""Fake servers on loopback: each answers a connection with a small function, a script of its misdeeds."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gridup_node.services import PORTAL_MARK
from support.workers import free_port as free_port

Handler = Callable[[socket.socket, str], None]
"""Answers one connection; given the path asked for, or "" where the server spoke first."""

LOGIN = f"<html><head>{PORTAL_MARK}</head><body>Log in</body></html>".encode()
METADATA = {"name": "Inst", "server_type": "datasite", "syft_version": "0.9.5", "id": "7"}


@dataclass
class Server:
    """A listening server; `paths` are those asked for so far."""

    host: str
    port: int
    paths: list[str] = field(default_factory=list)
    connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    speaks_first: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    """Serve until the block ends; then every connection is closed and every thread has ended."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(512)
    server = Server(host, listener.getsockname()[1])
    threads: list[threading.Thread] = []

    def answer(raw: socket.socket) -> None:
        with raw, contextlib.suppress(OSError):
            raw.settimeout(20)
            sock = tls.wrap_socket(raw, server_side=True) if tls else raw
            with sock:
                path = "" if speaks_first else _path(sock)
                server.paths.append(path)
                handler(sock, path)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                if server.over.is_set():
                    raw.close()
                    return
                server.connections += 1
                threads.append(threading.Thread(target=answer, args=(raw,), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    handler_over.append(server.over)
    try:
        yield server
    finally:
        server.over.set()
        with contextlib.suppress(OSError), socket.create_connection((host, server.port), timeout=2):
            pass
        acceptor.join(5)
        listener.close()
        for thread in threads:
            thread.join(5)
        handler_over.remove(server.over)


handler_over: list[threading.Event] = []
"""Set when a server's block ends, so that the handlers which dawdle stop."""


def _path(sock: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(4096)
        if not more:
            raise ConnectionResetError
        data += more
    return data.split(b" ")[1].decode()


def _dawdle(seconds: float) -> bool:
    """Sleep, and say whether to go on."""
    time.sleep(seconds)
    return not any(over.is_set() for over in handler_over)


def reply(
    status: int = 200,
    body: bytes = b"",
    content_type: str = "text/html; charset=utf-8",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def json_reply(data: object, status: int = 200) -> bytes:
    return reply(status, json.dumps(data).encode(), "application/json")


def always(answer: bytes) -> Handler:
    """The same to everything: a decoy, where it is a 200."""
    return lambda sock, _: sock.sendall(answer)


def node(metadata: Mapping[str, object] = METADATA) -> Handler:
    """A reverse proxy with a portal and syft's metadata behind it."""
    pages = {"/login": reply(body=LOGIN), "/api/v2/metadata": json_reply(metadata)}
    return lambda sock, path: sock.sendall(pages.get(path, reply(404)))


def jupyter(version: object = "2.17.0") -> Handler:
    return lambda sock, path: sock.sendall(json_reply({"version": version}) if path == "/api" else reply(404))


def first(*answers: bytes, then: Handler) -> Handler:
    """One of `answers` for each of the first requests, an empty one meaning a reset; `then` the rest."""
    left = list(answers)
    lock = threading.Lock()

    def handle(sock: socket.socket, path: str) -> None:
        with lock:
            answer = left.pop(0) if left else None
        if answer is None:
            then(sock, path)
        elif answer:
            sock.sendall(answer)
        else:
            reset(sock, path)

    return handle


def reset(sock: socket.socket, _: str) -> None:
    """Close with RST: no linger."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def silent(sock: socket.socket, _: str) -> None:
    while _dawdle(0.05):
        pass


def trickle(data: bytes, every: float = 0.2) -> Handler:
    """A byte at a time."""

    def handle(sock: socket.socket, _: str) -> None:
        for byte in data:
            sock.sendall(bytes([byte]))
            if not _dawdle(every):
                return

    return handle


def trickled_body(data: bytes, every: float = 0.2) -> Handler:
    """Prompt headers, then a body of a byte at a time."""
    head, _, body = data.partition(b"\r\n\r\n")

    def handle(sock: socket.socket, path: str) -> None:
        sock.sendall(head + b"\r\n\r\n")
        trickle(body, every)(sock, path)

    return handle


def endless(chunk: bytes, pause: float = 0.0) -> Handler:
    """A 200 whose body never ends."""

    def handle(sock: socket.socket, _: str) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while _dawdle(pause):
            sock.sendall(chunk)

    return handle


def redirect(to: str | Callable[[str], str], status: int = 302) -> Handler:
    """To a fixed place, or one made from the path asked for."""

    def handle(sock: socket.socket, path: str) -> None:
        place = to if isinstance(to, str) else to(path)
        sock.sendall(reply(status, headers={"Location": place}))

    return handle


def banner(*lines: str) -> Handler:
    return lambda sock, _: sock.sendall("".join(f"{line}\r\n" for line in lines).encode())


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate, which is its own CA."""

    cert: Path
    context: ssl.SSLContext


def self_signed(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 2) -> Certificate:
    """Made with openssl; `days` may be 0 for one that is over at once."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-keyout", str(key), "-out", str(cert), "-days", str(days), "-subj", "/CN=rig"]
    argv += ["-addext", f"subjectAltName={names}"]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return Certificate(cert, context)
