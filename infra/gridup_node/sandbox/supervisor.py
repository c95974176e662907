"""The service of the sandbox: accepts jobs from the api, runs each in a process, ends it in time, cleans up.

It does not read what a job receives or sends: the api passes one end of a socket pair, which goes to the job.
On the connection itself the service only receives the job's time limit and libraries, and reports how its
process ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridup_node.sandbox import confining, job
from gridup_node.sandbox.frames import SOCKET
from gridup_node.sandbox.outcome import Reason

AT_ONCE = 4
"""Jobs that run at the same time if the kernel separates their files; else one."""
MOST_THREADS = 256
"""Threads of one job."""
WATCH_SECONDS = 0.1
"""Time between two counts of the jobs' threads. The kernel's own limit counts all of a user's threads
together, and does not apply to root.
"""
LIBRARIES = ("numpy", "pandas")
"""Libraries that are loaded before the first job that uses them. All later jobs share them."""
FIRST_SECONDS = 5.0
"""How long to wait for the api's first message."""
LONGEST_WORD = 4096
LEAST_MEMORY = 128 << 20
KEPT_MEMORY = 96 << 20
"""Bytes of the service's memory that no job gets."""
BACKLOG = 128
PREFIX = "job-"
"""The beginning of the name of each job's folder."""


@dataclass(frozen=True)
class Setting:
    """Where and how jobs run here.

    Attributes:
        folder: of the socket.
        temporary: the folder of the jobs' own folders.
        shell: the isolation layer around all jobs, for users; empty for none.
        own: whether everything writable here belongs to the sandbox.
        memory: bytes for one job.
    """

    folder: Path
    temporary: Path
    shell: str
    own: bool
    memory: int

    @property
    def at_once(self) -> int:
        return AT_ONCE if confining.landlock() or not self.own else 1

    @property
    def means(self) -> list[str]:
        """What confines jobs, for users."""
        version = confining.landlock()
        rows = (
            self.shell,
            f"Landlock {version}" if version else "",
            "seccomp" if confining.seccomp() else "",
        )
        return [*(row for row in rows if row), "rlimits"]

    def told(self) -> dict[str, Any]:
        """Return the report for `gridup check`."""
        return {"means": self.means, "at_once": self.at_once, "memory": self.memory}


@dataclass
class _Job:
    control: socket.socket
    theirs: socket.socket
    seconds: float
    libraries: tuple[str, ...]
    pid: int = 0
    folder: Path | None = None
    end: float = 0.0
    ended_for: Reason | None = None


def readable() -> tuple[Path, ...]:
    """Return what a job may read: the system's programs and libraries, Python's, and Gridup's code."""
    # On some systems a path in a system folder is a link to another folder.
    rows = [Path(one) for one in confining.SYSTEM]
    rows += [Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), Path(__file__).parents[1]]
    rows += [Path(path) for path in sysconfig.get_paths().values()]
    return tuple(dict.fromkeys(row for row in rows if row.exists()))


