"""What can't be made a second time is on the disk, under its name, before anything relies on it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gridup.settings import Settings
from gridup_infra.paths import Home, write_private
from gridup_node import keys, secrets
from gridup_node.vm import store
from gridup_node.vm.machine import Config, Machine
from support.power_cut import Disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a descriptor's file is told by Linux alone")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_private_file(disk: Disk, tmp_path: Path) -> None:
    write_private(tmp_path / "key", b"k")
    assert disk.has(tmp_path / "key")


def test_the_passphrase(disk: Disk, tmp_path: Path) -> None:
    own = Settings(Home(tmp_path / "h"), {})
    own.ensure_state()
    assert disk.did[-1] == ("sync", own.home.root), "it gets its name by a link, after its bytes are there"
    assert own.home.passphrase.read_bytes()


def test_a_node_s_keys(disk: Disk, tmp_path: Path) -> None:
    def keygen(argv: list[str]) -> None:
        made = Path(argv[-1])
        made.write_text("private")
        made.with_suffix(".pub").write_text("ssh-ed25519 AAAA")

    keys.ensure(tmp_path, "Inst", (), run=keygen)
    for name in (*keys.PRIVATE, keys.AUTHORIZED, keys.KNOWN_HOSTS):
        assert disk.has(tmp_path / name), name
    for name in keys.PRIVATE:
        assert disk.has((tmp_path / name).with_suffix(".pub"))


def test_a_node_s_secret_that_a_full_disk_had_emptied(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / secrets.SERVER_KEY).touch()
    secrets.ensure(tmp_path)
    assert disk.has(tmp_path / secrets.SERVER_KEY)


def test_a_machine_s_files(disk: Disk, tmp_path: Path) -> None:
    Machine(Config(disk=()), tmp_path).write("/etc/gridup.conf", "x")
    assert disk.has(tmp_path / "etc/gridup.conf")
    store.write(tmp_path / "releases.json", b"{}")
    assert disk.has(tmp_path / "releases.json")
