"""Access to a machine by ssh: a synchronous interface to asyncssh, in which every wait has a time limit.

The machine's host key is pinned: a machine with another key is refused. The user's ~/.ssh and agent are not
used, with one exception: if the user named a machine that is reached through others (ProxyJump or
ProxyCommand), the user's own ssh makes the connection through them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import random
import shlex
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from gridup_infra import openssh
from gridup_infra.errors import PreflightError, ResourceError
from gridup_infra.naming import typed
from gridup_infra.processes import TAIL_LINES, Passage, Result
from gridup_infra.vm.keys import HOST_KEY_TYPE
from gridup_node import services
from gridup_node.vm.machine import USER

if TYPE_CHECKING:
    import asyncssh

ATTEMPT_SECONDS = 15.0
"""Time limit for one attempt to connect and log in."""

ALIVE_SECONDS, ALIVE_COUNT = 15, 4
"""Keepalive: drop a connection after ALIVE_SECONDS x ALIVE_COUNT = 60 s without a reply."""

GRACE_SECONDS = 10.0
"""Extra time for asyncssh to cancel work by itself after the work's time limit."""

KILL_ON_DISCONNECT = (
    "sh",
    "-c",
    'exec 3<&0; "$@" </dev/null 2>&1 3<&- & child=$!; '
    '{ cat <&3; kill "$child"; } >/dev/null 2>&1 & wait "$child"',
    "watched",
)
"""Prefix of an argv, for a program that never ends by itself. It kills the program on the machine when the
connection ends."""

FIRST_PAUSE, LONGEST_PAUSE = 0.3, 5.0

Answer = TypeVar("Answer")


class SshUnreachableError(ResourceError):
    """The machine can't be entered, or the connection is interrupted."""


class AuthenticationError(SshUnreachableError):
    """The machine answers but does not accept the management key."""


class HostKeyError(SshUnreachableError):
    """A machine with another host key answers at the address."""


@dataclass(frozen=True)
class SshEndpoint:
    """The ssh address of a machine, and the keys to enter it.

    Attributes:
        key: the private key, in OpenSSH's format.
        host_key: the machine's pinned host key, as a line; empty before the first contact.
        host: the name under which the user's own ssh knows the machine, and the way to it through other
            machines. Empty for a machine that is reached directly.
        name: the node's name; empty if it is not known.
    """

    address: str
    key: str = field(repr=False)
    host_key: str = ""
    user: str = USER
    port: int = services.service("ssh").vm_port
    host: str = ""
    name: str = ""

    def way(self) -> tuple[str, ...]:
        """Return the argv that connects to a machine behind others, see `openssh.way`; () for a direct one.

        Raises:
            PreflightError: the user's ssh can't resolve `host`.
        """
        return openssh.way(self.host, self.address, self.port, self.user) if self.host else ()


@contextmanager
def ssh_session(
    door: SshEndpoint, *, timeout: float, say: Callable[[str], None] | None = None, retry_auth: bool = True
) -> Iterator[Session]:
    """Log in and yield the session. Tries again for `timeout` seconds while the machine does not answer.

    Args:
        say: called with the reason for waiting, each time the reason changes.
        retry_auth: whether to try again also while the machine does not accept the key (yet).

    Raises:
        HostKeyError: the host key is not the pinned one.
        AuthenticationError: the machine does not accept the key.
        SshUnreachableError: the machine can't be entered in time.
    """
    session = Session(door)
    try:
        session.open(timeout, say or (lambda _text: None), retry_auth=retry_auth)
        yield session
    finally:
        session.close()


def host_key_of(address: str, port: int, timeout: float, way: Sequence[str] = ()) -> str:
    """Return the host key of the machine at an address, as a line, without a login.

    Args:
        timeout: in seconds.
        way: see `openssh.Configured.way`.

    Raises:
        SshUnreachableError: no machine answers, or it has no key of `HOST_KEY_TYPE`. The message is the bare
            reason.
    """
    import asyncssh

    passage = Passage(way) if way else None

    async def ask() -> Any:
        by = passage.socket if passage else None
        asking = asyncssh.get_server_host_key(
            address, port, server_host_key_algs=[HOST_KEY_TYPE], config=None, sock=by
        )
        return await asyncio.wait_for(asking, timeout)

    try:
        key = asyncio.run(ask())
    except (TimeoutError, asyncio.TimeoutError):
        raise SshUnreachableError(_said(passage) or "no answer") from None
    except (OSError, asyncssh.Error) as error:
        raise SshUnreachableError(_said(passage) or _reason(error)) from None
    finally:
        if passage:
            passage.close()
    if key is None:
        raise SshUnreachableError(f"it shows no host key of the type {HOST_KEY_TYPE}")
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def fingerprint(host_key: str) -> str:
    """Return a host key's fingerprint, as OpenSSH shows it to users."""
    import asyncssh

    return str(asyncssh.import_public_key(host_key).get_fingerprint())


