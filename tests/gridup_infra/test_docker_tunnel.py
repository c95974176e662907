"""The tunnel to a daemon behind ssh: a real sshd, and at its end a socket that says what it hears."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from gridup_infra import openssh
from gridup_infra.processes import wait_until
from gridup_infra.targets.docker import client, tunnel
from gridup_infra.targets.docker.client import UnreachableError, address_of, connect, is_local
from gridup_infra.targets.docker.ssh_host import SOCKET, SshDockerHost
from gridup_infra.targets.docker.tunnel import Tunnel, tunnel_to
from support.ssh_rig import ELSEWHERE, HERE, Machine

pytestmark = [pytest.mark.tier("gate"), pytest.mark.timeout(180, func_only=True)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture
def person(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The machine, and us as the person who knows the way; nothing of it is left in this process."""
    monkeypatch.setenv("PATH", machine.path)
    tunnels: dict[SshDockerHost, Tunnel] = {}
    monkeypatch.setattr(tunnel, "_TUNNELS", tunnels)
    tunnel._host_name.cache_clear()
    yield machine
    for one in tunnels.values():
        one.close()
    tunnel._host_name.cache_clear()
    assert machine.nothing_runs()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


class Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 64


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


@pytest.fixture
def far(short: Path) -> Iterator[Path]:
    """A socket on the machine that sends back what it hears; its name needs care."""
    path = short / "it's 100%d"
    with Server(str(path), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield path
        server.shutdown()


def url(path: Path | str, host: str = "machine") -> str:
    return f"ssh://{host}{str(path).replace('%', '%25')}"


def echoed(path: Path, text: bytes = b"hello\n") -> bytes:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        probe.connect(str(path))
        probe.sendall(text)
        return probe.recv(100)


def refused(host: str) -> UnreachableError:
    """How `connect` fails there, which it does in time."""
    with pytest.raises(UnreachableError) as caught:
        connect(host)
    assert caught.value.suggestion
    return caught.value


class TestPlace:
    """What DOCKER_HOST may be."""

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("ssh://machine", SshDockerHost("machine")),
            ("ssh://Machine/", SshDockerHost("Machine")),
            ("ssh://ada@10.0.0.1:2222", SshDockerHost("10.0.0.1", "ada", 2222)),
            ("ssh://ada@[::1]:22/run/d.sock", SshDockerHost("::1", "ada", 22, "/run/d.sock")),
            ("ssh://corp%5Cada@h/a%20b%25", SshDockerHost("h", "corp\\ada", 0, "/a b%")),
            ("ssh://ada@corp@h", SshDockerHost("h", "ada@corp")),
        ],
    )
    def test_its_parts(self, text: str, place: SshDockerHost) -> None:
        assert SshDockerHost.parse(text) == place
        assert place.path if place.path != SOCKET else text.count("/") < 4

    @pytest.mark.parametrize(
        "text",
        [
            "ssh://",
            "ssh:///var/run/docker.sock",
            "ssh://-oProxyCommand=id",
            "ssh://-oProxyCommand=id/x",
            "ssh://$(id)",
            "ssh://a;id",
            "ssh://a b",
            "ssh://a\nb",
            "ssh://-l@h",
            "ssh://@h",
            "ssh://`id`@h",
            "ssh://a%20b@h",
            "ssh://h:port",
            "ssh://h:70000",
            "ssh://h/a:b",
            "ssh://h/${HOME}",
            "ssh://h/a%0Ab",
            "ssh://h/sock?x=y",
            "ssh://h/sock#x",
        ],
    )
    def test_what_openssh_could_take_for_something_else_is_refused(self, text: str) -> None:
        with pytest.raises(UnreachableError, match="is not the address of a daemon: ") as caught:
            connect(text)
        assert "ssh://[user@]host[:port]" in caught.value.suggestion
        assert "\n" not in caught.value.message

    def test_a_password_is_refused_and_not_shown(self) -> None:
        with pytest.raises(UnreachableError, match="logs in by key") as caught:
            connect("ssh://ada:s3cr:et@h")
        assert "s3cr" not in str(caught.value) and "et@" not in str(caught.value)

    def test_its_words_leave_nothing_to_be_taken_for_an_option(self) -> None:
        place = SshDockerHost("h", "ada", 2222)
        assert place.argv() == ["-p", "2222", "-l", "ada", "--", "h"]
        assert place.debug_command() == "ssh -p 2222 ada@h docker version"
        assert SshDockerHost("h").argv() == ["--", "h"]


