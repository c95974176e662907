"""The api's side of the sandbox: passes a job on and receives its result. A job's data is untrusted."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gridup_node.sandbox import frames, values
from gridup_node.sandbox.frames import LARGEST, SOCKET, Kind
from gridup_node.sandbox.outcome import MOST_OUTPUT, Failure, Reason

CONNECT_SECONDS = 20.0
"""How long to wait for a sandbox that starts or restarts."""
LOOK_SECONDS = 5.0
LAST_SECONDS = 10.0
"""How long to wait for the report on a process that has ended."""
EVERY_SECONDS = 0.5
"""How often the job's output is passed on."""
MOST_QUESTIONS = 100_000


class Failed(Exception):
    """The job has no result."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason.value)
        self.failure = failure


class Refused(Exception):
    """The node refuses a request of the code; the message is for the code."""


class Hears(Protocol):
    """Receives the events of a running job."""

    def printed(self, text: str) -> None:
        """Receive text that the code printed."""

    def asked(self, what: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Answer a request of the code to the node.

        Raises:
            Refused: the node refuses the request.
        """


@dataclass(frozen=True)
class Request:
    """The code to run.

    Attributes:
        source: a function's definition.
        function: the function's name.
        arguments: by name.
        endpoints: further arguments, which are custom APIs of the node.
        nested: names of further functions that the code may refer to.
        datasite: whether the function takes an argument `datasite`.
    """

    source: str
    function: str
    arguments: Mapping[str, Any]
    endpoints: Sequence[str] = ()
    nested: Sequence[str] = ()
    datasite: bool = False

    def told(self) -> dict[str, Any]:
        """Return the form that is sent."""
        return {
            "source": self.source,
            "function": self.function,
            "arguments": dict(self.arguments),
            "endpoints": list(self.endpoints),
            "nested": list(self.nested),
            "datasite": self.datasite,
        }

    def libraries(self) -> list[str]:
        """Return the libraries that the code probably uses."""
        found = {type(one).__module__.partition(".")[0] for one in self.arguments.values()}
        return [name for name in ("numpy", "pandas") if name in found or name in self.source]


