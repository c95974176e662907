"""The node's image by way of the real SDK, on a daemon of the tests' own: what it is asked, and with what."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gridup_infra.errors import BusyError, PreflightError, ResourceError
from gridup_infra.locking import Holder, holder, locked
from gridup_infra.outputs import NodeOutputs
from gridup_infra.paths import Home
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import DockerTarget, images
from gridup_infra.targets.docker.client import connected

pytestmark = pytest.mark.timeout(60, func_only=True)

REGISTRY = "registry.lab.test"

PROPS = {
    "version": "0.9.5",
    "base_image": f"{REGISTRY}/python:3.12",
    "image": "gridup-inst",
    "stack": "inst",
    "stack_id": "0123456789abcdef",
    "name": "Inst",
    "shared": "",
    "urn": "urn",
}
DENIED = f"pull access denied for {REGISTRY}/python, repository does not exist or may require login"


@dataclass
class Daemon:
    """What it was asked, and what it says.

    Attributes:
        builds: of each build the options, and the credentials that it came with, by registry.
        infos: how often it was asked what it is.
        held: who held the lock of builds at each of them.
        removed: the images that it was told to remove.
        refusal: what a build without credentials ends with; empty for an image.
    """

    told: dict[str, Any] = field(default_factory=lambda: {"OSType": "linux", "Architecture": "x86_64"})
    refusal: str = ""
    builds: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    infos: int = 0
    held: list[Holder | None] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    host: str = ""

    def answer(self, path: str, options: dict[str, str], headers: dict[str, str]) -> tuple[int, Any]:
        """A call's answer: its status, and JSON."""
        if path.endswith("/version"):
            return 200, {"ApiVersion": "1.43", "MinAPIVersion": "1.12", "Version": "24.0.7"}
        if path.endswith("/info"):
            self.infos += 1
            return 200, self.told
        if path.endswith(("/images/json", "/containers/json", "/networks")):
            return 200, []
        if path.endswith("/build"):
            self.held.append(holder(Home.default().root / images.LOCK))
            known = json.loads(base64.urlsafe_b64decode(headers.get("x-registry-config", "e30=")))
            self.builds.append((options, {registry: word for registry, word in known.items() if word}))
            if self.refusal and not self.builds[-1][1]:
                return 200, {"error": self.refusal}
            return 200, {"stream": "Successfully built 1\n"}
        if path.endswith("/json") and any(f"/images/{made[0]['t']}/" in path for made in self.builds):
            return 200, {"Id": "sha256:1", "Config": {}}
        return 404, {"message": f"no such thing: {path}"}


