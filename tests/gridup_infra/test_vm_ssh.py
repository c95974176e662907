"""Into a machine: a real sshd, and an asyncssh that must never wait without a limit."""

from __future__ import annotations

import getpass
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gridup_infra.errors import ResourceError
from gridup_infra.processes import run, wait_until
from gridup_infra.vm import keys
from gridup_infra.vm.ssh import (
    KILL_ON_DISCONNECT,
    HostKeyError,
    Session,
    SshEndpoint,
    SshUnreachableError,
    ssh_session,
)
from gridup_node.vm.user_data import public_key
from support.ssh_rig import HERE, Machine

pytestmark = [pytest.mark.tier("gate"), pytest.mark.timeout(180, func_only=True)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("sshd")) as made:
        yield made


@pytest.fixture(scope="module")
def door(machine: Machine) -> SshEndpoint:
    return door_of(machine)


def door_of(machine: Machine) -> SshEndpoint:
    """With the host key pinned."""
    host_key = " ".join((machine.folder / "host_ed25519.pub").read_text().split()[:2])
    key = (machine.folder / "id_ed25519").read_text()
    return SshEndpoint(HERE, key, host_key, getpass.getuser(), machine.port)


@pytest.fixture
def session(door: SshEndpoint) -> Iterator[Session]:
    with ssh_session(door, timeout=20) as made:
        yield made


def test_a_key_of_ours_is_one_that_every_tool_takes(tmp_path: Path) -> None:
    private, public = keys.new_key()
    assert public_key(public) == public
    assert public.startswith("ssh-ed25519 ")
    assert public.endswith(" gridup")
    assert private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(private)
    assert run(["ssh-keygen", "-y", "-f", file], timeout=10).stdout.strip() == public
    assert keys.new_key()[0] != private


def test_the_key_is_shown_nowhere(door: SshEndpoint) -> None:
    assert "PRIVATE" not in repr(door)


