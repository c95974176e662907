"""Processes: every wait ends, no child is left behind, and what was started to live on does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gridup_infra.processes import (
    DETACHED,
    EngineProcess,
    OwnedProcess,
    Result,
    run,
    run_interactive,
    start_detached,
    stream,
    wait_until,
    which,
)

pytestmark = pytest.mark.timeout(180)

IGNORING = "import signal, sys, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; "


def python(code: str, *words: str | Path) -> list[str | Path]:
    return [sys.executable, "-c", code, *words]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pid_in(path: Path) -> int:
    assert wait_until(lambda: path.exists() and path.read_text().endswith("\n"), timeout=120), path
    return int(path.read_text())


def write_pid(path: Path) -> str:
    return f"import os, pathlib; pathlib.Path({str(path)!r}).write_text(f'{{os.getpid()}}\\n'); "


def test_run_tells_how_a_program_ended() -> None:
    ended = run(python("import sys; print('a'); print('b', file=sys.stderr); sys.exit(3)"), timeout=20)
    assert (ended.code, ended.ok, ended.stdout, ended.stderr) == (3, False, "a\n", "b\n")
    assert ended.tail() == ("b",)


def test_run_hands_over_words_input_folder_and_environment_as_they_are(tmp_path: Path) -> None:
    code = "import os, sys; print(repr([sys.argv[1], sys.stdin.read(), os.getcwd(), os.environ['X']]))"
    ended = run(python(code, "a  b; $(id)"), timeout=20, input=b"in", cwd=tmp_path, env={"X": "y"})
    assert ended.stdout.strip() == repr(["a  b; $(id)", "in", str(tmp_path), "y"])


def test_without_input_a_program_can_not_wait_for_the_terminal() -> None:
    assert run(python("import sys; print(repr(sys.stdin.read()))"), timeout=20).stdout == "''\n"


def test_bytes_that_are_no_text_do_not_matter() -> None:
    assert "\ufffd" in run(python(r"import os; os.write(1, b'\xff')"), timeout=20).stdout


def test_a_missing_program_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        run(["/no/such/program"], timeout=1)


@pytest.mark.parametrize("how", ["run", "stream"])
def test_what_runs_too_long_is_killed_with_all_its_children(tmp_path: Path, how: str) -> None:
    child = tmp_path / "child"
    # What a shell ignores, its children ignore too.
    argv = ["sh", "-c", 'trap "" INT TERM; sleep 600 & echo $! >"$0"; wait', child]
    with pytest.raises(TimeoutError, match=r"did not end within 2 s"):
        if how == "run":
            run(argv, timeout=2)
        else:
            stream(argv, lambda _line: None, timeout=2)
    assert wait_until(lambda: gone(pid_in(child)), timeout=120)


@pytest.mark.parametrize("how", ["run", "stream"])
@pytest.mark.parametrize("ends", [True, False])
def test_one_that_it_leaves_behind_with_its_pipe_holds_nobody_up(
    tmp_path: Path, how: str, ends: bool
) -> None:
    child = tmp_path / "child"
    # The first one has a process group of its own, so that it is not killed along with its starter.
    script = f'set -m; sleep 600 & set +m; echo $! >"$0"; echo said; sleep {0 if ends else 600}'
    argv, timeout = ["bash", "-c", script, child], 120 if ends else 2

    def work() -> Result:
        if how == "run":
            return run(argv, timeout=timeout)
        return stream(argv, lambda _line: None, timeout=timeout)

    try:
        if ends:
            ended = work()
            assert (ended.code, ended.stdout.strip()) == (0, "said")
        else:
            with pytest.raises(TimeoutError, match="did not end within 2 s"):
                work()
    finally:
        os.kill(pid_in(child), signal.SIGKILL)


def test_stream_hands_over_each_line_as_it_comes(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    code = f"""
import os, sys, time
print('a', flush=True)
while not os.path.exists({str(heard)!r}):
    time.sleep(0.05)
