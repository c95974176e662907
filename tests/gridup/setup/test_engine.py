from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gridup.setup import binary
from gridup.setup.binary import ENGINE_VERSION, PROVIDER, is_compatible
from gridup.setup.engine import ensure_engine, find_engine
from gridup_infra.errors import SetupError
from gridup_infra.paths import Home
from gridup_infra.processes import run, wait_until
from support.release_mirror import ARCHIVE, Mirror, archive, engine_script

from .conftest import ROOT, Program

GET = """
import sys
from pathlib import Path
from gridup.setup.engine import ensure_engine
from gridup_infra.paths import Home
print(ensure_engine(Home(Path(sys.argv[1])), lambda text: print(text, flush=True)).source)
"""


def silently(_text: str) -> None: ...


def start(home: Home) -> subprocess.Popen[str]:
    """Another run that gets the engine."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}/infra:{ROOT}/cli"}
    return subprocess.Popen(
        [sys.executable, "-c", GET, str(home.root)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("version", "good"),
    [
        (f"v{ENGINE_VERSION}", True),
        ("v3.274.2", True),
        ("3.300.0-alpha.1", True),
        ("warning: news\nv3.999.0+dirty", True),
        ("v3.274.0", False),
        (f"v{ENGINE_VERSION}-alpha.1", False),
        ("v4.0.0", False),
        ("v2.999.0", False),
        ("", False),
        ("command not found", False),
    ],
)
def test_which_versions_can_serve(version: str, good: bool) -> None:
    assert is_compatible(version) is good


def test_a_new_enough_engine_on_path_is_used(home: Home, programs: Program) -> None:
    pulumi = programs("pulumi", "echo v3.300.0")
    programs(PROVIDER, "")
    engine = ensure_engine(home, silently)
    assert (engine.version, engine.source, engine.root) == ("3.300.0", "PATH", pulumi.parent.parent)
    assert (engine.root / "bin" / "pulumi").exists()


@pytest.mark.parametrize("script", ["echo v3.100.0", "echo v4.0.0", "exit 1", "echo nonsense"])
def test_another_engine_on_path_is_passed_over(
    home: Home, programs: Program, mirror: Mirror, script: str
) -> None:
    programs("pulumi", script)
    programs(PROVIDER, "")
    assert ensure_engine(home, silently).source == "download"


def test_an_engine_without_its_provider_host_is_passed_over(
    home: Home, programs: Program, mirror: Mirror
) -> None:
    programs("pulumi", "echo v3.300.0")
    assert ensure_engine(home, silently).source == "download"


def test_an_engine_is_asked_once_until_it_changes(home: Home, programs: Program, tmp_path: Path) -> None:
    log = tmp_path / "asked"
    programs(PROVIDER, "")
    programs("pulumi", f"echo x >>{log}; echo v3.300.0")
    home.engine.mkdir(parents=True)
    for _ in range(3):
        assert find_engine(home)
    assert log.read_text() == "x\n"
    programs("pulumi", f"echo x >>{log}; echo v3.301.10")
    found = find_engine(home)
    assert found is not None
    assert found.version == "3.301.10"
    assert log.read_text() == "x\nx\n"


def test_looking_makes_nothing(home: Home, programs: Program) -> None:
    programs("pulumi", "echo v3.300.0")
    programs(PROVIDER, "")
    assert find_engine(home) is not None
    programs("pulumi", "echo v3.0.0")
    assert find_engine(home) is None
    assert not home.root.exists()


@pytest.mark.parametrize("name", ["pulumi", PROVIDER, binary.MARKER])
@pytest.mark.parametrize("harm", ["remove", "cut"])
def test_a_damaged_engine_is_replaced(home: Home, mirror: Mirror, name: str, harm: str) -> None:
    engine = ensure_engine(home, silently)
    path = next(path for path in engine.root.rglob("*") if path.name == name)
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])
    assert find_engine(home) is None
    assert ensure_engine(home, silently) == engine == find_engine(home)


def test_an_unmarked_engine_is_never_used(home: Home, mirror: Mirror) -> None:
    folder = home.engine / ENGINE_VERSION / "bin"
    folder.mkdir(parents=True)
    (folder / "pulumi").write_bytes(engine_script())
    assert find_engine(home) is None
    assert ensure_engine(home, silently).source == "download"


def test_two_runs_at_once_get_it_once(home: Home, mirror: Mirror) -> None:
    # The first is at it until the second has met it.
    mirror.trickle = 0.2
    first = start(home)
    assert wait_until(lambda: mirror.count(ARCHIVE) == 1, timeout=120)
    second = start(home)
    assert second.stdout is not None
    met = second.stdout.readline()
    mirror.trickle = 0
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [output.splitlines()[-1] for output in outputs] == ["download", "download"]
    assert (
        f"waiting for another run: getting the Pulumi engine {ENGINE_VERSION} by process {first.pid}" in met
    )
    assert mirror.count(ARCHIVE) == 1


def test_a_killed_run_is_cleaned_up_by_the_next(home: Home, mirror: Mirror) -> None:
    mirror.trickle = 0.1
    first = start(home)
    assert wait_until(lambda: bool(list(home.engine.glob(".making-*/*.tar.gz"))), timeout=120)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=120)
    assert list(home.engine.glob(".making-*"))
    assert find_engine(home) is None
    mirror.trickle = 0
    assert ensure_engine(home, silently).source == "download"
    assert not list(home.engine.glob(".making-*"))


def test_ctrl_c_leaves_nothing_behind(home: Home, mirror: Mirror) -> None:
    mirror.trickle = 0.1
    run_under_way = start(home)
    assert wait_until(lambda: bool(list(home.engine.glob(".making-*/*.tar.gz"))), timeout=120)
    run_under_way.send_signal(signal.SIGINT)
    run_under_way.communicate(timeout=120)
    assert not list(home.engine.glob(".making-*"))


def test_a_home_that_is_no_folder_is_one_clear_error(home: Home, mirror: Mirror) -> None:
    home.root.parent.mkdir(exist_ok=True)
    home.root.write_text("a file")
    with pytest.raises(SetupError, match="can't be used") as caught:
        ensure_engine(home, silently)
    assert "GRIDUP_HOME" in caught.value.suggestion


@pytest.mark.tier("gate")
def test_a_small_disk_is_refused_before_the_download(
    mirror: Mirror, small_disk: Callable[[int], Path]
) -> None:
    home = Home(small_disk(4) / "home")
    with pytest.raises(SetupError, match=r"needs 1\.0 GB in .*; 0\.0 GB are free"):
        ensure_engine(home, silently)
    assert mirror.count(ARCHIVE) == 0


@pytest.mark.tier("gate")
def test_a_disk_that_fills_during_the_download(
    mirror: Mirror, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridup.setup.download.NEEDED_BYTES", 0)
    mirror.publish(archive({"pulumi/pulumi": os.urandom(6_000_000), f"pulumi/{PROVIDER}": b""}))
    home = Home(small_disk(4) / "home")
    with pytest.raises(SetupError, match="is full") as caught:
        ensure_engine(home, silently)
    assert "Free some space" in caught.value.suggestion
    assert [path.name for path in home.engine.iterdir()] == [".lock"]


def test_a_private_ca_is_trusted_when_named(
    home: Home, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl
    from http.server import ThreadingHTTPServer

    openssl = "/usr/bin/openssl"
    if not Path(openssl).exists():
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    assert run([openssl, *request, *names], timeout=60).ok

    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = mirror.files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRIDUP_ENGINE_URL", f"https://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(SetupError, match="certificate is not trusted"):
            ensure_engine(home, silently)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ensure_engine(home, silently).source == "download"
    finally:
        server.shutdown()
        server.server_close()


def test_finding_starts_no_process(home: Home, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_engine(home, silently)
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process"))
    assert find_engine(home)