class TestEntering:
    """Logging in."""

    def test_the_host_key_is_known_after_the_first_contact(self, door: SshEndpoint) -> None:
        with ssh_session(replace(door, host_key=""), timeout=20) as session:
            assert session.host_key == door.host_key

    def test_another_host_key_is_refused_at_once(self, door: SshEndpoint) -> None:
        _, other = keys.new_key()
        with (
            pytest.raises(HostKeyError, match="not the one that was pinned at first contact") as caught,
            ssh_session(replace(door, host_key=other, name="My Lab"), timeout=600),
        ):
            pass
        assert "`gridup deploy --name 'My Lab' --new-machine` makes another" in caught.value.suggestion

    def test_a_machine_that_comes_up_late_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        late, attempts, connect = Machine(tmp_path), itertools.count(1), Session._connect
        said: list[str] = []

        def attempt(session: Session, way: Sequence[str], timeout: float) -> None:
            if next(attempts) == 3:
                late.start()
            connect(session, way, timeout)

        monkeypatch.setattr(Session, "_connect", attempt)
        try:
            with ssh_session(door_of(late), timeout=120, say=said.append) as session:
                assert session.run(["true"], timeout=60).ok
        finally:
            late.stop()
        assert any("refused" in line for line in said), said
        assert len(said) == len(set(said))

    def test_the_limit_holds_and_the_reason_is_told(self, door: SshEndpoint) -> None:
        with socket.socket() as probe:
            probe.bind((HERE, 0))
            closed = replace(door, port=probe.getsockname()[1])
        with pytest.raises(SshUnreachableError) as caught, ssh_session(closed, timeout=2):
            pass
        assert f"{HERE} could not be entered by ssh within 2 s" in caught.value.message
        assert "refused" in caught.value.message
        assert "--allow-cidr" in caught.value.suggestion

    def test_one_that_takes_the_call_and_says_nothing_does_not_hold_us(self, door: SshEndpoint) -> None:
        with socket.socket() as mute:
            mute.bind((HERE, 0))
            mute.listen()
            silent = replace(door, port=mute.getsockname()[1])
            with pytest.raises(SshUnreachableError, match="no answer"), ssh_session(silent, timeout=2):
                pass

    def test_a_key_that_is_not_accepted_is_said(self, door: SshEndpoint) -> None:
        private, _ = keys.new_key()
        with (
            pytest.raises(SshUnreachableError, match="the deployment's key is not accepted"),
            ssh_session(replace(door, key=private), timeout=60, retry_auth=False),
        ):
            pass

    def test_nothing_of_the_persons_own_is_read(
        self, door: SshEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "config").write_text("Host *\n  Port 1\n  User nobody\n  ProxyCommand false\n")
        (tmp_path / ".ssh" / "known_hosts").write_text(f"[{HERE}]:{door.port} {keys.new_key()[1]}\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "no-agent"))
        with ssh_session(door, timeout=10) as session:
            assert session.run(["id", "-un"], timeout=10).stdout.strip() == getpass.getuser()

    def test_no_thread_stays(self, door: SshEndpoint) -> None:
        before = threading.active_count()
        for _ in range(3):
            with ssh_session(door, timeout=10):
                pass
        assert threading.active_count() == before


class TestRunning:
    """Commands on the machine."""

    @pytest.mark.parametrize("word", ["a  b", "it's", "$HOME", "`id`", "*", "", "a;b", "ü\n\\", "--", '"'])
    def test_every_word_arrives_as_it_is(self, session: Session, word: str) -> None:
        assert session.run(["printf", "<%s>", word], timeout=10).stdout == f"<{word}>"

    def test_code_output_and_errors_come_back(self, session: Session) -> None:
        done = session.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=10)
        assert (done.code, done.stdout, done.stderr) == (7, "out\n", "err\n")
        assert session.run(["sh", "-c", "kill -9 $$"], timeout=10).code == -9

    def test_input_arrives_whole(self, session: Session) -> None:
        data = os.urandom(3_000_000)
        done = session.run(["sha256sum"], timeout=30, input=data)
        assert done.stdout.split()[0] == run(["sha256sum"], timeout=10, input=data).stdout.split()[0]

    def test_one_that_does_not_read_its_input_ends_as_it_likes(self, session: Session) -> None:
        assert session.run(["true"], timeout=20, input=b"x" * 3_000_000).code == 0

    def test_one_that_takes_too_long_is_left(self, session: Session) -> None:
        with pytest.raises(TimeoutError, match="sleep did not end within 1 s"):
            session.run(["sleep", "600"], timeout=1)
        assert session.run(["echo", "still here"], timeout=10).stdout == "still here\n"

    def test_lines_come_as_they_are_written(self, session: Session, tmp_path: Path) -> None:
        seen: list[str] = []
        heard = tmp_path / "heard"

        def hear(line: str) -> None:
            # The second line comes only once the first has been handed over.
            seen.append(line)
            heard.touch()

        script = 'echo one; until [ -e "$0" ]; do sleep 0.05; done; echo two; cat'
        session.stream(["sh", "-c", script, str(heard)], hear, timeout=20, input=b"in\n")
        assert seen == ["one", "two", "in"]

    def test_a_file_is_written_whole_and_is_its_owners_alone(self, session: Session, tmp_path: Path) -> None:
        path = tmp_path / "a b" / "it's"
        session.put(str(path), b"\0one", timeout=10)
        session.put(str(path), b"\0two", timeout=10)
        assert path.read_bytes() == b"\0two"
        assert path.stat().st_mode & 0o777 == 0o600
        assert [one.name for one in path.parent.iterdir()] == [path.name]

    def test_a_file_that_cannot_be_written_is_said(self, session: Session) -> None:
        with pytest.raises(ResourceError, match="/proc/nowhere/x could not be written on the machine"):
            session.put("/proc/nowhere/x", b"", timeout=10)

    def test_several_programs_are_followed_side_by_side(self, session: Session, tmp_path: Path) -> None:
        heard = tmp_path / "heard"
        script = 'echo "$0 1"; until [ -e "$1" ]; do sleep 0.05; done; echo "$0 2"; echo bad >&2'
        found: list[tuple[str, str]] = []
        for item in session.follow({name: ["sh", "-c", script, name, str(heard)] for name in ("a", "b")}):
            found.append(item)
            if len(found) == 2:
                # Neither goes on before the first line of both has been handed over.
                heard.touch()
        assert sorted(found[:2]) == [("a", "a 1"), ("b", "b 1")]
        assert [line for name, line in found if name == "a"] == ["a 1", "a 2", "bad"]

    def test_who_has_seen_enough_leaves_at_once(self, door: SshEndpoint) -> None:
        with ssh_session(door, timeout=10) as session:
            lines = session.follow({"a": ["sh", "-c", "echo first; exec sleep 600"]})
            assert next(lines) == ("a", "first")

    def test_what_is_followed_ends_there_when_we_leave(self, door: SshEndpoint, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        with ssh_session(door, timeout=10) as session:
            argv = [*KILL_ON_DISCONNECT, "sh", "-c", f"echo $$ >{pid}; echo up; exec sleep 600"]
            assert next(session.follow({"a": argv})) == ("a", "up")
        other = Path(f"/proc/{pid.read_text().strip()}")
        assert wait_until(lambda: not other.exists(), timeout=10)

    def test_what_is_followed_and_ends_by_itself_is_over(self, session: Session) -> None:
        assert list(session.follow({"a": [*KILL_ON_DISCONNECT, "echo", "a  b"]})) == [("a", "a  b")]

    def test_a_connection_that_breaks_off_is_said(self, tmp_path: Path) -> None:
        with Machine(tmp_path) as machine, ssh_session(door_of(machine), timeout=20) as session:
            cut = threading.Timer(1, machine.stop)
            cut.start()
            with pytest.raises(SshUnreachableError, match="broke off"):
                session.run(["sleep", "30"], timeout=20)
            cut.join()
            assert wait_until(lambda: not cut.is_alive(), timeout=5)

    def test_openssh_says_the_host_key_as_we_do(self, machine: Machine, door: SshEndpoint) -> None:
        argv = ["ssh-keyscan", "-t", "ed25519", "-p", str(machine.port), HERE]
        told = subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout
        assert door.host_key in told
