"""The only module that runs processes: it takes argv lists, uses no shell, and each wait has a deadline."""

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
"""Seconds to wait for the rest of a program's output after the program has ended."""

DETACHED = "GRIDUP_DETACHED"
"""The variable of programs that are meant to outlive Gridup. Cleanup after an interrupted run does not kill
them."""


PROC = Path("/proc")


def boot(proc: Path = PROC) -> str:
    """Return the id of the machine's current boot, different for each boot; empty if it can't be read."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Result:
    """The result of a process that has ended.

    Attributes:
        argv: the command.
        code: its exit code; negative for a signal, as in `subprocess`.
        stdout, stderr: its output. For `stream`, `stdout` has the last lines of both.
    """

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def tail(self, lines: int = 5) -> tuple[str, ...]:
        """Return the last lines that are not blank: of stderr, or of stdout if stderr is blank."""
        text = self.stderr if self.stderr.strip() else self.stdout
        return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


def which(name: str, path: str | None = None) -> str | None:
    """Return a program's path, from PATH (or `path`) and the folders of system daemons; None if missing."""
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
    """Run a program until it ends and return its output.

    Args:
        timeout: seconds until the whole process group is killed.
        env: the whole environment; the caller's own if not given.
        input: the data for its stdin.
        stop: an event that another thread can set; the process group is then killed within a second.

    Raises:
        FileNotFoundError: there is no such program.
        TimeoutError: the program ran longer than `timeout`, or was stopped.
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
    """Return the program's output once the program has ended.

    Does not wait for a background process that the program left behind and that still holds its pipes.

    Raises:
        TimeoutError: the program did not end before `end`, or `stop` was set.
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
        input = None  # The first call is still sending it.


def stream(
    argv: Sequence[str | Path],
    on_line: Callable[[str], None],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
) -> Result:
    """Run a program until it ends; call `on_line` for each new line of its stdout and stderr.

    Raises:
        FileNotFoundError: there is no such program.
        TimeoutError: the program ran longer than `timeout` seconds.
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
            # The feeder and `_close_pipes` must not close the same pipe at the same time.
            feeder.join(timeout=LEFT_SECONDS)
        _close_pipes(process)
    return Result(words, process.returncode, "\n".join(last), "")


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    # Ignore a program that ends before it has read all data: its exit code tells whether it failed.
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
    """Start a program that outlives this process: in a new session, without a terminal. Return its pid."""
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
            # Only the owner may read the files that it writes, such as logs.
            umask=0o077,
        )
    finally:
        os.close(fd)
    # init reaps the child after this process has ended. Until then this thread does.
    threading.Thread(target=process.wait, daemon=True).start()
    return process.pid


def run_interactive(
    argv: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> int:
    """Run a program (such as ssh) on this process's terminal and return its exit code.

    While the program runs, only the program reacts to Ctrl-C.
    """
    # Set a handler: the child would inherit SIG_IGN, but it does not inherit a handler. None of our code runs
    # between fork and exec: the engine's client has threads, and their handlers may end the child there.
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        own = dict(env) if env is not None else None
        process = subprocess.Popen([str(word) for word in argv], env=own, cwd=cwd)
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
    return 128 - code if code < 0 else code


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that runs in its own session, with its children, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            # ValueError: the feeder is still writing to the pipe.
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
    """Wait until `condition` is true; return whether that happened within `timeout` seconds."""
    end = clock() + timeout
    while True:
        if condition():
            return True
        if clock() >= end:
            return False
        sleep(every)


class Passage:
    """A running program whose stdin and stdout are one end of a socket pair. It has no terminal to ask at.

    `close` ends the program. If this process ends first, the program sees EOF on its stdin.

    Attributes:
        socket: the other end of the socket pair.
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
        """Return the last lines of its stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").splitlines()[-TAIL_LINES:]

    def close(self) -> None:
        """End the program and close the socket."""
        kill_group(self._process)
        self.socket.close()
        self._errors.close()


class EngineProcess:
    """A long-running tool with helper processes (Pulumi and its providers) that can be stopped in order.

    It runs in its own session, so a Ctrl-C on the terminal reaches only Gridup.
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
        """Wait until the tool has ended; return its exit code, stdout and stderr."""
        code = self._process.wait()
        for reader in self._readers:
            # Don't wait for a detached grandchild that still holds the pipe.
            reader.join(timeout=2)
        out, err = (b"".join(self._texts[name]).decode(errors="replace") for name in ("out", "err"))
        return code, out, err

    def stop(self, *, grace: float) -> None:
        """Stop the tool: send SIGINT; after `grace` seconds end its helpers, so that it can end; then kill.

        A second Ctrl-C skips the rest of the current wait. Programs that are meant to outlive Gridup go on.
        """
        # Helpers are found by their parent, so find them before it ends.
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
    """A program that serves only this process and ends with it, even if this process is killed by `kill -9`.

    The program has no input. Its stdout is dropped; the last lines of its stderr are stored.

    Args:
        litter: a folder of files that is deleted when the program ends.

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
            # Cleanup must not kill it: its guard ends it and deletes the litter.
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
        """Return the last lines of its stderr; they are complete once the program has ended."""
        if not self.running:
            self._reader.join(timeout=2)
        return tuple(self._said)

    def close(self) -> None:
        """End the program, if it still runs, and delete the litter."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            kill_group(self._process)
        self._reader.join(timeout=2)
        _close_pipes(self._process)
        # The guard does this a moment later, or never if somebody killed the guard.
        shutil.rmtree(self._litter, ignore_errors=True)


def end_descendants(pid: int) -> None:
    """Kill all processes below `pid`, except those that are meant to outlive Gridup."""
    _kill_all(_descendants(pid))


def _descendants(pid: int) -> list[psutil.Process]:
    """Return the processes below `pid`, without those that are meant to outlive Gridup and their children."""
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
            # psutil also compares the start time, so it does not kill another process that reuses the pid.
            process.kill()