class TestWhere:
    """Which machine it is, by the person's own settings."""

    @pytest.mark.parametrize(
        ("host", "here", "address"),
        [
            ("ssh://machine", True, HERE),
            ("ssh://localhost:2222", True, "localhost"),
            ("ssh://ada@[::1]", True, "::1"),
            ("ssh://elsewhere", False, ELSEWHERE),
            ("ssh://ada@node.example.org:22/x.sock", False, "node.example.org"),
        ],
    )
    def test_the_machine(self, person: Machine, host: str, here: bool, address: str) -> None:
        assert is_local(host) is here
        assert address_of(host) == address

    def test_without_ssh_it_is_what_was_given(
        self, person: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert address_of("ssh://Elsewhere") == "Elsewhere"
        assert not is_local("ssh://elsewhere")


class TestOpen:
    """A tunnel that works."""

    def test_it_goes_there_and_back_by_a_private_folder(self, person: Machine, far: Path) -> None:
        near = tunnel_to(url(far)).open()
        assert echoed(near) == b"hello\n"
        assert near.parent.stat().st_mode & 0o777 == 0o700
        assert len(str(near).encode()) <= 103

    def test_all_threads_share_one(self, person: Machine, far: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: tunnel_to(url(far)).open(), range(16)))
        assert len(set(found)) == 1
        assert len(person.clients()) == 1
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: echoed(found[0]), range(32))) == {b"hello\n"}

    def test_one_that_broke_is_dug_anew_and_leaves_nothing(self, person: Machine, far: Path) -> None:
        one = tunnel_to(url(far))
        first = one.open()
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
        assert wait_until(lambda: one.pid is None, timeout=120)
        second = tunnel_to(url(far)).open()
        assert echoed(second) == b"hello\n"
        assert second != first
        assert not first.parent.exists()
        assert len(person.clients()) == 1

    def test_one_whose_server_went_away_is_dug_anew(self, person: Machine, far: Path) -> None:
        one = tunnel_to(url(far))
        one.open()
        person.restart({})
        assert wait_until(lambda: one.pid is None, timeout=120)
        assert echoed(one.open()) == b"hello\n"

    def test_a_closed_one_leaves_nothing_and_opens_again(self, person: Machine, far: Path) -> None:
        one = tunnel_to(url(far))
        folder = one.open().parent
        one.close()
        assert not folder.exists()
        assert person.nothing_runs()
        assert echoed(one.open()) == b"hello\n"

    def test_a_long_or_odd_temporary_folder_does_not_matter(
        self, person: Machine, far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("long" * 40, "100%d"):
            folder = tmp_path / name
            folder.mkdir()
            monkeypatch.setattr("tempfile.tempdir", str(folder))
            one = tunnel_to(url(far))
            assert echoed(one.open()) == b"hello\n"
            one.close()

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
    def test_it_ends_with_us_however_we_end(
        self, person: Machine, far: Path, how: signal.Signals | None
    ) -> None:
        code = (
            "import sys, threading, time\n"
            "from gridup_infra.targets.docker.tunnel import tunnel_to\n"
            # A thread that ends is not us.
            "digger = threading.Thread(target=lambda: print(tunnel_to(sys.argv[1]).open(), flush=True))\n"
            "digger.start(); digger.join(); time.sleep(0.5); print(tunnel_to(sys.argv[1]).pid, flush=True)\n"
            "sys.stdin.read()\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", code, url(far)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        ) as run:
            assert run.stdout is not None and run.stdin is not None
            near = Path(run.stdout.readline().strip())
            pid = int(run.stdout.readline())
            assert echoed(near) == b"hello\n"
            if how is None:
                run.stdin.close()
            else:
                os.killpg(run.pid, how)
            run.wait(timeout=120)
        assert person.nothing_runs()
        assert wait_until(lambda: not psutil.pid_exists(pid), timeout=120)
        assert wait_until(lambda: not near.parent.exists(), timeout=120)


def test_the_command_that_is_told_works_by_hand(person: Machine, tmp_path: Path) -> None:
    stand_in = tmp_path / "docker"
    stand_in.write_text('#!/bin/sh\necho "it is $1"\n')
    stand_in.chmod(0o755)
    person.restart({"SetEnv": f"PATH={tmp_path}:/usr/bin:/bin"})
    words = shlex.split(SshDockerHost("machine", getpass.getuser(), person.port).debug_command())
    said = subprocess.run([*words[:1], "-oBatchMode=yes", *words[1:]], capture_output=True, text=True)
    person.restart({})
    assert said.stdout == "it is version\n", said.stderr


class TestRefused:
    """What a person is told when it does not work."""

    def test_no_ssh(self, person: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        error = refused("ssh://machine")
        assert "no `ssh` on this machine" in error.message
        assert "Install OpenSSH" in error.suggestion

    def test_no_such_name(self, person: Machine) -> None:
        error = refused("ssh://no-such-machine.invalid")
        assert "no-such-machine.invalid can't be reached by ssh: " in error.message
        assert "Could not resolve hostname" in error.message
        assert "~/.ssh/config" in error.suggestion

    def test_nobody_listens(self, person: Machine) -> None:
        with socket.socket() as taken:
            taken.bind((HERE, 0))
            error = refused(f"ssh://{HERE}:{taken.getsockname()[1]}")
        assert "Connection refused" in error.message
        assert "ssh://host:2222" in error.suggestion

    @pytest.mark.parametrize("ours", [False, True], ids=["openssh's limit", "our own"])
    def test_who_listens_and_never_speaks(
        self, person: Machine, monkeypatch: pytest.MonkeyPatch, ours: bool
    ) -> None:
        if ours:
            monkeypatch.setattr(tunnel, "TUNNEL_TIMEOUT", 1.0)
        else:
            monkeypatch.setattr(openssh, "OPTIONS", {**openssh.OPTIONS, "ConnectTimeout": "1"})
        with socket.create_server((HERE, 0)) as silent:
            error = refused(f"ssh://{HERE}:{silent.getsockname()[1]}")
        assert ("not within 1 s" if ours else "timed out") in error.message
        assert "Is the machine up" in error.suggestion

    def test_another_key_than_ours(self, person: Machine) -> None:
        error = refused(f"ssh://no-such-user@machine:{person.port}")
        assert "Permission denied (publickey)" in error.message
        hint = f"`ssh -p {person.port} no-such-user@machine docker version` must work without a question"
        assert hint in error.suggestion

    @pytest.mark.parametrize("known", [b"", None], ids=["unknown", "changed"])
    def test_a_host_key_that_is_not_the_known_one(
        self, person: Machine, known: bytes | None, tmp_path: Path
    ) -> None:
        before = person.known_hosts.read_bytes()
        other = person.folder.joinpath("id_ed25519.pub").read_bytes()
        person.known_hosts.write_bytes(
            b"[%s]:%d %s" % (HERE.encode(), person.port, other) if known is None else known
        )
        try:
            error = refused("ssh://machine")
        finally:
            person.known_hosts.write_bytes(before)
        assert "Host key verification failed" in error.message
        assert "`ssh machine docker version` once" in error.suggestion

    def test_no_socket_there(self, person: Machine, tmp_path: Path) -> None:
        error = refused(url(tmp_path / "it's none"))
        assert f"Docker is not running on machine: there is no {tmp_path}/it's none" in error.message
        assert len(person.clients()) == 1, "the tunnel itself is right"

    def test_a_socket_that_nobody_listens_at(self, person: Machine, short: Path) -> None:
        path = left_behind(short)
        error = refused(url(path))
        assert f"Docker is not running on machine: nothing answers at {path}" in error.message
        assert "systemctl start docker" in error.suggestion

    @pytest.mark.parametrize("closed", ["the socket", "its folder"])
    def test_a_socket_that_is_closed_to_the_user(self, person: Machine, short: Path, closed: str) -> None:
        (short / "run").mkdir()
        path = left_behind(short / "run")
        short.chmod(0o755)
        (path if closed == "the socket" else path.parent).chmod(0o600)
        if os.geteuid() == 0:
            if not shutil.which("setpriv"):
                pytest.skip("no setpriv (Debian's package util-linux)")
            # Root may do everything: so the machine is asked as somebody else.
            nobody = 'setpriv --reuid 65534 --clear-groups sh -c "$SSH_ORIGINAL_COMMAND"'
            person.restart({"ForceCommand": nobody})
        try:
            error = refused(url(path))
        finally:
            person.restart({})
        assert f"You have no permission to use Docker on machine: {path}" in error.message
        assert "group `docker`" in error.suggestion

    def test_a_server_that_forbids_tunnels(self, person: Machine, far: Path) -> None:
        person.restart({"AllowStreamLocalForwarding": "no"})
        try:
            error = refused(url(far))
        finally:
            person.restart({})
        assert "nothing answers at" in error.message
        assert "AllowStreamLocalForwarding yes" in error.suggestion

    def test_a_machine_where_no_command_can_be_run(self, person: Machine, tmp_path: Path) -> None:
        person.restart({"ForceCommand": "exit 99"})
        try:
            error = refused(url(tmp_path / "none"))
        finally:
            person.restart({})
        assert "is closed, or nothing answers there" in error.message

    def test_something_that_is_no_daemon(self, person: Machine, far: Path) -> None:
        error = refused(url(far))
        assert f"No Docker daemon answers at {far} of machine: " in error.message

    def test_something_that_never_answers(
        self, person: Machine, short: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "CONNECT_SECONDS", 1.0)
        path = short / "mute"
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(path))
            mute.listen()
            error = refused(url(path))
        assert "No Docker daemon answers" in error.message


def left_behind(folder: Path) -> Path:
    """The socket of a daemon that was killed."""
    path = folder / "left"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(path))
    return path
