"""The one module that runs processes: argv lists only, never a shell, every wait with a deadline."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gridup_node import piping

if TYPE_CHECKING:
    import psutil

TAIL_LINES = 40

LEFT_SECONDS = 1.0
"""For what a program has written to come, once it has ended."""

DETACHED = "GRIDUP_DETACHED"
"""Set for programs that were started to outlive us: whoever cleans up after a interrupted run spares them."""


PROC = Path("/proc")


def boot(proc: Path = PROC) -> str:
    """Another one for each start of the machine; empty where it does not tell."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Result:
    """How a process ended.

    Attributes:
        argv: what was run.
        code: its exit code; negative for a signal, as in `subprocess`.
        stdout, stderr: what it wrote (for `stream`, the last lines of both, in `stdout`).
    """

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def tail(self, lines: int = 5) -> tuple[str, ...]:
        """The last lines with something on them, of stderr or else of stdout."""
        text = self.stderr if self.stderr.strip() else self.stdout
        return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


def which(name: str, path: str | None = None) -> str | None:
    """The program's path, looked for on PATH and in the folders of system daemons."""
    search = path if path is not None else os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=os.pathsep.join([search, "/usr/local/sbin", "/usr/sbin", "/sbin"]))


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    stop: threading.Event | None = None,
) -> Result:
    """Run to the end and collect what it wrote.

    Args:
        timeout: seconds until its whole process group is killed.
        env: the whole environment; the caller's own when not given.
        stop: once another thread sets it, that happens within a second.

    Raises:
        FileNotFoundError: there is no such program.
        TimeoutError: it ran longer than `timeout`, or was stopped.
    """
    words = tuple(str(word) for word in argv)
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=dict(env) if env is not None else None,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = _collected(process, input, time.monotonic() + timeout, stop)
    except TimeoutError:
        kill_group(process)
        raise TimeoutError(f"{words[0]} did not end within {timeout:g} s") from None
    except BaseException:
        kill_group(process)
        raise
    finally:
        _close_pipes(process)
    return Result(words, process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _collected(
    process: subprocess.Popen[bytes], input: bytes | None, end: float, stop: threading.Event | None
) -> tuple[bytes, bytes]:
    """What it wrote until it ended; one that it has left behind, and that keeps its pipes, keeps nobody.

    Raises:
        TimeoutError: it had not ended by `end`, or when it was to stop.
    """
    while True:
        ended = process.poll() is not None
        left = end - time.monotonic()
        try:
            return process.communicate(input, timeout=max(min(left, LEFT_SECONDS), 0))
        except subprocess.TimeoutExpired as late:
            if ended:
                return late.output or b"", late.stderr or b""
            if left <= 0 or (stop and stop.is_set()):
                raise TimeoutError from None
        input = None  # It is being sent.


def stream(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
) -> Result:
    """Run to the end, handing over each line of output (stdout and stderr together) as it comes.

    Raises:
        FileNotFoundError: there is no such program.
        TimeoutError: it ran longer than `timeout` seconds.
    """
    words = tuple(str(word) for word in argv)
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=dict(env) if env is not None else None,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    end = time.monotonic() + timeout
    feeder = threading.Thread(target=_feed, args=(process, input or b""), daemon=True)
    if input is not None:
        feeder.start()
    last: list[str] = []
    try:
        for line in piping.lines(process, end):
            last.append(line)
            del last[:-TAIL_LINES]
            on_line(line)
        piping.wait(process, end)
    except TimeoutError:
        kill_group(process)
        raise TimeoutError(f"{words[0]} did not end within {timeout:g} s") from None
    except BaseException:
        kill_group(process)
        raise
    finally:
        if input is not None:
            # Two that close one pipe at once may meet.
            feeder.join(timeout=LEFT_SECONDS)
        _close_pipes(process)
    return Result(words, process.returncode, "\n".join(last), "")


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    # One that ends without reading it all is told of by its exit code.
    with contextlib.suppress(OSError, ValueError):
        process.stdin.write(data)
    with contextlib.suppress(OSError, ValueError):
        process.stdin.close()


def start_detached(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
) -> int:
    """Start a program in a session of its own, without our terminal, that outlives us. Returns its pid."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env={**env, DETACHED: "1"},
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            start_new_session=True,
            close_fds=True,
            # What it writes, such as its logs, is its owner's alone.
            umask=0o077,
        )
    finally:
        os.close(fd)
    # The child is init's once we end; until then a thread of no consequence reaps it.
    threading.Thread(target=process.wait, daemon=True).start()
    return process.pid


def run_interactive(
    argv: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a program on our own terminal (such as ssh) and return its exit code.

    Ctrl-C is the program's while it runs.
    """
    # A handler of ours, which a child does not inherit, and not SIG_IGN, which it would. No code of ours runs
    # between fork and exec: the engine's client has threads, whose own handlers may end the child there.
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        own = dict(env) if env is not None else None
        process = subprocess.Popen([str(word) for word in argv], env=own, cwd=cwd)
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    return 128 - code if code < 0 else code


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process started in a session of its own, with its children, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            # ValueError: whoever feeds it is still in the middle of that.
            with contextlib.suppress(OSError, ValueError):
                pipe.close()


def wait_until(
    condition: Callable[[], bool],
    *,
    timeout: float,
    every: float = 0.05,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether `condition` came true within `timeout` seconds."""
    end = clock() + timeout
    while True:
        if condition():
            return True
        if clock() >= end:
            return False
        sleep(every)


class Passage:
    """A program whose input and output are one end of a connection; it asks nobody anything.

    It ends when it is closed, and by the end of its input when we have ended.

    Attributes:
        socket: the other end.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - until it is closed
        with theirs:
            self._process = subprocess.Popen(
                list(argv),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )

    def said(self) -> list[str]:
        """The last lines of its errors."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").splitlines()[-TAIL_LINES:]

    def close(self) -> None:
        """End it."""
        kill_group(self._process)
        self.socket.close()
        self._errors.close()


class EngineProcess:
    """A long-running tool with helpers of its own (Pulumi and its providers), stoppable in order.

    It runs in a session of its own: a terminal's Ctrl-C comes to us first.
    """

    def __init__(self, argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._texts: dict[str, list[bytes]] = {"out": [], "err": []}
        self._readers = [
            threading.Thread(target=self._read, args=(file, self._texts[name]), daemon=True)
            for name, file in (("out", self._process.stdout), ("err", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @staticmethod
    def _read(file: IO[bytes] | None, into: list[bytes]) -> None:
        if file is not None:
            with file:
                into.extend(iter(file.readline, b""))

    def wait(self) -> tuple[int, str, str]:
        """Its exit code, output and errors, once it has ended."""
        code = self._process.wait()
        for reader in self._readers:
            # A detached grandchild that kept our pipe must not keep us.
            reader.join(timeout=2)
        out, err = (b"".join(self._texts[name]).decode(errors="replace") for name in ("out", "err"))
        return code, out, err

    def stop(self, *, grace: float) -> None:
        """End it: ask; after `grace` seconds end its helpers, so that it can end in order; then kill.

        A second Ctrl-C skips the grace. What was started to outlive us is spared.
        """
        # Helpers are known by their parent: once it has ended they can't be found any more.
        helpers = _descendants(self._process.pid)
        for wait, step in ((grace, self._ask), (15.0, self._end_helpers), (5.0, self._kill)):
            step()
            try:
                self._process.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                continue
            except KeyboardInterrupt:
                continue
            break
        _kill_all(helpers)

    def _ask(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def _end_helpers(self) -> None:
        end_descendants(self._process.pid)

    def _kill(self) -> None:
        end_descendants(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class OwnedProcess:
    """A program that serves us alone and ends when we do, however that comes: by `kill -9` too.

    It has no input, and its output is dropped; what it says on stderr is kept.

    Args:
        litter: a folder of files, removed with them when the program is ended.

    Raises:
        FileNotFoundError: there is no such program.
    """

    def __init__(self, argv: Sequence[str | Path], *, litter: Path) -> None:
        words = [str(word) for word in argv]
        program = which(words[0])
        if program is None:
            raise FileNotFoundError(f"there is no program {words[0]}")
        self._litter = litter
        script = Path(__file__).with_name("parent_guard.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(litter), program, *words[1:]],
            # Spared by whoever cleans up after us: the guard does, and has the litter to remove.
            env={**os.environ, DETACHED: "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._said: deque[str] = deque(maxlen=TAIL_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            while self._process.stderr and (part := self._process.stderr.read(4096)):
                *whole, rest = (rest + part).split(b"\n")
                self._said.extend(line.decode(errors="replace").rstrip("\r") for line in whole)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def said(self) -> tuple[str, ...]:
        """The last lines of its stderr; all of them are there once it has ended."""
        if not self.running:
            self._reader.join(timeout=2)
        return tuple(self._said)

    def close(self) -> None:
        """End it, if it has not ended by itself, and remove the litter."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            kill_group(self._process)
        self._reader.join(timeout=2)
        _close_pipes(self._process)
        # The guard does it a moment later, or not at all where somebody killed it.
        shutil.rmtree(self._litter, ignore_errors=True)


def end_descendants(pid: int) -> None:
    """Kill every process below `pid` that was not started to outlive us."""
    _kill_all(_descendants(pid))


def _descendants(pid: int) -> list[psutil.Process]:
    """The processes below `pid`, those apart that were started to outlive us, with what is below them."""
    import psutil

    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    spared: set[int] = set()
    found = []
    for process in below:
        with contextlib.suppress(psutil.Error, OSError):
            if DETACHED in process.environ() or process.ppid() in spared:
                spared.add(process.pid)
            else:
                found.append(process)
    return found


def _kill_all(processes: Iterable[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            # psutil knows a process by its start too: a pid that was given anew is not hit.
            process.kill()
