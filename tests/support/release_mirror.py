"""A mirror of Pulumi's releases on this machine, which can be as bad as real networks are."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from gridup.setup.binary import ENGINE_VERSION, PROVIDER
from gridup.setup.download import _platform

ARCHIVE = f"pulumi-v{ENGINE_VERSION}-{_platform()}.tar.gz"
CHECKSUMS = f"pulumi-{ENGINE_VERSION}-checksums.txt"


def engine_script(version: str = f"v{ENGINE_VERSION}") -> bytes:
    return f"#!/bin/sh\necho {version}\n".encode()


def archive(files: dict[str, bytes] | None = None, links: dict[str, str] | None = None) -> bytes:
    """A release's archive; by default one whose `pulumi` prints the right version."""
    if files is None:
        files = {
            "pulumi/pulumi": engine_script(),
            f"pulumi/{PROVIDER}": b"#!/bin/sh\n",
            "pulumi/LICENSE": b"text",
        }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for name, to in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            tar.addfile(entry)
    return buffer.getvalue()


@dataclass
class Mirror:
    """What it serves, how badly, and what was asked of it.

    Attributes:
        files: name to content.
        cut: how many answers for the archive end after half of what is due.
        trickle: seconds before each byte of the archive; 0 for full speed.
        silent: never answers.
        moved: where another server has a file, by its name.
        asked: each request: its path and Range header.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0
    trickle: float = 0
    silent: bool = False
    moved: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def publish(self, data: bytes, digest: str | None = None) -> None:
        digest = digest or hashlib.sha256(data).hexdigest()
        self.files[f"/{ARCHIVE}"] = data
        self.files[f"/{CHECKSUMS}"] = f"{'0' * 64}  pulumi-sdk.tgz\n{digest}  {ARCHIVE}\n".encode()

    def count(self, name: str) -> int:
        return sum(path.endswith(name) for path, _ in self.asked)


@contextmanager
def serve() -> Iterator[Mirror]:
    mirror = Mirror()
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        state: ClassVar[Mirror] = mirror

        def do_GET(self) -> None:
            # As a proxy it is asked for a whole address.
            path = "/" + self.path.split("://", 1)[-1].split("/", 1)[-1]
            mirror.asked.append((self.path, self.headers.get("Range")))
            if mirror.silent:
                stop.wait(60)
                return
            if path in mirror.moved:
                self.send_response(302)
                self.send_header("Location", mirror.moved[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = mirror.files.get(path)
            if data is None:
                self.send_error(404)
                return
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            data = data[start:]
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if path == f"/{ARCHIVE}" and mirror.cut > 0:
                mirror.cut -= 1
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            elif path == f"/{ARCHIVE}" and mirror.trickle:
                for byte in data:
                    if stop.is_set():
                        return
                    time.sleep(mirror.trickle)
                    self.wfile.write(bytes([byte]))
            else:
                self.wfile.write(data)

        def do_CONNECT(self) -> None:
            mirror.asked.append((self.path, None))
            self.send_error(403)

        def log_message(self, *_: object) -> None: ...

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Else closing would wait for a client that keeps its connection.
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield mirror
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
