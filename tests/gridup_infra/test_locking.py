"""A lock between processes: who holds it is told, and a killed holder leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridup_infra import locking
from gridup_infra.errors import BusyError
from gridup_infra.locking import locked

pytestmark = pytest.mark.timeout(60)

HOLDER = """
import sys, time
from pathlib import Path
from gridup_infra.locking import locked
with locked(Path(sys.argv[1]), "a deploy", wait=0, busy="busy"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held_by_another(path: Path, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_holder_is_told_who_does_what_since_when(tmp_path: Path) -> None:
    path = tmp_path / "inst" / "lock"
    with (
        held_by_another(path) as other,
        pytest.raises(BusyError) as caught,
        locked(path, "a destroy", wait=0, busy="Inst is busy"),
    ):
        pass
    today = time.strftime("%H:%M")[:2]
    assert caught.value.message.startswith(f"Inst is busy: a deploy by process {other.pid} since {today}")
    assert "--wait-lock" in caught.value.suggestion


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "lock") as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with locked(tmp_path / "lock", "a deploy", wait=0, busy="busy"):
            pass


def test_waiting_outlasts_a_holder_that_ends(tmp_path: Path) -> None:
    with (
        held_by_another(tmp_path / "lock", seconds=0.5) as other,
        locked(tmp_path / "lock", "a deploy", wait=600, busy="busy"),
    ):
        assert other.wait(timeout=20) == 0


def test_waiting_ends_when_its_time_is_over(tmp_path: Path) -> None:
    with (
        held_by_another(tmp_path / "lock"),
        pytest.raises(BusyError),
        locked(tmp_path / "lock", "a deploy", wait=0.5, busy="busy"),
    ):
        pass


def test_it_is_free_after_an_error_and_tells_the_new_holder_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), locked(path, "a very long story of a deploy", wait=0, busy="busy"):
        _ = 1 / 0
    with (
        locked(path, "a stop", wait=0, busy="busy"),
        pytest.raises(BusyError, match=f"busy: a stop by process {os.getpid()}"),
        locked(path, "a start", wait=0, busy="busy"),
    ):
        pass


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with locked(tmp_path / "stacks" / "lock", "a deploy", wait=0, busy="busy"):
            assert (tmp_path / "stacks" / "lock").stat().st_mode & 0o777 == 0o600
            assert (tmp_path / "stacks").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(umask)


def test_one_who_waited_for_a_lock_that_was_removed_holds_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "inst" / "lock"
    with held_by_another(path, seconds=0.5):
        path.unlink()
        # The file is another one now; whoever comes later must meet us.
        with (
            locked(path, "a deploy", wait=20, busy="busy"),
            pytest.raises(BusyError),
            locked(path, "a stop", wait=0, busy="busy"),
        ):
            pass


def test_one_who_waits_while_the_holder_removes_the_lock_takes_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "inst" / "lock"
    with held_by_another(path) as other:

        def end() -> None:
            path.unlink()
            other.kill()

        timer = threading.Timer(0.4, end)
        timer.start()
        with (
            locked(path, "a deploy", wait=600, busy="busy"),
            pytest.raises(BusyError),
            locked(path, "a stop", wait=0, busy="busy"),
        ):
            assert path.exists()
        timer.join()


def test_a_folder_that_a_destroy_takes_away_just_now_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = locking.ensure_private
    calls = 0

    def ensure_and_lose_it_once(folder: Path) -> Path:
        nonlocal calls
        calls += 1
        ensure(folder)
        if calls == 1:
            folder.rmdir()
        return folder

    monkeypatch.setattr(locking, "ensure_private", ensure_and_lose_it_once)
    with locked(tmp_path / "inst" / "lock", "a deploy", wait=0, busy="busy"):
        assert calls == 2
