"""Which of the engine's locks are broken: those whose holder is dead, wherever it lived."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gridup import engine_locks
from gridup.engine_locks import INITIAL, Lock, is_dead, noted

DEAD = 2**22 + 1
"""No process's id: the kernel's largest is less (proc(5), pid_max)."""


class Proc:
    """A made-up /proc, as a process in some PID namespace sees it."""

    def __init__(self, root: Path, number: str, boot: str = "boot-1") -> None:
        self.root = root
        (root / "self/ns").mkdir(parents=True)
        (root / "self/ns/pid").symlink_to(f"pid:[{number}]")
        (root / "sys/kernel/random").mkdir(parents=True)
        (root / "sys/kernel/random/boot_id").write_text(f"{boot}\n")

    def shows(self, pid: int, *below: int, name: str = "pulumi", state: str = "S (sleeping)") -> None:
        """A process, with its ids in the namespaces below."""
        ids = "\t".join(map(str, (pid, *below)))
        (self.root / str(pid)).mkdir()
        (self.root / str(pid) / "status").write_text(f"Name:\t{name}\nState:\t{state}\nNSpid:\t{ids}\n")


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    folder = tmp_path / "inst"
    folder.mkdir()
    return folder


def lock(pid: int = DEAD, hostname: str = "") -> Lock:
    return Lock(Path("lock.json"), pid, hostname or socket.gethostname())


def leave_note(stack: Path, proc: Proc, pid: int = DEAD) -> None:
    """As an engine that was killed leaves it."""
    (stack / engine_locks.FOLDER).mkdir(exist_ok=True)
    number, boot = engine_locks.namespace(proc.root), engine_locks.boot(proc.root)
    (stack / engine_locks.FOLDER / f"{pid}.{boot}.{number}").touch()


def test_an_engine_is_noted_for_as_long_as_it_runs(stack: Path) -> None:
    with noted(stack, 7):
        (note,) = (stack / engine_locks.FOLDER).iterdir()
        assert note.name == f"7.{engine_locks.boot()}.{engine_locks.namespace()}"
    assert list((stack / engine_locks.FOLDER).iterdir()) == []


def test_where_nothing_can_be_noted_the_engine_runs_all_the_same(tmp_path: Path) -> None:
    with noted(tmp_path / "gone", 7):
        pass


class TestInAContainer:
    """A namespace that does not see its neighbours."""

    @pytest.fixture
    def here(self, tmp_path: Path) -> Proc:
        return Proc(tmp_path / "here", "4026532001")

    def test_one_that_was_killed_here_is_dead(self, stack: Path, here: Proc) -> None:
        leave_note(stack, here)
        assert is_dead(lock(), stack, here.root)

    def test_one_that_runs_in_another_container_of_the_same_name_is_respected(
        self, stack: Path, here: Proc, tmp_path: Path
    ) -> None:
        leave_note(stack, Proc(tmp_path / "there", "4026532999"))
        assert not is_dead(lock(), stack, here.root)

    def test_one_of_which_nothing_is_known_is_respected(self, stack: Path, here: Proc) -> None:
        assert not is_dead(lock(), stack, here.root)
        leave_note(stack, here, pid=DEAD + 1)
        assert not is_dead(lock(), stack, here.root), "a note of another engine tells nothing"

    def test_one_of_before_the_machine_s_boot_is_dead(self, stack: Path, here: Proc, tmp_path: Path) -> None:
        leave_note(stack, Proc(tmp_path / "before", "4026532999", boot="boot-0"))
        assert is_dead(lock(), stack, here.root)

    def test_one_that_lives_here_is_respected(
        self, stack: Path, here: Proc, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import psutil

        leave_note(stack, here, pid=os.getpid())
        monkeypatch.setattr(psutil.Process, "name", lambda _self: "pulumi")
        assert not is_dead(lock(os.getpid()), stack, here.root)


class TestOnTheMachineItself:
    """The first namespace, which sees the processes of all others, by other ids."""

    @pytest.fixture
    def here(self, tmp_path: Path) -> Proc:
        return Proc(tmp_path / "here", INITIAL)

    def test_one_that_a_container_s_engine_holds_is_respected(self, stack: Path, here: Proc) -> None:
        here.shows(48211, 7)
        assert not is_dead(lock(7), stack, here.root)

    @pytest.mark.parametrize("more", [{"name": "bash"}, {"state": "Z (zombie)"}, {}])
    def test_one_that_nobody_holds_any_more_is_dead(
        self, stack: Path, here: Proc, more: dict[str, str]
    ) -> None:
        here.shows(48211, 7 if more else 8, **more)
        assert is_dead(lock(7), stack, here.root)


def test_another_host_s_is_never_touched(stack: Path, tmp_path: Path) -> None:
    here = Proc(tmp_path / "here", INITIAL)
    leave_note(stack, here)
    assert not is_dead(lock(hostname="elsewhere"), stack, here.root)


def test_a_system_without_namespaces_is_asked_by_process_id(stack: Path, tmp_path: Path) -> None:
    assert is_dead(lock(), stack, tmp_path / "no proc")


def test_what_is_broken_takes_its_note_along(stack: Path, tmp_path: Path) -> None:
    leave_note(stack, Proc(tmp_path / "here", INITIAL))
    path = tmp_path / "lock.json"
    path.touch()
    engine_locks.forget(Lock(path, DEAD, "x"), stack)
    assert not path.exists() and list((stack / engine_locks.FOLDER).iterdir()) == []
