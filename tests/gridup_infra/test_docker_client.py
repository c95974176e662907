"""Which Docker daemon, and what is said when it can't be had (G32)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.context import ContextAPI

from gridup_infra.build_env import MIRRORS, PROXIES, build_arguments
from gridup_infra.errors import PreflightError
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import DockerTarget, client
from gridup_infra.targets.docker.client import UnreachableError, address_of, chosen_host, connect, is_local
from support.http_rig import always, free_port, json_reply, reply, serve, silent
from support.inside import Inside, inside

pytestmark = pytest.mark.timeout(60, func_only=True)

__all__ = ["inside"]

NOBODY = 65534
LONGEST = 10.0
"""Seconds until it must be told that there is no daemon."""

ODD_VERSIONS = ["v2.20.2-desktop.1", "2.10.2-gitpod.0", "28.1.1+1", ""]


@pytest.fixture(autouse=True)
def nobodys_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's Docker, package index or proxy."""
    for name in list(os.environ):
        if name.upper().startswith(("DOCKER_", "PIP_", "UV_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that anybody may enter, with a path short enough for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[str]:
    """A unix socket where somebody listens but nobody answers, as a DOCKER_HOST."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield f"unix://{path}"


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    """Without the rights of root, where the tests have them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def refusal(host: str) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        connect(host)
    assert "\n" not in caught.value.message
    return caught.value


class TestNoDaemon:
    """Each reason in words of its own, with what to do."""

    def test_nothing_at_the_socket_is_not_running(self) -> None:
        said = refusal("unix:///nope")
        assert said.message == "Docker is not running: nothing answers at unix:///nope."
        assert "DOCKER_HOST" in said.suggestion

    def test_a_socket_that_nobody_listens_on_is_not_running(self, short: Path) -> None:
        with listening(short / "s") as host:
            pass
        assert "is not running" in refusal(host).message

    def test_a_socket_that_may_not_be_used_is_a_question_of_permission(self, short: Path) -> None:
        with listening(short / "s") as host:
            (short / "s").chmod(0o000)
            with somebody_else():
                said = refusal(host)
        assert said.message == f"You have no permission to use Docker at {host}."
        assert "group" in said.suggestion

    def test_without_any_docker_on_the_machine_it_is_not_installed(
        self, short: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # This machine may well have one: what is looked for is another name.
        monkeypatch.setattr(client, "DEFAULT_HOST", f"unix://{short}/docker.sock")
        monkeypatch.setattr(client, "PROGRAMS", ("gridup-no-such-dockerd", "gridup-no-such-docker"))
        said = refusal(chosen_host())
        assert said.message == "Docker is not installed on this machine."
        (short / "gridup-no-such-docker").write_text("#!/bin/sh\n")
        (short / "gridup-no-such-docker").chmod(0o755)
        monkeypatch.setenv("PATH", str(short))
        assert "is not running" in refusal(chosen_host()).message

    def test_a_port_that_refuses_is_not_running(self) -> None:
        host = f"tcp://127.0.0.1:{free_port()}"
        assert refusal(host).message == f"Docker is not running: nothing answers at {host}."

    @pytest.mark.parametrize(
        "host",
        [
            "nonsense://x",
            "127.0.0.1:2375",
            "/var/run/docker.sock",
            "tcp://[::1",
            "unix",
            "tcp://h:99999",
            "fd://",
        ],
    )
    def test_what_is_no_address_is_named(self, host: str) -> None:
        said = refusal(host)
        assert host in said.message
        assert "DOCKER_HOST" in said.message + said.suggestion

    def test_a_port_that_accepts_and_never_answers_is_given_up(self) -> None:
        with serve(silent) as server:
            said = refusal(f"tcp://127.0.0.1:{server.port}")
        assert "No Docker daemon can be reached" in said.message

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9\r\n",
            b"",
            reply(200, b"<html>"),
            reply(404),
            reply(500, b"no"),
            json_reply([]),
            json_reply({}),
            json_reply({"ApiVersion": None}),
            json_reply({"ApiVersion": 5}),
            json_reply({"ApiVersion": "x"}),
            json_reply({"ApiVersion": ""}),
            json_reply({"ApiVersion": "1.12"}),
        ],
        ids=lambda answer: answer[-24:].decode().strip() or "nothing",
    )
    def test_what_answers_and_is_no_docker_is_said_so(self, answer: bytes) -> None:
        with serve(always(answer)) as server:
            said = refusal(f"tcp://127.0.0.1:{server.port}")
        assert str(server.port) in said.message
        assert said.suggestion

    def test_certificates_that_are_not_there_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path / "no-certificates"))
        said = refusal("tcp://127.0.0.1:2376")
        assert "certificates" in said.message
        assert "DOCKER_CERT_PATH" in said.suggestion


