"""What the program for machines that exist understands, on the files of a made-up one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gridup_node.vm import guest, user_data
from gridup_node.vm.engine import Done
from gridup_node.vm.guest import Here, Told

TOLD = Told("inst", "0123456789abcdef", "Inst", "gridup", ports=(1,))

TRIXIE = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'
SSHD = "authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\npubkeyauthentication yes\n"

Make = Callable[..., Here]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a machine that may be a node's, but for what is told."""

    def make(
        *,
        system: str = TRIXIE,
        systemd: bool = True,
        programs: dict[str, str] | None = None,
        kind: str = "x86_64",
    ) -> Here:
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
        monkeypatch.setattr(guest.platform, "machine", lambda: kind)
        monkeypatch.setattr(guest, "BUILD_BYTES", 1)
        told = {"sshd": SSHD, **(programs or {})}
        monkeypatch.setattr(guest.shutil, "which", lambda name: f"/usr/bin/{name}" if name in told else None)

        def run(argv: Any, **_: object) -> Done:
            words = " ".join([Path(argv[0]).name, *argv[1:]])
            found = [text for begin, text in told.items() if words.startswith(begin)]
            return Done(0, found[-1]) if found and found[-1] != FAILS else Done(1, "it does not answer")

        monkeypatch.setattr(guest, "run", run)
        return Here(tmp_path, run)

    return make


FAILS = "fails"
DOCKER = {"docker": "", "docker version": "28.1.1", "docker compose": "v2", "docker buildx": "v0.20"}


def problems(here: Here, told: Told = TOLD) -> list[str]:
    return [one["message"] for one in guest.look(here, told)["problems"]]


def test_nothing_speaks_against_a_plain_debian(here: Make) -> None:
    found = guest.look(here(), TOLD)
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
    monkeypatch.setattr(guest, "_is_name", lambda _find, name="": name == "docker")
    (one,) = guest.look(here(**told), TOLD)["problems"]
    assert why in one["message"]
    assert one["suggestion"]


@pytest.mark.parametrize("version", ["22.04", "24.04", "26.04"])
def test_ubuntu_is_known(here: Make, version: str) -> None:
    assert problems(here(system=f'ID=ubuntu\nVERSION_ID="{version}"\n')) == []


def test_a_docker_of_its_own_is_enough_on_debian_12(here: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_is_name", lambda _find, name="": name == "docker")
    assert problems(here(system='ID=debian\nVERSION_ID="12"\n', programs=DOCKER)) == []


def test_another_stacks_machine_is_refused_by_its_name_and_ones_own_is_not(here: Make) -> None:
    machine = here()
    mark = machine.path(guest.MARK)
    mark.parent.mkdir(parents=True)
    mark.write_text(json.dumps({"stack_id": "other", "stack": "lab", "name": "Lab"}))
    (why,) = problems(machine)
    assert '"Lab" (stack lab)' in why
    mark.write_text(json.dumps({"stack_id": TOLD.stack_id, "stack": "inst", "name": "Inst"}))
    (machine.path(guest.MOUNT) / "node").mkdir(parents=True)
    assert problems(machine) == []


def test_a_node_that_moves_to_a_machine_that_is_not_its_own_is_refused(here: Make) -> None:
    told = Told(TOLD.stack, TOLD.stack_id, TOLD.name, TOLD.project, must_be_ours=True)
    (why,) = problems(here(), told)
    assert 'does not hold the node "Inst"' in why


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (None, ["/var/lib/gridup holds files."]),
        ({"stack": "lab", "name": "Lab"}, ['/var/lib/gridup holds the data of "Lab", which was kept.']),
        ({"stack": "inst", "name": "Inst"}, []),
    ],
)
def test_data_that_is_there_is_taken_over_by_its_own_name_alone(
    here: Make, kept: dict[str, str] | None, why: list[str]
) -> None:
    machine = here()
    (machine.path(guest.MOUNT) / "node").mkdir(parents=True)
    if kept:
        machine.path(guest.KEPT).write_text(json.dumps(kept))
    assert problems(machine) == why


def test_a_full_disk_is_told(here: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = here()
    monkeypatch.setattr(guest, "BUILD_BYTES", 1 << 60)
    (why,) = problems(machine)
    assert "GB free" in why


def test_who_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = guest.listeners(Path("/proc"))
        assert guest.program_of(Path("/proc"), found[port]).endswith(f"(process {os.getpid()})")
    assert port not in guest.listeners(Path("/proc"))


@pytest.mark.tier("gate")  # of a machine that has an sshd
def test_it_runs_from_its_input_alone_and_writes_no_file(tmp_path: Path) -> None:
    program = user_data.packed("gridup_node.vm.guest", [f"vm/{name}" for name in guest.MODULES])
    argv = [sys.executable, "-I", "-B", "-c", guest.LOADER, str(len(program)), "look"]
    told = json.dumps({"stack": "inst", "stack_id": "0", "name": "Zoë's 😀", "project": "gridup"}).encode()
    ended = subprocess.run(argv, input=program + told, capture_output=True, cwd=tmp_path, timeout=60)
    assert ended.stderr == b""
    assert "problems" in json.loads(ended.stdout)["done"]
    assert list(tmp_path.iterdir()) == []
