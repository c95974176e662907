"""Commands in a container, by the real SDK, on a daemon of the tests' own: each has a deadline in all."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker.access import STDERR, STDOUT, DockerAccess
from support.checkpoints import outputs_for

pytestmark = pytest.mark.timeout(60, func_only=True)

EVER = 1000.0
"""Seconds; no test waits so long."""


class Handler(BaseHTTPRequestHandler):
    """A daemon with one container that runs, whose commands write `frames` and then, by `goes_on`, no end;
    `moment` seconds after the head of the answer, or along with it."""

    protocol_version = "HTTP/1.1"
    frames: tuple[tuple[int, bytes], ...] = ()
    goes_on = ""
    moment = 0.0
    over: Event

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if path.endswith("/version"):
            self._tell({"ApiVersion": "1.43", "MinAPIVersion": "1.12", "Version": "24.0.7"})
        elif path.endswith("/start"):
            self._run()
        elif path.endswith("/exec"):
            self._tell({"Id": "e1"})
        elif "/exec/" in path:
            self._tell({"Running": False, "ExitCode": 7})
        else:
            self._tell({"Id": "c1", "State": {"Running": True, "Restarting": False}})

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass

    def _tell(self, told: dict[str, object]) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _run(self) -> None:
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        frames = b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in self.frames)
        self._headers_buffer.append(b"\r\n")  # type: ignore[attr-defined]
        if not self.moment:
            self._headers_buffer.append(frames)  # type: ignore[attr-defined]
        self.flush_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            if self.moment:
                self.over.wait(self.moment)
                self.wfile.write(frames)
            if self.goes_on == "in silence":
                self.over.wait(EVER)
            while self.goes_on == "in drops" and not self.over.wait(0.05):
                self._frame(STDOUT, b".")

    def _frame(self, stream: int, data: bytes) -> None:
        self.wfile.write(struct.pack(">BxxxL", stream, len(data)) + data)
        self.wfile.flush()


@contextlib.contextmanager
def container(tmp_path: Path, *frames: tuple[int, bytes], goes_on: str = "") -> Iterator[DockerAccess]:
    """The way into a node whose commands do that."""
    over = Event()
    handler = type("Told", (Handler,), {"frames": frames, "goes_on": goes_on, "over": over})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        facts = {"host": f"tcp://127.0.0.1:{server.server_address[1]}", "project": "gridup-inst"}
        try:
            yield DockerAccess(
                replace(outputs_for(DeploySpec("Inst", target="docker"), tmp_path), facts=facts)
            )
        finally:
            over.set()
            server.shutdown()


@pytest.fixture(autouse=True)
def nobodys_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CONFIG", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "a home"))


@pytest.mark.parametrize("moment", [0.0, 0.2])
def test_a_command_that_ends_gives_what_it_wrote_and_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: float
) -> None:
    """Also where its first words come along with the head of the answer, as from a daemon near by."""
    monkeypatch.setattr(Handler, "moment", moment)
    with container(tmp_path, (STDOUT, b"o"), (STDERR, b"bad"), (STDOUT, b"k")) as access:
        ended = access.run(["work"], timeout=EVER)
    assert (ended.code, ended.stdout, ended.stderr) == (7, "ok", "bad")


@pytest.mark.parametrize("goes_on", ["in silence", "in drops"])
def test_a_command_without_an_end_has_a_deadline_in_all_however_often_it_writes(
    tmp_path: Path, goes_on: str
) -> None:
    with (
        container(tmp_path, (STDOUT, b"begun"), goes_on=goes_on) as access,
        pytest.raises(TimeoutError, match="work did not end within 3 s"),
    ):
        access.run(["work"], timeout=3)


def test_input_that_nobody_reads_is_no_way_around_it(tmp_path: Path) -> None:
    with container(tmp_path, goes_on="in silence") as access, pytest.raises(TimeoutError):
        access.run(["work"], timeout=3, input=b"x" * 64 * 1024**2)
