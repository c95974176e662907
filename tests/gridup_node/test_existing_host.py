"""What the program for machines that exist understands, on the files of a made-up one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup_node import kept
from gridup_node.vm import existing_host, user_data
from gridup_node.vm.docker_cli import Completed
from gridup_node.vm.existing_host import HostFacts, Request
from gridup_node.vm.machine import LOG, Config, Machine

TOLD = Request("inst", "0123456789abcdef", "Inst", "gridup", ports=(1,))

TRIXIE = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'
SSHD = "authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\npubkeyauthentication yes\n"

Make = Callable[..., HostFacts]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a machine that may be a node's, but for what is told."""

    def make(
        *,
        system: str = TRIXIE,
        systemd: bool = True,
        programs: dict[str, str] | None = None,
        kind: str = "x86_64",
    ) -> HostFacts:
        for name, text in {
            "etc/os-release": system,
            "proc/1/comm": "tini\n",
            "etc/machine-id": "1\n",
        }.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        for name in ("run", "var/lib", "proc/net"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        if systemd:
            (tmp_path / "run/systemd/system").mkdir(parents=True)
        monkeypatch.setattr(existing_host.platform, "machine", lambda: kind)
        monkeypatch.setattr(existing_host, "BUILD_BYTES", 1)
        told = {"sshd": SSHD, **(programs or {})}
        monkeypatch.setattr(
            existing_host.shutil, "which", lambda name: f"/usr/bin/{name}" if name in told else None
        )

        def run(argv: Any, **_: object) -> Completed:
            words = " ".join([Path(argv[0]).name, *argv[1:]])
            found = [text for begin, text in told.items() if words.startswith(begin)]
            return (
                Completed(0, found[-1])
                if found and found[-1] != FAILS
                else Completed(1, "it does not answer")
            )

        monkeypatch.setattr(existing_host, "run", run)
        return HostFacts(tmp_path, run)

    return make


FAILS = "fails"
DOCKER = {"docker": "", "docker version": "28.1.1", "docker compose": "v2", "docker buildx": "v0.20"}


def problems(here: HostFacts, told: Request = TOLD) -> list[str]:
    return [one["message"] for one in existing_host.inspect(here, told)["problems"]]


def test_nothing_speaks_against_a_plain_debian(here: Make) -> None:
    found = existing_host.inspect(here(), TOLD)
    assert found["problems"] == []
    assert found["mark"] is None


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"systemd": False}, "systemd does not run the machine (its first process is tini)"),
        ({"kind": "riscv64"}, "its processor is of the kind riscv64"),
        (
            {"system": 'ID=fedora\nVERSION_ID=42\nPRETTY_NAME="Fedora 42"\n'},
            "Fedora 42, which Gridup does not know",
        ),
        (
            {"system": 'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian 11"\n'},
            "Debian 11, which Gridup does not",
        ),
        (
            {"system": 'ID=ubuntu\nVERSION_ID="20.04"\nPRETTY_NAME="Ubuntu 20"\n'},
            "Ubuntu 20, which Gridup does not",
        ),
        ({"system": 'ID=debian\nPRETTY_NAME="Debian sid"\n'}, "Debian sid, which Gridup does not know"),
        (
            {"system": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n'},
            "Debian 12 has no Docker with compose v2 among its packages",
        ),
        ({"programs": {**DOCKER, "docker version": FAILS}}, "its Docker does not answer: it does not answer"),
        (
            {"programs": {**DOCKER, "docker info": '["name=seccomp,profile=builtin","name=userns"]'}},
            "its Docker has user namespaces (userns-remap)",
        ),
        ({"programs": {**DOCKER, "docker compose": FAILS}}, "its Docker has no compose plugin"),
        ({"programs": {**DOCKER, "docker buildx": FAILS}}, "its Docker has no buildx plugin"),
        ({"programs": {**DOCKER, "docker ps --all": "a b"}}, "a compose project gridup that is not Gridup's"),
        ({"programs": {**DOCKER, "docker ps --filter": "shop"}}, "port 1 is taken by the container shop"),
        (
            {"programs": {"sshd": f"{SSHD}allowusers ada bob\n"}},
            "would not let the node's user gridup in by key",
        ),
        ({"programs": {"sshd": f"{SSHD}allowgroups wheel\n"}}, "AllowGroups wheel"),
        ({"programs": {"sshd": "authorizedkeysfile /etc/keys/%u\n"}}, "AuthorizedKeysFile /etc/keys/%u"),
    ],
)
def test_each_thing_in_the_way_is_told(
    here: Make, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr(existing_host, "_is_name", lambda _find, name="": name == "docker")
    (one,) = existing_host.inspect(here(**told), TOLD)["problems"]
    assert why in one["message"]
    assert one["suggestion"]


@pytest.mark.parametrize("version", ["22.04", "24.04", "26.04"])
def test_ubuntu_is_known(here: Make, version: str) -> None:
    assert problems(here(system=f'ID=ubuntu\nVERSION_ID="{version}"\n')) == []


def test_other_settings_of_its_docker_are_its_own(here: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing_host, "_is_name", lambda _find, name="": name == "docker")
    assert problems(here(programs={**DOCKER, "docker info": '["name=apparmor","name=cgroupns"]'})) == []


def test_a_docker_of_its_own_is_enough_on_debian_12(here: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing_host, "_is_name", lambda _find, name="": name == "docker")
    assert problems(here(system='ID=debian\nVERSION_ID="12"\n', programs=DOCKER)) == []


def test_another_stacks_machine_is_refused_by_its_name_and_ones_own_is_not(here: Make) -> None:
    machine = here()
    mark = machine.path(existing_host.MARK)
    mark.parent.mkdir(parents=True)
    mark.write_text(json.dumps({"stack_id": "other", "stack": "lab", "name": "Lab"}))
    (why,) = problems(machine)
    assert '"Lab" (stack lab)' in why
    mark.write_text(json.dumps({"stack_id": TOLD.stack_id, "stack": "inst", "name": "Inst"}))
    (machine.path(existing_host.MOUNT) / "node").mkdir(parents=True)
    assert problems(machine) == []


def test_a_node_that_moves_to_a_machine_that_is_not_its_own_is_refused(here: Make) -> None:
    told = Request(TOLD.stack, TOLD.stack_id, TOLD.name, TOLD.project, must_be_ours=True)
    (why,) = problems(here(), told)
    assert 'does not hold the node "Inst"' in why


SINCE = "2026-11-29T10:11:12.000000+00:00"
LEFT = {"stack": "inst", "name": "Inst", "since": SINCE, "size": 5, "admin_email": "ada@inst.example"}


def lay_kept(machine: HostFacts | Machine, note: dict[str, Any] | None = None) -> None:
    (machine.path(existing_host.MOUNT) / "node").mkdir(parents=True)
    (machine.path(existing_host.MOUNT) / "node" / "db").write_text("12345")
    if note:
        machine.path(f"{existing_host.MOUNT}/{kept.NOTE}").write_text(json.dumps(note))


@pytest.mark.parametrize(
    ("note", "chosen", "why"),
    [
        (None, {}, "/var/lib/gridup holds files."),
        ({**LEFT, "stack": "lab", "name": "Lab"}, {}, 'holds the data of "Lab", which was kept.'),
        (
            {**LEFT, "stack": "lab", "name": "Lab"},
            {"adopted": SINCE},
            'holds the data of "Lab", which was kept.',
        ),
        (LEFT, {}, 'holds the data that an earlier "Inst" has left.'),
        (LEFT, {"adopted": "2026-11-30"}, 'holds the data that an earlier "Inst" has left.'),
        (LEFT, {"adopted": SINCE}, ""),
        (LEFT, {"new_data": True}, ""),
    ],
)
def test_data_that_are_there_are_taken_over_by_their_own_name_alone_and_where_that_is_said(
    here: Make, note: dict[str, Any] | None, chosen: dict[str, Any], why: str
) -> None:
    machine = here()
    lay_kept(machine, note)
    found = problems(machine, replace(TOLD, **chosen))
    assert [why in line for line in found] == [True] * bool(why)


def test_a_look_tells_what_an_earlier_node_of_the_very_name_has_left(here: Make) -> None:
    machine = here()
    assert existing_host.inspect(machine, TOLD)["kept"] is None
    lay_kept(machine, LEFT)
    assert existing_host.inspect(machine, TOLD)["kept"] == LEFT
    assert existing_host.inspect(machine, replace(TOLD, name="inst"))["kept"] is None
    # As versions wrote it that took them over without a word.
    machine.path(f"{existing_host.MOUNT}/{kept.NOTE}").write_text(
        json.dumps({"stack": "inst", "name": "Inst"})
    )
    assert existing_host.inspect(machine, TOLD)["kept"]["since"].startswith("20")


class TestKept:
    """What becomes of the data, on a made-up machine."""

    @pytest.fixture
    def machine(self, tmp_path: Path) -> Machine:
        return Machine(Config(disk=()), tmp_path)

    def test_the_note_tells_what_the_next_node_goes_on_with(self, machine: Machine) -> None:
        lay_kept(machine)
        told = replace(TOLD, keep_data=True, admin_email="ada@inst.example", node_type="network")
        existing_host._leave_data(machine, told)
        note = kept.read(machine.path(existing_host.MOUNT))
        assert note is not None
        assert {**note, "since": ""} == {**LEFT, "node_type": "network", "since": ""}
        assert machine.path(f"{existing_host.MOUNT}/{kept.NOTE}").stat().st_mode & 0o077 == 0
        existing_host._leave_data(machine, told)
        assert kept.read(machine.path(existing_host.MOUNT)) == note, "they are the same data"

    def test_without_it_nothing_is_left(self, machine: Machine) -> None:
        lay_kept(machine)
        existing_host._leave_data(machine, TOLD)
        assert not machine.path(existing_host.MOUNT).exists()

    def test_until_the_node_was_healthy_with_them_whatever_ends_it_keeps_them(self, machine: Machine) -> None:
        lay_kept(machine, LEFT)
        existing_host.ensure_folder(machine, aside=False, adopting=True)
        existing_host._leave_data(machine, TOLD)
        assert kept.read(machine.path(existing_host.MOUNT)) == LEFT
        assert (machine.path(existing_host.MOUNT) / "node" / "db").exists()
        existing_host.ensure_folder(machine, aside=False, adopting=False)
        existing_host._leave_data(machine, TOLD)
        assert not machine.path(existing_host.MOUNT).exists()

    def test_who_wants_none_of_them_leaves_them_beside_the_nodes_own(self, machine: Machine) -> None:
        lay_kept(machine, LEFT)
        existing_host.ensure_folder(machine, aside=True, adopting=False)
        folder = machine.path(existing_host.MOUNT)
        assert list(folder.iterdir()) == []
        aside = folder.with_name("gridup.kept-20261129101112")
        assert kept.read(aside) == LEFT
        assert (aside / "node" / "db").exists()
        existing_host._leave_data(machine, TOLD)
        assert aside.exists()


UFW = "Status: active\nLogging: on (low)\nDefault: {} (incoming), allow (outgoing), deny (routed)"
NFT = "table inet f {{\n\tchain in {{\n\t\ttype filter hook input priority filter; policy {};\n{}\t}}\n}}"


@pytest.mark.parametrize(
    ("programs", "called"),
    [
        ({}, ""),
        ({"ufw": UFW.format("deny")}, "ufw"),
        ({"ufw": UFW.format("allow")}, ""),
        ({"ufw": "Status: inactive"}, ""),
        ({"firewall-cmd": "running"}, "firewalld"),
        ({"firewall-cmd": "not running"}, ""),
        ({"iptables": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT"}, "iptables' chain INPUT"),
        (
            {"iptables": "-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j DROP"},
            "iptables' chain INPUT",
        ),
        ({"iptables": "-P INPUT ACCEPT\n-A INPUT -s 192.0.2.1/32 -j DROP"}, ""),
        ({"nft": NFT.format("drop", "\t\ttcp dport 22 accept\n")}, "nftables"),
        (
            {"nft": NFT.format("accept", "\t\ttcp dport 22 accept\n\t\tcounter packets 1 bytes 2 drop\n")},
            "nftables",
        ),
        ({"nft": NFT.format("accept", "\t\ttcp dport 25 drop\n")}, ""),
    ],
)
def test_a_firewall_that_denies_by_default_is_told_of(
    here: Make, programs: dict[str, str], called: str
) -> None:
    assert existing_host.inspect(here(programs=programs), TOLD)["firewall"] == called


class TestKeyFrom:
    """The deployer's key lets in from some networks alone."""

    def coming(self, machine: HostFacts, connection: str) -> HostFacts:
        """Its login is two processes away, beyond sudo, which keeps that from what it runs."""
        parents = {os.getpid(): (40, ""), 40: (30, connection), 30: (1, "SSH_CONNECTION=192.0.2.1 1 b 22")}
        for pid, (parent, told) in parents.items():
            folder = machine.path(f"/proc/{pid}")
            folder.mkdir()
            (folder / "stat").write_text(f"{pid} (a) b) S {parent} 1 1\n")
            (folder / "environ").write_bytes(f"TERM=a\0{told}\0".encode())
        return machine

    @pytest.mark.parametrize(
        ("address", "refused"),
        [("203.0.113.9", False), ("2001:db8::7", False), ("198.51.100.1", True), ("fe80::1%eth0", True)],
    )
    def test_who_would_be_kept_out_is_told_before_it_is_laid(
        self, here: Make, address: str, refused: bool
    ) -> None:
        machine = self.coming(here(), f"SSH_CONNECTION={address} 40000 192.0.2.7 22")
        told = replace(TOLD, key_from=("203.0.113.0/24", "2001:db8::/32"))
        found = problems(machine, told)
        assert (
            found == [f"--key-from keeps out who deploys: to the machine, you come from {address}."] * refused
        )
        assert problems(machine) == []

    def test_where_a_login_comes_from_that_is_none_is_not_known(self, here: Make) -> None:
        assert problems(here(), replace(TOLD, key_from=("203.0.113.0/24",))) == []

    def test_the_same_key_is_let_in_by_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(existing_host, "_is_name", lambda _find, name="": True)
        monkeypatch.setattr(existing_host.os, "chown", lambda *_words: None)
        machine = Machine(Config(disk=()), tmp_path)
        file = machine.path(f"{existing_host.HOME}/.ssh/authorized_keys")
        file.parent.mkdir(parents=True)
        machine.path(LOG).parent.mkdir(parents=True)
        machine.path(LOG).touch()
        line = 'from="203.0.113.0/24" ssh-ed25519 A gridup'
        for wanted in ("ssh-ed25519 A gridup", line, line, "ssh-ed25519 A gridup"):
            file.write_text((file.read_text() if file.exists() else "") or "ssh-ed25519 B carol\n")
            existing_host.ensure_user(machine, wanted)
            assert file.read_text() == f"ssh-ed25519 B carol\n{wanted}\n"


def test_a_full_disk_is_told(here: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = here()
    monkeypatch.setattr(existing_host, "BUILD_BYTES", 1 << 60)
    (why,) = problems(machine)
    assert "GB free" in why


def test_who_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = existing_host.listeners(Path("/proc"))
        assert existing_host.program_of(Path("/proc"), found[port]).endswith(f"(process {os.getpid()})")
    assert port not in existing_host.listeners(Path("/proc"))


@pytest.mark.tier("gate")  # of a machine that has an sshd
def test_it_runs_from_its_input_alone_and_writes_no_file(tmp_path: Path) -> None:
    program = user_data.zipapp("gridup_node.vm.existing_host", existing_host.MODULES)
    argv = [sys.executable, "-I", "-B", "-c", existing_host.LOADER, str(len(program)), "inspect"]
    told = json.dumps({"stack": "inst", "stack_id": "0", "name": "Zoë's 😀", "project": "gridup"}).encode()
    ended = subprocess.run(argv, input=program + told, capture_output=True, cwd=tmp_path, timeout=60)
    assert ended.stderr == b""
    assert "problems" in json.loads(ended.stdout)["done"]
    assert list(tmp_path.iterdir()) == []


def test_root_s_lock_is_where_nobody_else_may_lay_a_link() -> None:
    """In /run/lock and /tmp, which are everybody's, a link of that name would lead root elsewhere."""
    assert Path(existing_host.LOCK).parent == Path("/run")


def test_what_a_step_says_reaches_the_deployer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    existing_host.Guest(tmp_path).log("step docker")
    assert json.loads(capsys.readouterr().out) == {"say": "step docker"}