class Session:
    """An ssh login, with a thread that runs its event loop and keeps it alive. Created by `ssh_session`."""

    def __init__(self, door: SshEndpoint) -> None:
        self._door = door
        self._connection: asyncssh.SSHClientConnection | None = None
        self._passage: Passage | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="gridup-ssh")
        self._thread.start()

    @property
    def host_key(self) -> str:
        """The machine's host key, as a line in OpenSSH's format."""
        key = self._open.get_server_host_key()
        assert key is not None
        return " ".join(key.export_public_key("openssh").decode().split()[:2])

    def open(self, timeout: float, say: Callable[[str], None], *, retry_auth: bool = True) -> None:
        """Log in; see `ssh_session`."""
        end, pause, said = time.monotonic() + timeout, FIRST_PAUSE, ""
        try:
            way = self._door.way()
        except PreflightError as error:
            raise SshUnreachableError(error.message, error.suggestion) from None
        while True:
            try:
                limit = max(1.0, min(ATTEMPT_SECONDS, end - time.monotonic()))
                self._connect(way, limit)
                return
            except HostKeyError:
                raise
            except SshUnreachableError as error:
                if isinstance(error, AuthenticationError) and not retry_auth:
                    raise AuthenticationError(
                        f"The machine at {self._door.address} can't be entered: {error.message}."
                    ) from None
                if time.monotonic() + pause >= end:
                    raise type(error)(
                        f"The machine at {self._door.address} could not be entered by ssh within "
                        f"{timeout:g} s: {error.message}.",
                        "Does it run, and is its ssh open to the address that you come from "
                        "(on a cloud: --allow-cidr)?",
                    ) from None
                if error.message != said:
                    said = error.message
                    say(f"waiting for ssh: {said}")
            time.sleep(pause * random.uniform(0.7, 1.0))  # noqa: S311
            pause = min(pause * 1.6, LONGEST_PAUSE)

    def run(self, argv: Sequence[str], *, timeout: float, input: bytes | None = None) -> Result:
        """Run a program to its end and return its output. The shell expands no word of `argv`.

        Raises:
            TimeoutError: the program takes longer than `timeout` seconds. It may continue on the machine.
            SshUnreachableError: the connection is interrupted.
        """
        return self._wait(self._run(argv, input, None, timeout), timeout)

    def stream(
        self, argv: Sequence[str], on_line: Callable[[str], None], *, timeout: float, input: bytes = b""
    ) -> Result:
        """Run a program like `run`, and call `on_line` with each line of its stdout as it arrives.

        The result holds only the last lines of stdout.
        """
        return self._wait(self._run(argv, input, on_line, timeout), timeout)

    def put(self, path: str, data: bytes, *, timeout: float) -> None:
        """Write a file atomically, readable only by the login user. Creates its folder if it is missing.

        Args:
            path: relative to the login user's home, or absolute.

        Raises:
            SshUnreachableError: the file can't be written, or the connection is interrupted.
            TimeoutError: the write takes longer than `timeout` seconds.
        """
        script = 'umask 077 && mkdir -p -- "${1%/*}" && cat >"$1.$$" && mv -f -- "$1.$$" "$1"'
        done = self.run(["sh", "-c", script, "put", path], timeout=timeout, input=data)
        if not done.ok:
            raise SshUnreachableError(f"{path} could not be written on the machine: {' '.join(done.tail())}.")

    def follow(self, commands: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
        """Yield (name, line) from several programs as lines arrive, until all programs have ended.

        When the connection closes, a program only ends if it ends at EOF on stdin: see `KILL_ON_DISCONNECT`.

        Args:
            commands: each program's argv by its name.
        """
        found: queue.Queue[tuple[str, str] | None] = queue.Queue()

        async def read(name: str, argv: Sequence[str]) -> None:
            try:
                process = await self._open.create_process(f"exec {shlex.join(argv)} 2>&1", encoding=None)
                async for line in _lines(process.stdout):
                    found.put((name, line))
            except (OSError, _error()):
                pass
            finally:
                found.put(None)

        for name, argv in commands.items():
            asyncio.run_coroutine_threadsafe(read(name, argv), self._loop)
        left = len(commands)
        while left:
            item = found.get()
            if item is None:
                left -= 1
            else:
                yield item

    def close(self) -> None:
        """Close the connection; remote programs see EOF on stdin. Never raises."""
        if self._connection is not None:
            self._connection.abort()
        if self._passage is not None:
            self._passage.close()
        with contextlib.suppress(TimeoutError, SshUnreachableError):
            self._wait(_wind_up(), GRACE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=GRACE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def _connect(self, way: Sequence[str], timeout: float) -> None:
        """Try once to connect and log in. Raises as the function `_connect` does."""
        passage = Passage(way) if way else None
        try:
            by = passage.socket if passage else None
            self._connection = self._wait(_connect(self._door, by, timeout), timeout)
            self._passage, passage = passage, None
        except SshUnreachableError as error:
            if isinstance(error, (HostKeyError, AuthenticationError)) or not (why := _said(passage)):
                raise
            raise SshUnreachableError(why) from None
        finally:
            if passage:
                passage.close()

    @property
    def _open(self) -> asyncssh.SSHClientConnection:
        assert self._connection is not None, "it is open within `ssh_session`"
        return self._connection

    def _wait(self, work: Coroutine[Any, Any, Answer], timeout: float) -> Answer:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout + GRACE_SECONDS)
        except BaseException as error:
            # Before Python 3.11, a future's TimeoutError is another class than the built-in one.
            expired = isinstance(error, concurrent.futures.TimeoutError) and not future.done()
            future.cancel()
            if expired:
                raise TimeoutError(f"no answer within {timeout:g} s") from None
            raise

    async def _run(
        self,
        argv: Sequence[str],
        input: bytes | None,
        on_line: Callable[[str], None] | None,
        timeout: float,
    ) -> Result:
        import asyncssh

        try:
            stdin = asyncssh.DEVNULL if input is None else asyncssh.PIPE
            process = await self._open.create_process(shlex.join(argv), stdin=stdin, encoding=None)
        except (OSError, asyncssh.Error) as error:
            raise self._broke_off(error) from None
        try:
            parts = await asyncio.wait_for(_communicate(process, input, on_line), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            raise TimeoutError(f"{argv[0]} did not end within {timeout:g} s") from None
        except (OSError, asyncssh.Error) as error:
            raise self._broke_off(error) from None
        finally:
            process.close()
        code = process.returncode
        if code is None:
            raise self._broke_off(None)
        return Result(tuple(argv), code, *parts)

    def _broke_off(self, error: Exception | None) -> SshUnreachableError:
        why = f": {_reason(error)}" if error else ""
        return SshUnreachableError(
            f"The connection to {self._door.address} broke off{why}.", "Run the same again."
        )


def _said(passage: Passage | None) -> str:
    """Return why the program that connects through other machines failed; empty if it printed no reason."""
    why, _ = openssh.diagnose(passage.said(), "", "") if passage else ("", "")
    return f"on the way there: {why}" if why else ""


async def _connect(
    door: SshEndpoint, by: socket.socket | None, timeout: float
) -> asyncssh.SSHClientConnection:
    """Try once to connect and log in.

    Args:
        by: an existing connection to the machine's sshd; None to connect directly.

    Raises:
        HostKeyError: the host key is not the pinned one.
        AuthenticationError: the machine does not accept the key.
        SshUnreachableError: the attempt fails for another reason. The message is the bare reason.
    """
    import asyncssh

    pinned = asyncssh.import_public_key(door.host_key) if door.host_key else None
    attempt = asyncssh.connect(
        door.address,
        door.port,
        username=door.user,
        client_keys=[asyncssh.import_private_key(door.key)],
        known_hosts=([pinned], [], []) if pinned else None,
        server_host_key_algs=[HOST_KEY_TYPE],
        preferred_auth=["publickey"],
        sock=by,
        # Ignore the user's own ssh settings and agent.
        config=None,
        agent_path=None,
        connect_timeout=timeout,
        login_timeout=timeout,
        keepalive_interval=ALIVE_SECONDS,
        keepalive_count_max=ALIVE_COUNT,
    )
    try:
        return await asyncio.wait_for(attempt, timeout)
    except asyncssh.HostKeyNotVerifiable:
        raise HostKeyError(
            f"The host key of {door.address} is not the one that was pinned at first contact: "
            "another machine answers at that address, or somebody is in between.",
            "If the machine was replaced behind Gridup's back: on a cloud "
            f"`{typed('deploy', door.name or 'NAME', '--new-machine')}` makes another; "
            "the new key of a machine of your own is given with --host-key.",
        ) from None
    except asyncssh.PermissionDenied:
        # Until cloud-init has run, the login user does not exist or has no key.
        raise AuthenticationError("the deployment's key is not accepted") from None
    except (TimeoutError, asyncio.TimeoutError):
        raise SshUnreachableError("no answer") from None
    except (OSError, asyncssh.Error) as error:
        raise SshUnreachableError(_reason(error)) from None


async def _communicate(
    process: asyncssh.SSHClientProcess[bytes], input: bytes | None, on_line: Callable[[str], None] | None
) -> tuple[str, str]:
    async def feed() -> None:
        if input is not None:
            # A program may end without reading all its input: its exit code then shows whether it failed.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(input)
                await process.stdin.drain()
                process.stdin.write_eof()

    async def output() -> str:
        if on_line is None:
            return (await process.stdout.read()).decode(errors="replace")
        last: list[str] = []
        async for line in _lines(process.stdout):
            last.append(line)
            del last[:-TAIL_LINES]
            on_line(line)
        return "\n".join(last)

    async def errors() -> str:
        return (await process.stderr.read()).decode(errors="replace")

    _, out, err = await asyncio.gather(feed(), output(), errors())
    await process.wait_closed()
    return out, err


async def _lines(reader: Any) -> Any:
    while line := await reader.readline():
        yield line.decode(errors="replace").rstrip("\r\n")


async def _wind_up() -> None:
    """Cancel all tasks of the event loop, and end the threads that resolve names."""
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    await asyncio.get_running_loop().shutdown_default_executor()


def _error() -> type[Exception]:
    import asyncssh

    return asyncssh.Error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__
