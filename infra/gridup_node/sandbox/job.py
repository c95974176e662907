"""The process of one job: it confines itself, reads what to run, runs it, sends the result and ends.

It has nothing of the node. The code finds only itself, its arguments, and a folder that is emptied
afterwards.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import gc
import io
import json
import linecache
import mmap
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gridup_node.sandbox import confining, frames, values
from gridup_node.sandbox.frames import Kind
from gridup_node.sandbox.outcome import MOST_OUTPUT, Failure, Reason

SOURCE = "<approved code>"
LONGEST_TRACE = 16_000
LONGEST_CHAIN = 10
CUT = "\n… what follows was cut off: a job may print {limit} characters.\n"
ROOM = 32 << 20
"""Reserved bytes, so that a job that used up its memory can still report this."""


def main(connection: socket.socket, folder: Path, memory: int, readable: tuple[Path, ...]) -> None:
    """Become a job. Never returns.

    Args:
        connection: to the api.
        folder: the only one that the job may write to; empty.
        memory: bytes that the job may use.
        readable: what the job may read.
    """
    code = 1
    try:
        _shut_in(connection, folder, memory, readable)
        _converse(_Talk(connection), memory)
        code = 0
    except (OSError, frames.Ended, KeyboardInterrupt):
        # The api is gone, or a limit could not be set.
        pass
    finally:
        # Exit without cleanup: the cleanup belongs to the process that this one was copied from.
        os._exit(code)


def _shut_in(connection: socket.socket, folder: Path, memory: int, readable: tuple[Path, ...]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.setsid()
    confining.end_with_parent()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    own = connection.fileno()
    os.closerange(3, own)
    os.closerange(own + 1, 65_536)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(
        HOME=str(folder),
        TMPDIR=str(folder),
        LANG="C.UTF-8",
        PATH="/usr/bin:/bin",
        PYTHONDONTWRITEBYTECODE="1",
    )
    sys.argv, sys.path_importer_cache = [""], {}
    sys.path[:] = [path for path in sys.path if path]
    confining.end_first()
    confining.limit(memory)
    confining.drop_rights()
    if confining.landlock():
        confining.confine_files(readable, folder)
    if confining.seccomp():
        confining.confine_calls()


class _Talk:
    """The connection to the api; the code's threads take turns."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._left = MOST_OUTPUT

    def request(self) -> dict[str, Any]:
        kind, data = frames.receive(self._connection)
        if kind is not Kind.REQUEST:
            raise frames.Ended("no request")
        found = values.decode(data)
        return dict(found)

    def printed(self, text: str) -> None:
        with self._lock:
            if self._left <= 0 or not text:
                return
            kept = text[: self._left]
            self._left -= len(kept)
            if self._left <= 0:
                kept += CUT.format(limit=MOST_OUTPUT)
            step = frames.LARGEST[Kind.OUTPUT] // 4
            for at in range(0, len(kept), step):
                data = kept[at : at + step].encode("utf-8", "replace")
                frames.send(self._connection, Kind.OUTPUT, [data])

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request to the node and return the answer.

        Raises:
            RuntimeError: the node refused.
        """
        with self._lock:
            frames.send(self._connection, Kind.ASK, values.encode([what, list(args), kwargs]))
            kind, data = frames.receive(self._connection)
        if kind is not Kind.ANSWER:
            raise frames.Ended("no answer")
        done, answer = values.decode(data)
        if not done:
            raise RuntimeError(answer)
        return answer

    def result(self, pieces: list[values.Blob]) -> None:
        with self._lock:
            frames.send(self._connection, Kind.RESULT, pieces)

    def failed(self, failure: Failure) -> None:
        with self._lock:
            frames.send(self._connection, Kind.FAILURE, [json.dumps(failure.told()).encode()])


def _converse(talk: _Talk, memory: int) -> None:
    spare = mmap.mmap(-1, ROOM, flags=frames.PRIVATE)
    try:
        request = talk.request()
        out = _Printed(talk.printed)
        sys.stdout = sys.stderr = out
        result = _run(request, talk)
        out.flush()
        pieces = values.encode(result, most=values.MOST_VALUES)
        size = sum(len(piece) for piece in pieces)
        most = frames.LARGEST[Kind.RESULT]
        if size > most:
            raise values.Unfit(f"{size >> 20} MB, where {most >> 20} may be")
        if len(pieces[1]) > values.LARGEST_TREE:
            raise values.Unfit("too many values")
    except BaseException as error:  # noqa: BLE001 - the code may raise anything
        # The report of the failure needs memory too, and there may be none left.
        spare.close()
        failure = _failure(error, memory)
        error.__traceback__ = error.__context__ = error.__cause__ = None
        gc.collect()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        talk.failed(failure)
        return
    spare.close()
    talk.result(pieces)


def _run(request: Mapping[str, Any], talk: _Talk) -> Any:
    source: str = request["source"]
    # For the source lines in tracebacks.
    linecache.cache[SOURCE] = (len(source), None, source.splitlines(keepends=True), SOURCE)
    arguments = dict(request["arguments"])
    for name in request["endpoints"]:
        arguments[name] = Endpoint(talk, name)
    if request["datasite"]:
        arguments["datasite"] = Datasite(talk)
    scope: dict[str, Any] = {"__builtins__": builtins, "__name__": "approved", "print": print}
    scope |= dict.fromkeys(request["nested"])
    exec(compile(source, SOURCE, "exec", dont_inherit=True), scope)  # noqa: S102 - running code is the purpose of a job
    return scope[request["function"]](**arguments)


class Datasite:
    """syft's object for code with an argument of that name: the code reports its progress with it."""

    __slots__ = ("_ask",)
    _ask: Callable[..., Any]

    def __init__(self, talk: _Talk) -> None:
        object.__setattr__(self, "_ask", talk.ask)

    def __setattr__(self, _name: str, _value: object) -> None:
        raise AttributeError("the datasite can't be altered")

    def init_progress(self, n_iters: int) -> None:
        self._ask("progress", of=int(n_iters), to=0)

    def set_progress(self, to: int) -> None:
        self._ask("progress", to=int(to))

    def increment_progress(self, n: int = 1) -> None:
        self._ask("progress", by=int(n))

    def launch_job(self, *_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("on this node a job starts no other jobs")


class Endpoint:
    """A custom API of the administrator's, passed to the code. It runs in the node."""

    def __init__(self, talk: _Talk, name: str) -> None:
        self._talk, self._name = talk, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call("call", args, kwargs)

    def mock(self, *args: Any, **kwargs: Any) -> Any:
        return self._call("mock", args, kwargs)

    def private(self, *args: Any, **kwargs: Any) -> Any:
        return self._call("private", args, kwargs)

    def _call(self, mode: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._talk.ask("endpoint", self._name, mode, list(args), kwargs)


class _Printed(io.TextIOBase):
    """Sends printed text, a line at a time."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._line: list[str] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text = str(text)
        self._line.append(text)
        self._size += len(text)
        if "\n" in text or self._size > 4096:
            self.flush()
        return len(text)

    def flush(self) -> None:
        line, self._line, self._size = "".join(self._line), [], 0
        self._tell(line)


def _failure(error: BaseException, memory: int) -> Failure:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-20))
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(chain) < LONGEST_CHAIN:
        chain.append(one)
        one = one.__cause__ or one.__context__
    # Libraries often raise an error of their own that hides the refusal behind it.
    reason = next((found for each in chain if (found := _reason(each)) is not Reason.RAISED), Reason.RAISED)
    detail = f"{memory >> 20} MB" if reason is Reason.MEMORY else ""
    return Failure(reason, str(error) if isinstance(error, values.Unfit) else detail, trace[-LONGEST_TRACE:])


def _reason(error: BaseException) -> Reason:
    if isinstance(error, values.Unfit):
        return Reason.RESULT
    if isinstance(error, MemoryError):
        return Reason.MEMORY
    if isinstance(error, socket.gaierror):
        # Names are looked up over the network.
        return Reason.NETWORK
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return Reason.MEMORY
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOENT):
            return Reason.FILES
        if error.errno == errno.ENETUNREACH:
            return Reason.NETWORK
        if error.errno == errno.EPERM:
            return Reason.SYSTEM
    return Reason.RAISED