@contextlib.contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            url = urlsplit(self.path)
            options = {key: values[0] for key, values in parse_qs(url.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, told = daemon.answer(url.path, options, headers)
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def do_DELETE(self) -> None:
            daemon.removed.append(urlsplit(self.path).path.rpartition("/")[2])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        daemon.host = f"tcp://127.0.0.1:{server.server_address[1]}"
        yield daemon
        server.shutdown()


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CONFIG", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "a home"))
    with running(Daemon()) as made:
        yield made


def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> Path:
    """A configuration of the `docker` program, such as Docker Desktop leaves behind."""
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder / "config.json"


def build(daemon: Daemon, rebuilt: str = "") -> None:
    with connected(daemon.host) as client:
        images.ensure(client, {**PROPS, "rebuilt": rebuilt}, lambda _line: None)


class TestPruning:
    """A build and a prune at the same time."""

    def test_none_can_be_removed_between_its_build_and_its_mark(self, daemon: Daemon) -> None:
        build(daemon)
        assert [bool(held and held.operation == "a build of the node's image") for held in daemon.held] == [
            True
        ] * 2

    def test_none_is_removed_while_one_is_built(self, daemon: Daemon) -> None:
        lock = Home.default().root / images.LOCK
        with connected(daemon.host) as client:
            with (
                locked(lock, "a build of the node's image", wait=0, busy=""),
                pytest.raises(BusyError, match="in use: a build of the node's image by process") as caught,
            ):
                images.remove_shared(client, "gridup-node:1")
            assert "`gridup prune`" in caught.value.suggestion
            assert daemon.removed == []
            images.remove_shared(client, "gridup-node:1")
        assert daemon.removed == ["gridup-node:1"]


NO_HELPERS = [
    {"credsStore": "no-such-desktop"},
    {"credHelpers": {"ecr.example": "no-such-ecr-login"}},
    {"credsStore": "no-such-desktop", "auths": {REGISTRY: {}}},
]


class TestCredentials:
    """Case G43: the helper that keeps them is gone with Docker Desktop."""

    @pytest.mark.parametrize("settings", NO_HELPERS)
    def test_none_are_read_where_none_are_needed(
        self, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
    ) -> None:
        configure(tmp_path, monkeypatch, settings)
        # Anew, it looks for a newer base image first.
        build(daemon, rebuilt="2026-11-30")
        assert [known for _, known in daemon.builds] == [{}, {}]

    @pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
    def test_where_they_are_needed_the_helper_and_the_file_are_named(
        self, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        helper = "no-such-helper"
        value = helper if key == "credsStore" else {REGISTRY: helper}
        file = configure(tmp_path, monkeypatch, {key: value, "auths": {REGISTRY: {}}})
        daemon.refusal = DENIED
        with pytest.raises(ResourceError) as caught:
            build(daemon)
        assert f"docker-credential-{helper}" in caught.value.message
        assert "\n" not in caught.value.message
        assert str(file) in caught.value.suggestion

    def test_those_that_are_there_are_used(
        self, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        configure(tmp_path, monkeypatch, {"auths": {REGISTRY: {"auth": "YWRhOnNlY3JldA=="}}})
        daemon.refusal = DENIED
        build(daemon)
        assert [sorted(known) for _, known in daemon.builds] == [[], [REGISTRY], [], [REGISTRY]]


class TestTheDaemonsSettings:
    """Case G57, and other daemons that our build would fail on."""

    @pytest.mark.parametrize(
        ("options", "network"),
        [
            ([], "host"),
            (["name=seccomp,profile=builtin", "name=rootless"], "host"),
            (["name=seccomp,profile=builtin", "name=userns"], None),
        ],
    )
    def test_a_build_has_the_machines_network_only_where_users_are_not_remapped(
        self, daemon: Daemon, options: list[str], network: str | None
    ) -> None:
        daemon.told["SecurityOptions"] = options
        build(daemon)
        first, marked = (options for options, _ in daemon.builds)
        assert first.get("networkmode") == network
        assert "networkmode" not in marked
        assert daemon.infos == 1

    @pytest.mark.parametrize(
        ("told", "said"),
        [
            ({"OSType": "windows"}, "runs containers of Windows, and a node's are of Linux"),
            (
                {"Architecture": "s390x"},
                "a processor of the kind s390x, and a node runs on x86_64",
            ),
        ],
    )
    def test_one_that_cannot_have_a_node_is_told_before_anything_is_made(
        self, daemon: Daemon, told: dict[str, str], said: str
    ) -> None:
        daemon.told |= told
        spec = DeploySpec(name="Inst", target="docker", stack_id="0123456789abcdef", host=daemon.host)
        with pytest.raises(PreflightError, match=said) as caught:
            DockerTarget().preflight(spec, None)
        assert "DOCKER_HOST" in caught.value.suggestion
        assert daemon.builds == []

    @pytest.mark.parametrize("kind", ["x86_64", "aarch64", "amd64", "arm64", ""])
    def test_one_that_can_is_taken_whatever_it_calls_its_processor(self, daemon: Daemon, kind: str) -> None:
        daemon.told["Architecture"] = kind
        images.check(daemon.told)

    def test_a_preflight_asks_once_what_it_is(self, daemon: Daemon) -> None:
        daemon.told["ID"] = "the same"
        spec = DeploySpec(
            name="Inst", target="docker", stack_id="0123456789abcdef", host=daemon.host, bind="127.0.0.1"
        )
        DockerTarget().preflight(spec, NodeOutputs(spec, "127.0.0.1", {}, facts={"daemon": "the same"}))
        assert daemon.infos == 1