class TestPlain:
    """Who may use a daemon is root on its machine: nobody on the way may read or change a word."""

    @pytest.mark.parametrize(
        "host",
        [
            "tcp://192.0.2.7:2375",
            "http://192.0.2.7:2375",
            "tcp://lab.example",
            "tcp://[2001:db8::7]:2375",
            "tcp://127.0.0.1.example:2375",
            "tcp://localhost.example:2375",
            "tcp://127.1:2375",
            "tcp://",
        ],
    )
    def test_a_daemon_elsewhere_is_not_spoken_to_without_tls(self, host: str) -> None:
        said = refusal(host)
        assert said.message == f"The Docker daemon at {host} would be spoken to without TLS."
        assert "ssh://" in said.suggestion
        assert "DOCKER_TLS_VERIFY=1" in said.suggestion

    def test_http_says_that_it_is_plain_whatever_the_variable_says(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        assert "without TLS" in refusal("http://192.0.2.7:2375").message

    @pytest.mark.parametrize("host", ["tcp://localhost:9", "tcp://[::1]:9", "http://127.0.0.2:9"])
    def test_on_this_machine_there_is_nobody_on_the_way(self, host: str) -> None:
        client.check_host(host)

    @pytest.mark.parametrize("host", ["https://192.0.2.7:2376", "ssh://ada@inst.example", "unix:///x"])
    def test_what_is_secured_by_itself_needs_no_variable(self, host: str) -> None:
        client.check_host(host)

    def test_with_tls_it_is_spoken_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        client.check_host("tcp://192.0.2.7:2376")


class TestCommands:
    """The same through `gridup`: an exit code, words and no traceback."""

    @staticmethod
    def found(inside: Inside) -> tuple[bool | None, str]:
        row = next(row for row in inside("doctor", "--json").json if row["name"] == "Docker")
        return row["ok"], row["detail"]

    @pytest.mark.parametrize(
        ("host", "said"),
        [
            ("unix:///nope", "Docker is not running: nothing answers at unix:///nope."),
            ("nonsense://x", "DOCKER_HOST=nonsense://x is not the address of a daemon."),
            ("tcp://[::1", "DOCKER_HOST=tcp://[::1 is not the address of a daemon."),
            (
                "ssh://-oX=1",
                "DOCKER_HOST=ssh://-oX=1 is not the address of a daemon: '-oX=1' can't be a host.",
            ),
        ],
    )
    def test_a_deploy_says_what_is_wrong_before_anything_is_made(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, host: str, said: str
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", host)
        ended = inside("deploy", "Inst", "--cloud", "docker", "--no-wait")
        assert ended.code == 1
        assert f"Error: {said}" in ended.err
        assert "Traceback" not in ended.err
        assert inside.engine.calls == []
        ok, detail = self.found(inside)
        assert ok is None
        assert said in detail

    def test_a_context_that_is_not_there_is_named_by_a_deploy_and_by_doctor(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_CONTEXT", "gone")
        ended = inside("deploy", "Inst", "--cloud", "docker", "--no-wait")
        assert ended.code == 1
        assert "There is no Docker context 'gone'." in ended.err
        assert "There is no Docker context 'gone'." in self.found(inside)[1]

    @pytest.mark.parametrize("version", ODD_VERSIONS)
    def test_doctor_shows_a_daemons_version_however_odd(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, version: str
    ) -> None:
        with serve(always(json_reply({"ApiVersion": "1.43", "Version": version}))) as server:
            monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.port}")
            ok, detail = self.found(inside)
        assert (ok, detail) == (
            True,
            f"{version or 'a version that it does not tell'} at {os.environ['DOCKER_HOST']}",
        )

    def test_doctor_survives_a_daemon_that_fails_after_its_first_word(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serve(
            lambda sock, path: sock.sendall(
                json_reply({"ApiVersion": "1.43"}) if path == "/version" else reply(500, b"broken")
            )
        ) as server:
            monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.port}")
            ok, detail = self.found(inside)
        assert ok is None
        assert "500" in detail or "broken" in detail

    @pytest.mark.tier("gate")
    @pytest.mark.parametrize("version", ODD_VERSIONS)
    def test_what_the_docker_program_prints_is_nothing_to_us(
        self,
        inside: Inside,
        docker_host: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        version: str,
    ) -> None:
        shim = tmp_path / "bin" / "docker"
        shim.parent.mkdir()
        shim.write_text(f"#!/bin/sh\necho '{version}'\n")
        shim.chmod(0o755)
        monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("DOCKER_HOST", docker_host)
        ok, detail = self.found(inside)
        assert ok is True
        assert detail.endswith(f" at {docker_host}")
        target = DockerTarget()
        target.preflight(target.resolve(DeploySpec(name="Inst", target="docker").with_new_id(), None), None)


class TestWhichDaemon:
    """DOCKER_HOST, then the person's context, then the default."""

    @pytest.fixture(autouse=True)
    def _configuration(self, tmp_path: Path) -> None:
        (tmp_path / ".docker").mkdir()
        self.file = tmp_path / ".docker" / "config.json"
        self.file.write_text("{}")

    def use(self, context: str) -> None:
        self.file.write_text(json.dumps({"currentContext": context}))

    def lay_context(self, host: str) -> None:
        """A context in use, as the `docker` program writes it."""
        ContextAPI.create_context("there", host="unix:///other")
        (meta,) = (self.file.parent / "contexts").rglob("meta.json")
        told = json.loads(meta.read_text())
        told["Endpoints"]["docker"]["Host"] = host
        meta.write_text(json.dumps(told))
        self.use("there")

    def test_the_default_where_nothing_is_said(self) -> None:
        assert chosen_host() == "unix:///var/run/docker.sock"
        self.file.unlink()
        assert chosen_host() == "unix:///var/run/docker.sock"

    def test_the_variable_wins_over_a_context_and_a_named_context_over_the_current_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ContextAPI.create_context("current", host="unix:///current.sock")
        ContextAPI.create_context("named", host="unix:///named.sock")
        self.use("current")
        assert chosen_host() == "unix:///current.sock"
        monkeypatch.setenv("DOCKER_CONTEXT", "named")
        assert chosen_host() == "unix:///named.sock"
        monkeypatch.setenv("DOCKER_CONTEXT", "default")
        assert chosen_host() == "unix:///var/run/docker.sock"
        monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.7:2375")
        assert chosen_host() == "tcp://192.0.2.7:2375"

    @pytest.mark.parametrize("host", ["unix:///run/x.sock", "tcp://192.0.2.7:2376", "ssh://ada@inst.example"])
    def test_a_contexts_address_is_taken_as_the_docker_program_wrote_it(self, host: str) -> None:
        self.lay_context(host)
        assert chosen_host() == host

    def test_the_daemon_of_a_context_is_not_spoken_to_without_tls_either(self) -> None:
        self.lay_context("tcp://192.0.2.7:2375")
        assert "without TLS" in refusal(chosen_host()).message

    @pytest.mark.parametrize("how", ["named", "current"])
    def test_a_context_that_is_not_there_is_an_error_and_not_the_default(
        self, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if how == "named":
            monkeypatch.setenv("DOCKER_CONTEXT", "gone")
        else:
            self.use("gone")
        with pytest.raises(UnreachableError, match="There is no Docker context 'gone'"):
            chosen_host()

    def test_a_configuration_that_is_broken_is_no_crash(self) -> None:
        ContextAPI.create_context("there", host="unix:///other")
        (meta,) = (self.file.parent / "contexts").rglob("meta.json")
        meta.write_text("{")
        self.use("there")
        with pytest.raises(UnreachableError, match="Docker's configuration can't be read"):
            chosen_host()

    def test_a_node_remembers_its_daemon_until_the_variable_names_another(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target, spec = DockerTarget(), DeploySpec(name="Inst", target="docker")
        first = target.resolve(spec, None)
        assert first.host == "unix:///var/run/docker.sock"
        ContextAPI.create_context("current", host="unix:///current.sock")
        self.use("current")
        assert target.resolve(spec, first).host == first.host
        monkeypatch.setenv("DOCKER_HOST", "unix:///named.sock")
        assert target.resolve(spec, first).host == "unix:///named.sock"


@pytest.mark.parametrize(
    ("host", "here", "address"),
    [
        ("unix:///var/run/docker.sock", True, "127.0.0.1"),
        ("npipe:////./pipe/docker_engine", True, None),
        ("tcp://127.0.0.1:2375", True, "127.0.0.1"),
        ("tcp://localhost:2375", True, "localhost"),
        ("tcp://[::1]:2375", True, "::1"),
        ("tcp://192.0.2.7:2376", False, "192.0.2.7"),
        ("https://Docker.Inst.Example:2376", False, "docker.inst.example"),
        ("tcp://[2001:db8::7]:2376", False, "2001:db8::7"),
    ],
)
def test_where_a_daemon_publishes_its_ports(host: str, here: bool, address: str | None) -> None:
    assert is_local(host) is here
    if address:
        assert address_of(host) == address


def test_an_address_of_here_alone_is_refused_for_a_daemon_elsewhere() -> None:
    spec = DeploySpec(name="Inst", target="docker", host="https://192.0.2.7:2376", bind="127.0.0.1")
    with pytest.raises(PreflightError, match=r"its 127\.0\.0\.1 can't be reached from here") as caught:
        DockerTarget().preflight(spec, None)
    assert "--bind" in caught.value.suggestion


class TestBuildArguments:
    """The person's own mirrors and proxies reach the build."""

    def test_nothing_is_said_where_nothing_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "")
        assert build_arguments() == {}

    @pytest.mark.parametrize(
        ("ours", "theirs"), [(ours, one) for ours, all_ in MIRRORS.items() for one in all_]
    )
    def test_a_mirror_is_handed_on(self, monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str) -> None:
        monkeypatch.setenv(theirs, "https://mirror.example/simple")
        assert build_arguments()[ours] == "https://mirror.example/simple"

    def test_uvs_own_variable_wins_over_pips_for_uv_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/")
        monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/")
        assert build_arguments() == {
            "PIP_INDEX_URL": "https://pip.example/",
            "UV_DEFAULT_INDEX": "https://uv.example/",
        }

    @pytest.mark.parametrize("name", [*PROXIES, *(name.lower() for name in PROXIES)])
    def test_a_proxy_is_handed_on_as_it_is_written(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv(name, "http://proxy.example:3128")
        assert build_arguments() == {name: "http://proxy.example:3128"}

    def test_no_other_variable_leaks_into_the_build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_PASSWORD", "s3cret")
        monkeypatch.setenv("UV_PUBLISH_TOKEN", "s3cret")
        assert build_arguments() == {}