_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""Sockets of running jobs. Copies in processes that the api forks meanwhile would keep them open."""


def _close_copies() -> None:
    for one in list(_open):
        one.close()


os.register_at_fork(after_in_child=_close_copies)


def run(
    folder: Path,
    request: Request,
    hears: Hears,
    *,
    seconds: float,
    unwrap: Callable[[Any], Any] = values.itself,
) -> Any:
    """Run code in the sandbox and return its result.

    Args:
        folder: of the sandbox's socket; its path has at most 100 bytes (unix(7)).
        seconds: the time limit.
        unwrap: see `values.encode`.

    Raises:
        Failed: the code returned nothing, or a value that can't be accepted.
        Unfit: an argument can't be sent.
    """
    pieces = values.encode(request.told(), unwrap)
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(_connect(folder))
        ours, theirs = socket.socketpair()
        _open.update((control, ours, theirs))
        stack.enter_context(ours)
        with theirs:
            word = json.dumps({"seconds": seconds, "libraries": request.libraries()}).encode()
            socket.send_fds(control, [word], [theirs.fileno()])
        del request
        with contextlib.suppress(OSError):
            # A job that ends before it has read all of this may have reported the reason.
            frames.send(ours, Kind.REQUEST, pieces)
        pieces.clear()
        return _Conversation(ours, control, hears, unwrap).held()


def look(folder: Path) -> dict[str, Any]:
    """Return what confines jobs: see `supervisor.Setting.told`.

    Raises:
        OSError: the sandbox does not answer.
    """
    with _reached(folder, LOOK_SECONDS) as control:
        control.sendall(b"{}")
        line = _line(control)
    try:
        told = json.loads(line)
    except ValueError:
        raise OSError("the sandbox has answered something else") from None
    if not isinstance(told, dict):
        raise OSError("the sandbox has answered something else")
    return told


class _Conversation:
    def __init__(
        self, ours: socket.socket, control: socket.socket, hears: Hears, unwrap: Callable[[Any], Any]
    ) -> None:
        self._ours, self._control, self._hears, self._unwrap = ours, control, hears, unwrap
        self._printed: list[str] = []
        self._left = MOST_OUTPUT + 1000
        self._passed_on = time.monotonic()
        self._questions = MOST_QUESTIONS

    def held(self) -> Any:
        """Return the job's result.

        Raises:
            Failed: there is no result.
        """
        # Not `select`: it supports only 1,024 open files.
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        try:
            while True:
                ready = poll.poll(EVERY_SECONDS * 1000 if self._printed else None)
                if time.monotonic() - self._passed_on >= EVERY_SECONDS:
                    self._pass_on()
                if not ready:
                    continue
                kind, data = frames.receive(self._ours, LARGEST)
                if kind is Kind.OUTPUT:
                    self._print(bytes(data).decode("utf-8", "replace"))
                elif kind is Kind.ASK:
                    self._answer(data)
                elif kind is Kind.RESULT:
                    return self._result(data)
                else:
                    raise Failed(_failure(data))
        except (frames.Ended, OSError) as error:
            raise Failed(self._how(str(error))) from None
        finally:
            self._pass_on()

    @staticmethod
    def _result(data: memoryview) -> Any:
        try:
            return values.decode(data, values.Bounds())
        except values.Unfit as error:
            raise Failed(Failure(Reason.RESULT, str(error))) from None

    def _how(self, said: str) -> Failure:
        """Return why the job ended if the job itself reported nothing."""
        if said == frames.TOO_LARGE:
            return Failure(Reason.RESULT, said)
        try:
            self._control.settimeout(LAST_SECONDS)
            # This ends the job, whatever it was doing.
            self._ours.close()
            return Failure.of(json.loads(_line(self._control)))
        except TimeoutError:
            # The job is alive but does not send valid frames.
            return Failure(Reason.ENDED)
        except (OSError, ValueError):
            return Failure(Reason.AWAY)

    def _print(self, text: str) -> None:
        kept = text[: self._left]
        self._left -= len(kept)
        if kept:
            self._printed.append(kept)

    def _pass_on(self) -> None:
        text, self._printed = "".join(self._printed), []
        self._passed_on = time.monotonic()
        if text:
            self._hears.printed(text)

    def _answer(self, data: memoryview) -> None:
        self._pass_on()
        self._questions -= 1
        if self._questions < 0:
            raise Failed(Failure(Reason.ENDED, "it asked the node too often"))
        try:
            what, args, kwargs = values.decode(data, values.Bounds())
            if not (isinstance(what, str) and isinstance(args, list) and isinstance(kwargs, dict)):
                raise values.Unfit("no question")
            answer = values.encode([True, self._hears.asked(what, args, kwargs)], self._unwrap)
        except (Refused, values.Unfit) as error:
            answer = values.encode([False, " ".join(str(error).split())[:500]])
        frames.send(self._ours, Kind.ANSWER, answer)


def _failure(data: memoryview) -> Failure:
    try:
        return Failure.of(json.loads(bytes(data)))
    except (ValueError, RecursionError):
        return Failure(Reason.ENDED)


def _connect(folder: Path) -> socket.socket:
    """Connect to the sandbox. Wait for one that is just starting.

    Raises:
        Failed: there is no sandbox.
    """
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return _reached(folder, None)
        except OSError as error:
            if time.monotonic() > end:
                raise Failed(Failure(Reason.AWAY, error.strerror or "")) from None
        time.sleep(0.1)


def _reached(folder: Path, seconds: float | None) -> socket.socket:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        control.settimeout(seconds)
        control.connect(str(folder / SOCKET))
    except BaseException:
        control.close()
        raise
    return control


def _line(control: socket.socket) -> bytes:
    with control.makefile("rb") as lines:
        return lines.readline(4096)