print('b', file=sys.stderr)
sys.exit(4)
"""
    seen: list[str] = []

    def hear(line: str) -> None:
        # The second line comes only once the first has been handed over.
        seen.append(line)
        heard.touch()

    ended = stream(python(code), hear, timeout=20)
    assert seen == ["a", "b"]
    assert (ended.code, ended.stdout) == (4, "a\nb")


def test_stream_ends_the_program_when_its_reader_fails(tmp_path: Path) -> None:
    def fail(_line: str) -> None:
        raise ZeroDivisionError

    code = write_pid(tmp_path / "pid") + "import time; print(flush=True); time.sleep(600)"
    with pytest.raises(ZeroDivisionError):
        stream(python(code), fail, timeout=20)
    assert gone(pid_in(tmp_path / "pid"))


def test_the_tail_is_of_what_says_something() -> None:
    assert Result((), 1, "out\n", "  \n").tail() == ("out",)
    assert Result((), 1, "", "\n".join("abcdefg")).tail(2) == ("f", "g")


def test_a_system_daemon_is_found_though_it_is_on_no_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert which("no-such-program-at-all") is None
    found = [name for name in ("ldconfig", "nologin", "ifconfig", "mkfs") if which(name)]
    assert found


class TestDetached:
    """Programs that outlive us."""

    def test_it_has_no_terminal_a_session_of_its_own_and_a_private_log(self, tmp_path: Path) -> None:
        umask = os.umask(0)
        try:
            code = (
                "import os, sys; print(os.getsid(0) == os.getpid(), repr(sys.stdin.read()), os.environ['X'])"
            )
            pid = start_detached(python(code), env={"X": "y"}, cwd=tmp_path, log=tmp_path / "log")
        finally:
            os.umask(umask)
        assert wait_until(lambda: (tmp_path / "log").read_text().endswith("y\n"), timeout=120)
        assert (tmp_path / "log").read_text() == "True '' y\n"
        assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
        assert wait_until(lambda: gone(pid), timeout=120)

    def test_it_lives_on_when_the_engine_that_started_it_is_stopped(self, tmp_path: Path) -> None:
        inner = write_pid(tmp_path / "pid") + "import time; time.sleep(600)"
        code = (
            "import os, sys, time\nfrom pathlib import Path\n"
            "from gridup_infra.processes import start_detached\n"
            f"word = [sys.executable, '-c', {inner!r}]\nlog = Path({str(tmp_path / 'log')!r})\n"
            "start_detached(word, env=dict(os.environ), cwd=Path('/'), log=log)\n"
            "time.sleep(600)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        engine = EngineProcess(python(code), cwd=tmp_path, env=environment)
        pid = pid_in(tmp_path / "pid")
        try:
            engine.stop(grace=1)
            engine.wait()
            assert not gone(pid)
            assert DETACHED in psutil.Process(pid).environ()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class TestEngineProcess:
    """The engine and its helpers end in bounded time."""

    @staticmethod
    def engine(tmp_path: Path, *, at_interrupt: str, helper: str = "") -> EngineProcess:
        inner = helper + write_pid(tmp_path / "helper") + "import time; time.sleep(600)"
        code = (
            "import signal, subprocess, sys, time, os\n"
            f"{at_interrupt}\n"
            f"helper = subprocess.Popen([sys.executable, '-c', {inner!r}])\n"
            f"{write_pid(tmp_path / 'engine')}\n"
            "helper.wait() if '--wait' in sys.argv else time.sleep(600)\n"
        )
        return EngineProcess(python(code, "--wait"), cwd=tmp_path, env=dict(os.environ))

    def test_one_that_obeys_is_asked_only_once(self, tmp_path: Path) -> None:
        said = "signal.signal(2, lambda *_: (print('in order', flush=True), helper.kill(), sys.exit(5)))"
        engine = self.engine(tmp_path, at_interrupt=said)
        pid_in(tmp_path / "helper"), pid_in(tmp_path / "engine")
        engine.stop(grace=20)
        assert engine.wait()[:2] == (5, "in order\n")

    def test_helpers_that_ignore_signals_are_killed_so_that_the_engine_can_end_in_order(
        self, tmp_path: Path
    ) -> None:
        said = "signal.signal(2, lambda *_: None)"
        engine = self.engine(tmp_path, at_interrupt=said, helper=IGNORING)
        helper, main = pid_in(tmp_path / "helper"), pid_in(tmp_path / "engine")
        engine.stop(grace=1)
        assert engine.wait()[0] == 0, "it was not killed itself"
        assert gone(helper) and gone(main)

    def test_a_helper_that_ignores_signals_does_not_outlive_an_engine_that_obeys(
        self, tmp_path: Path
    ) -> None:
        engine = self.engine(
            tmp_path, at_interrupt="signal.signal(2, lambda *_: os._exit(5))", helper=IGNORING
        )
        helper = pid_in(tmp_path / "helper")
        pid_in(tmp_path / "engine")
        engine.stop(grace=20)
        assert wait_until(lambda: gone(helper), timeout=120)

    def test_an_engine_that_ignores_everything_is_killed_in_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = IGNORING + write_pid(tmp_path / "engine") + "time.sleep(600)"
        engine = EngineProcess(python(code), cwd=tmp_path, env=dict(os.environ))
        pid = pid_in(tmp_path / "engine")
        wait = engine._process.wait

        def quick(timeout: float | None = None) -> int:
            return wait(timeout=None if timeout is None else min(timeout, 1))

        monkeypatch.setattr(engine._process, "wait", quick)
        engine.stop(grace=1)
        assert gone(pid)
        assert engine.wait()[0] == -signal.SIGKILL

    def test_its_output_is_kept_apart(self, tmp_path: Path) -> None:
        code = "import sys; print('a'); print('b', file=sys.stderr); sys.exit(7)"
        engine = EngineProcess(python(code), cwd=tmp_path, env=dict(os.environ))
        assert engine.wait() == (7, "a\n", "b\n")


class TestTethered:
    """A program that ends when we do."""

    @staticmethod
    def folder(tmp_path: Path) -> Path:
        made = tmp_path / "litter"
        made.mkdir()
        (made / "file").touch()
        return made

    def test_it_is_the_program_itself_with_its_words_and_without_input(self, tmp_path: Path) -> None:
        code = "import sys; print([sys.argv[1:], sys.stdin.read()], file=sys.stderr); sys.exit(3)"
        one = OwnedProcess(python(code, "a  b; $(id)", "-x"), litter=self.folder(tmp_path))
        assert wait_until(lambda: not one.running, timeout=20)
        assert one.said() == ("[['a  b; $(id)', '-x'], '']",)
        one.close()
        assert not (tmp_path / "litter").exists()

    def test_a_missing_program_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            OwnedProcess(["/no/such/program"], litter=tmp_path)

    def test_what_it_says_is_there_at_once_and_the_last_of_it_is_kept(self, tmp_path: Path) -> None:
        code = "import sys, time; [print(n, file=sys.stderr, flush=True) for n in range(99)]; time.sleep(600)"
        one = OwnedProcess(python(code), litter=self.folder(tmp_path))
        assert wait_until(lambda: one.said()[-1:] == ("98",), timeout=20)
        assert one.running
        assert len(one.said()) == 40
        one.close()

    def test_closing_ends_it_and_what_it_started_though_they_ignore_signals(self, tmp_path: Path) -> None:
        inner = IGNORING + write_pid(tmp_path / "child") + "time.sleep(600)"
        code = IGNORING + f"import subprocess; subprocess.run([sys.executable, '-c', {inner!r}])"
        one = OwnedProcess(python(code), litter=self.folder(tmp_path))
        child = pid_in(tmp_path / "child")
        one.close()
        assert wait_until(lambda: gone(child) and gone(one.pid), timeout=120)
        assert not one.running
        assert not (tmp_path / "litter").exists()
        one.close()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
    def test_it_ends_when_its_starter_is_killed_in_whatever_thread_it_began(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        litter = self.folder(tmp_path)
        inner = IGNORING + write_pid(tmp_path / "pid") + "time.sleep(600)"
        outer = (
            "import sys, threading, time\nfrom pathlib import Path\n"
            "from gridup_infra.processes import OwnedProcess\n"
            "kept = []\n"
            f"word = [sys.executable, '-c', {inner!r}]\n"
            f"make = lambda: kept.append(OwnedProcess(word, litter=Path({str(litter)!r})))\n"
            "thread = threading.Thread(target=make); thread.start(); thread.join()\n"
            "time.sleep(600)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(python(outer), env=environment, stderr=subprocess.DEVNULL) as starter:
            pid = pid_in(tmp_path / "pid")
            time.sleep(0.5)
            assert not gone(pid), "the thread's end is not ours"
            starter.send_signal(number)
            starter.wait(timeout=120)
        assert wait_until(lambda: gone(pid), timeout=120)
        assert wait_until(lambda: not litter.exists(), timeout=120)


@pytest.mark.parametrize(
    ("code", "expected"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 15)", 143), ("pass", 0)]
)
def test_attach_gives_the_exit_code_as_a_shell_would(code: str, expected: int) -> None:
    assert run_interactive(python(f"import os, sys; {code}")) == expected


def test_ctrl_c_is_the_attached_programs_and_not_ours(tmp_path: Path) -> None:
    inner = (
        "import signal, sys, time; signal.signal(2, lambda *_: sys.exit(3))\n"
        "print('up', flush=True); time.sleep(600)"
    )
    outer = (
        "import sys; from gridup_infra.processes import run_interactive\n"
        f"print(run_interactive([sys.executable, '-c', {inner!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        python(outer),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (out, err, process.returncode) == ("3\n", "", 0)


def test_waiting_asks_until_the_time_is_over_and_once_at_least() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def after(seconds: float) -> Callable[[], bool]:
        return lambda: now >= seconds

    assert wait_until(after(3), timeout=5, every=1, clock=lambda: now, sleep=sleep)
    assert now == 3
    assert not wait_until(after(100), timeout=5, every=1, clock=lambda: now, sleep=sleep)
    assert now == 8
    assert wait_until(after(8), timeout=0, clock=lambda: now, sleep=sleep)
