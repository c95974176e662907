"""Who may enter a machine with a key of their own, and without rights: as its own program keeps it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gridup_node.vm import people
from gridup_node.vm.docker_cli import Completed, Failed
from gridup_node.vm.people import ALLOWED, SSHD, SSHD_OURS, UID, USER, People, in_the_way

ADA, BOB = "ssh-ed25519 AAAA ada", "ssh-ed25519 BBBB bob"


class Machine:
    """Stands for the programs that a machine's users and sshd are looked at and changed by.

    Attributes:
        users: the ids of those there are.
        keys: of `USER`.
        groups: that `USER` is in.
        sshd: what it tells of its settings.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users: dict[str, int] = {"gridup": 10001}
        self.keys: str | None = None
        self.groups = [USER]
        self.sshd = "pubkeyauthentication yes"
        self.calls: list[list[str]] = []
        self.people = People(folder, self.run)

    def run(self, argv: Sequence[str], **more: Any) -> Completed:
        self.calls.append(list(argv))
        words = [word for word in argv if word not in ("sudo", "--non-interactive")]
        if words[0] == "getent":
            rows = [f"{name}:x:{uid}:" for name, uid in self.users.items() if words[2] in (name, str(uid))]
            return Completed(0 if rows else 2, "\n".join(rows))
        if words[0] == "id":
            return Completed(0, " ".join(self.groups))
        if words[0] == "useradd":
            assert "--uid=10003" in words and "--user-group" in words
            self.users[USER] = UID
        elif words[0] == "usermod":
            self.groups = [USER]
        elif words[0] == f"--user={USER}" and words[1] == "head":
            return Completed(1, "no such file") if self.keys is None else Completed(0, self.keys)
        elif words[0] == f"--user={USER}":
            self.keys = more["input"].decode()
        elif words[0] == "install":
            Path(words[-1]).write_bytes(more["input"])
        elif words[1:2] == ["-T"]:
            return Completed(0, self.sshd)
        return Completed(0, "")

    def changes(self) -> list[str]:
        """What was changed, by the program's name."""
        seen = ("getent", "id", "head", "-T")
        words = [[word for word in call if word[0] != "-" or word == "-T"] for call in self.calls]
        return [next(w for w in call if w != "sudo") for call in words if not set(seen) & set(call)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_where_nobody_has_a_key_of_their_own_nothing_is_made(machine: Machine) -> None:
    machine.people.lay(())
    assert machine.users == {"gridup": 10001}
    assert machine.changes() == []
    # Somebody else's user of that name is no trouble either.
    machine.users[USER] = 1000
    assert machine.people.problems(()) == []


def test_keys_are_let_in_as_a_user_of_their_own_and_taken_away_again(machine: Machine) -> None:
    machine.people.lay((ADA, BOB))
    assert machine.users[USER] == UID
    assert machine.keys == f"{ADA}\n{BOB}\n"
    machine.calls.clear()
    machine.people.lay((BOB, ADA))
    assert machine.changes() == []
    machine.people.lay((BOB,))
    assert machine.keys == f"{BOB}\n"
    machine.people.lay(())
    assert machine.keys == ""
    assert machine.people.problems(()) == []


def test_a_key_or_a_group_that_was_added_by_hand_is_seen_and_taken_away(machine: Machine) -> None:
    machine.people.lay((ADA,))
    machine.keys, machine.groups = f"{ADA}\nssh-ed25519 EVIL x\n", [USER, "docker"]
    seen = machine.people.problems((ADA,))
    assert seen == [
        f"ssh: the keys of who may enter as {USER} were changed",
        f"ssh: the user {USER} was made a member of other groups",
    ]
    machine.people.lay((ADA,))
    assert (machine.keys, machine.groups) == (f"{ADA}\n", [USER])


def test_sshd_is_told_of_the_user_only_where_its_settings_are_ours(machine: Machine, tmp_path: Path) -> None:
    machine.people.lay((ADA,))
    assert not (tmp_path / SSHD).exists()
    (tmp_path / SSHD_OURS).write_text("AllowUsers gridup\n")
    assert machine.people.problems((ADA,)) == [f"ssh: sshd does not let {USER} in any more"]
    machine.calls.clear()
    machine.people.lay((ADA,))
    assert (tmp_path / SSHD).read_text() == ALLOWED
    # It is looked at before sshd reads it.
    assert machine.changes()[-3:] == ["install", "/usr/sbin/sshd", "systemctl"]


def test_a_machine_whose_own_sshd_would_not_let_them_in_is_said(machine: Machine) -> None:
    machine.sshd = "allowusers ada gridup"
    with pytest.raises(Failed, match="would not let gridup-user in by key: AllowUsers ada gridup"):
        machine.people.lay((ADA,))


@pytest.mark.parametrize(
    ("users", "said"),
    [({USER: 1000}, "a user gridup-user of its own"), ({"carol": UID}, "a user carol with the id 10003")],
)
def test_somebody_elses_user_is_never_taken(machine: Machine, users: dict[str, int], said: str) -> None:
    machine.users |= users
    with pytest.raises(Failed, match=said):
        machine.people.lay((ADA,))
    assert machine.changes() == []


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("allowusers gridup\nallowusers gridup-user", ""),
        ("allowgroups ssh", "AllowGroups ssh"),
        ("denyusers gridup-user", "DenyUsers gridup-user"),
        ("pubkeyauthentication no", "PubkeyAuthentication no"),
        ("authorizedkeysfile /etc/keys/%u", "AuthorizedKeysFile /etc/keys/%u"),
        ("authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2", ""),
    ],
)
def test_what_sshd_has_against_a_user_is_named(told: str, why: str) -> None:
    assert in_the_way(told, USER, {USER}) == why


class TestWrite:
    """The script that writes the keys, which only runs as the user whose they are, in a home that may hold
    anything of theirs."""

    @staticmethod
    def write(home: Path) -> str:
        argv = ["sh", "-c", people.WRITE, "keys", str(home)]
        subprocess.run(argv, input=f"{ADA}\n".encode(), check=True, timeout=20)
        file = home / ".ssh/authorized_keys"
        assert not file.is_symlink() and file.stat().st_mode & 0o077 == 0
        assert (home / ".ssh").stat().st_mode & 0o077 == 0
        return file.read_text()

    def test_into_an_empty_home_and_over_what_is_there(self, tmp_path: Path) -> None:
        assert self.write(tmp_path) == f"{ADA}\n"
        (tmp_path / ".ssh/authorized_keys").write_text("other")
        assert self.write(tmp_path) == f"{ADA}\n"

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
        for folder in (home, elsewhere):
            folder.mkdir()
        (home / ".ssh").symlink_to(elsewhere)
        assert self.write(home) == f"{ADA}\n"
        assert list(elsewhere.iterdir()) == []
        file = home / ".ssh/authorized_keys"
        file.unlink()
        (elsewhere / "file").write_text("theirs")
        file.symlink_to(elsewhere / "file")
        (home / ".ssh/.keys.new").symlink_to(elsewhere / "file")
        assert self.write(home) == f"{ADA}\n"
        assert (elsewhere / "file").read_text() == "theirs"

    def test_a_folder_in_the_place_of_a_file_and_a_file_in_that_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / ".ssh").write_text("x")
        assert self.write(tmp_path) == f"{ADA}\n"
        (tmp_path / ".ssh/authorized_keys").unlink()
        (tmp_path / ".ssh/authorized_keys/deep").mkdir(parents=True)
        assert self.write(tmp_path) == f"{ADA}\n"
