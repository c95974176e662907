"""Let's Encrypt's own test server for ACME (RFC 8555), and a name server that knows where to find who asks.

It proves what a public authority proves: it comes to the name's address and asks for the challenge there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gridup.setup.build import find_go
from gridup_infra.errors import GridupError
from gridup_infra.locking import locked
from gridup_infra.paths import ensure_private
from gridup_infra.processes import wait_until
from support.http_rig import free_port, self_signed

MODULE = "github.com/letsencrypt/pebble/v2/cmd/pebble"
VERSION = "v2.10.1"

BUILD_SECONDS = 600.0

LOOPBACK, EVERY = "127.0.0.1", "0.0.0.0"


@dataclass(frozen=True)
class Pebble:
    """A running one.

    Attributes:
        url: of its directory.
        ca: a file with the certificate that its own server is trusted by, and the root of those it gives.
        log: what it wrote.
    """

    url: str
    ca: Path
    log: Path


@contextlib.contextmanager
def pebble(
    cache: Path, folder: Path, *, find: Callable[[str], str], http: int, https: int, host: str = ""
) -> Iterator[Pebble]:
    """Run one. Skips the test where it can't be had.

    Args:
        find: tells the address that a name leads to; empty where there is no such name.
        http, https: the ports there that it comes to, where a public authority comes to 80 and 443.
        host: this machine's address as whoever asks for certificates sees it, which need not be there yet;
            with none it listens on the loopback alone.
    """
    program = _program(cache)
    certificate = self_signed(folder, ",".join(f"IP:{one}" for one in (LOOPBACK, host) if one))
    bound = EVERY if host else LOOPBACK
    listen, manage = free_port(bound), free_port()
    config = folder / "pebble.json"
    own = {
        "listenAddress": f"{bound}:{listen}",
        "managementListenAddress": f"{LOOPBACK}:{manage}",
        "certificate": str(certificate.cert),
        "privateKey": str(folder / "key.pem"),
        "httpPort": http,
        "tlsPort": https,
        "retryAfter": {"authz": 1, "order": 1},
        "profiles": {"default": {"description": "as public ones", "validityPeriod": 7776000}},
    }
    config.write_text(json.dumps({"pebble": own}))
    log = folder / "pebble.log"
    with _names(find) as name_server, log.open("wb") as output:
        process = subprocess.Popen(
            [str(program), "-config", str(config), "-dnsserver", name_server],
            # Without the first it takes its time; the second has it refuse some good nonces, as may happen.
            env={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20", "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            trusted = ssl.create_default_context(cafile=str(certificate.cert))
            there = f"https://{LOOPBACK}:{listen}/dir"
            assert wait_until(lambda: bool(_get(there, trusted)), timeout=120), log.read_text()
            root = _get(f"https://{LOOPBACK}:{manage}/roots/0", trusted)
            ca = folder / "acme.pem"
            ca.write_bytes(certificate.cert.read_bytes() + root)
            yield Pebble(f"https://{host or LOOPBACK}:{listen}/dir", ca, log)
        finally:
            process.kill()
            process.wait()


def _program(cache: Path) -> Path:
    folder = ensure_private(cache / "pebble" / VERSION)
    program = folder / "pebble"
    with locked(folder / "lock", "a build", wait=BUILD_SECONDS, busy="The ACME server is being built"):
        if not program.exists():
            try:
                go = find_go()
            except GridupError as error:
                pytest.skip(f"no ACME server: {error.message}")
            # Go itself makes it whole or not at all.
            made = subprocess.run(
                [go, "install", f"{MODULE}@{VERSION}"],
                env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"},
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
            )
            if made.returncode != 0:
                pytest.skip(f"no ACME server: {' '.join(made.stderr.split()[-30:])}")
    assert shutil.which(program)
    return program


def _get(url: str, trusted: ssl.SSLContext) -> bytes:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
    )
    with contextlib.suppress(OSError), opener.open(url, timeout=5) as answer:
        return bytes(answer.read())
    return b""


@contextlib.contextmanager
def _names(find: Callable[[str], str]) -> Iterator[str]:
    """A name server (RFC 1035, over TCP) for which a name has one IPv4 address or none, and nothing else."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while length := self.rfile.read(2):
                asked = self.rfile.read(int.from_bytes(length, "big"))
                end, labels = 12, []
                while size := asked[end]:
                    labels.append(asked[end + 1 : end + 1 + size].decode())
                    end += size + 1
                question = asked[12 : end + 5]
                # Any case will do, and the authority mixes them.
                address = find(".".join(labels).lower()) if question[-4:-2] == b"\0\1" else ""
                known = bool(address)
                found = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton(address or EVERY)
                head = asked[:2] + struct.pack("!HHHHH", 0x8580, 1, int(known), 0, 0)
                answer = head + question + found * known
                self.wfile.write(len(answer).to_bytes(2, "big") + answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(5)