class Supervisor:
    """The service; see the module."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._selector = selectors.DefaultSelector()
        self._jobs: dict[int, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._readable = readable()
        self._listener: socket.socket | None = None
        self._inode = 0
        self._stopped = False

    def serve(self) -> None:
        """Run until SIGTERM."""
        confining.hide()
        confining.adopt()
        for left in self._setting.temporary.glob(f"{PREFIX}*"):
            _remove(left)
        wake, woken = os.pipe()
        for end in (wake, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._selector.register(wake, selectors.EVENT_READ)
        try:
            while not self._stopped:
                self._listen()
                self._step(wake)
        finally:
            for one in list(self._jobs.values()):
                self._kill(one, Reason.ENDED)
                os.waitpid(one.pid, 0)
                self._clean(one)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _listen(self) -> None:
        """Create the socket if it is missing. On a system without Landlock a job can delete it."""
        path = self._setting.folder / SOCKET
        if self._listener is not None:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == self._inode and path.is_socket():
                    return
            self._selector.unregister(self._listener)
            self._listener.close()
        fresh = self._setting.folder / f".{SOCKET}"
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Bind relative to the folder: a socket's path has room for only 107 bytes.
        before = os.open(".", os.O_RDONLY)
        try:
            os.chdir(self._setting.folder)
            listener.bind(f".{SOCKET}")
        finally:
            os.fchdir(before)
            os.close(before)
        fresh.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        fresh.replace(path)
        self._inode = path.stat().st_ino
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def _step(self, wake: int) -> None:
        now = time.monotonic()
        left = [min(one.end - now, WATCH_SECONDS) for one in self._jobs.values() if one.ended_for is None]
        ready = self._selector.select(max(0.0, min(left, default=60.0)))
        for key, _ in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            elif isinstance(key.data, _Job):
                # The api sends nothing more, so it has gone.
                self._forget(key.data)
        self._reap()
        now = time.monotonic()
        for one in self._jobs.values():
            if one.ended_for is None and now >= one.end:
                self._kill(one, Reason.TIME)
            elif one.ended_for is None and _threads(one.pid) > MOST_THREADS:
                self._kill(one, Reason.THREADS)
        while self._waiting and len(self._jobs) < self._setting.at_once:
            self._start(self._waiting.popleft())

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            control, _ = self._listener.accept()
        except OSError:
            return
        control.settimeout(FIRST_SECONDS)
        fds: list[int] = []
        try:
            word, fds, _, _ = socket.recv_fds(control, LONGEST_WORD, 1)
            told = json.loads(word)
            if not fds:
                control.sendall(json.dumps(self._setting.told()).encode() + b"\n")
                control.close()
                return
            theirs = socket.socket(fileno=fds.pop())
            libraries = tuple(name for name in LIBRARIES if name in told.get("libraries", ()))
            one = _Job(control, theirs, float(told["seconds"]), libraries)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            for left in fds:
                os.close(left)
            control.close()
            return
        self._selector.register(control, selectors.EVENT_READ, one)
        self._waiting.append(one)

    def _start(self, one: _Job) -> None:
        self._load(one.libraries)
        try:
            one.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._setting.temporary))
            # Otherwise the job's process would write buffered output again.
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
        except OSError as error:
            if one.folder is not None:
                _remove(one.folder)
            self._tell(one, Reason.AWAY, error.strerror or "no process could be made")
            return
        if pid == 0:
            job.main(one.theirs, one.folder, self._setting.memory, self._readable)
        one.theirs.close()
        one.pid, one.end = pid, time.monotonic() + one.seconds
        self._jobs[pid] = one

    @staticmethod
    def _load(libraries: tuple[str, ...]) -> None:
        missing = [name for name in libraries if name not in sys.modules]
        for name in missing:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        if missing:
            gc.collect()
            # Keep shared memory shared: the collector then does not write to these objects.
            gc.freeze()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            one = self._jobs.pop(pid, None)
            if one is None:
                continue
            self._clean(one)
            self._tell(one, *self._how(one, status))

    def _how(self, one: _Job, status: int) -> tuple[Reason, str]:
        if one.ended_for is not None:
            most = {Reason.TIME: f"{one.seconds:g} s", Reason.THREADS: f"{MOST_THREADS}"}
            return one.ended_for, most.get(one.ended_for, "")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGKILL:
                # Nobody else sends SIGKILL here: the kernel ran out of memory and ended the job.
                return Reason.MEMORY, f"{self._setting.memory >> 20} MB"
            return Reason.ENDED, f"signal {number}"
        return Reason.ENDED, ""

    def _tell(self, one: _Job, reason: Reason, detail: str) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(one.control)
        with contextlib.suppress(OSError):
            one.control.sendall(json.dumps({"reason": reason.value, "detail": detail}).encode() + b"\n")
        one.control.close()
        one.theirs.close()

    def _forget(self, one: _Job) -> None:
        self._selector.unregister(one.control)
        if one in self._waiting:
            self._waiting.remove(one)
            one.control.close()
            one.theirs.close()
        elif one.pid:
            self._kill(one, Reason.ENDED)

    @staticmethod
    def _kill(one: _Job, why: Reason) -> None:
        one.ended_for = one.ended_for or why
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)

    def _clean(self, one: _Job) -> None:
        """Delete all that a job left: processes and files."""
        with contextlib.suppress(OSError):
            os.killpg(one.pid, signal.SIGKILL)
        if not confining.seccomp():
            self._sweep()
        if one.folder is not None:
            _remove(one.folder)
        if not self._jobs and not confining.landlock():
            self._wipe()

    def _sweep(self) -> None:
        """End child processes that are not jobs: their parents have ended."""
        while strays := [pid for pid in _children() if pid not in self._jobs]:
            for pid in strays:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.waitpid(pid, 0)

    def _wipe(self) -> None:
        """Empty all writable folders, if the sandbox owns them and nothing else keeps jobs out of them."""
        # `own` alone is not enough: if it were wrong, a user would lose files. In Gridup's own isolation
        # layers the root is read-only.
        if not self._setting.own or not os.statvfs("/").f_flag & os.ST_RDONLY:
            return
        shared = ("/dev/shm", "/var/tmp", os.path.expanduser("~"))  # noqa: PTH111, S108
        for place in (self._setting.temporary, *map(Path, shared)):
            with contextlib.suppress(OSError):
                for path in place.iterdir():
                    _remove(path)


def _remove(path: Path) -> None:
    for _ in range(2):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
        if not os.path.lexists(path):
            return
        # A job on some systems can lock a folder against the service.
        for root, folders, _ in os.walk(path):
            for name in (*folders, ""):
                with contextlib.suppress(OSError):
                    os.chmod(os.path.join(root, name), 0o700)  # noqa: PTH101, PTH118


def _children() -> list[int]:
    found = []
    for name in os.listdir("/proc") if confining.LINUX else []:  # noqa: PTH208
        with contextlib.suppress(OSError, ValueError, IndexError):
            if _stat(int(name), 4) == os.getpid():
                found.append(int(name))
    return found


def _threads(pid: int) -> int:
    """Return the number of a process's threads; 0 if the system does not report it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return _stat(pid, 20)
    return 0


def _stat(pid: int, field: int) -> int:
    """Return a field of a process's `stat` on Linux, by its number in proc(5)."""
    # The name may contain anything. The first field after it is the third.
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[field - 3])


def memory_of_one(share: float) -> int:
    """Return the bytes for one job: the container's limit, but at most `share` of the machine's memory."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = int(whole * share)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            most = min(most, int(Path(path).read_text()))
    return max(most - KEPT_MEMORY, LEAST_MEMORY)
