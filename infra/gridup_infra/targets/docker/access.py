"""Into a Docker node: commands by exec, logs by the daemon, ssh with the keys that the node has made."""

from __future__ import annotations

import contextlib
import io
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gridup_infra.errors import NotOfferedError, ResourceError
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.paths import Home, ensure_private, write_private
from gridup_infra.processes import Result, wait_until
from gridup_infra.targets.base import NodeAccess, SshAccess
from gridup_infra.targets.docker import container_lifecycle
from gridup_infra.targets.docker.client import connect, connected, reason
from gridup_node import keys
from gridup_node import services as table
from gridup_node.containers import LAID, LAID_SECONDS, VOLUME_PATH

if TYPE_CHECKING:
    import docker

STDOUT, STDERR = 1, 2
"""Docker's numbers of a program's streams."""

FRAME = struct.Struct(">BxxxL")
"""Before each part of what a program writes: its stream, and its size in bytes."""

SSH = "ssh"

END_SECONDS = 5
"""For a program to end that has closed its output."""


class DockerAccess(NodeAccess):
    """The containers of one node."""

    def __init__(self, outputs: NodeOutputs) -> None:
        self._outputs = outputs
        self._host = outputs.facts["host"]
        self._project = outputs.facts["project"]

    def run(
        self, argv: Sequence[str], *, timeout: float, input: bytes | None = None, service: str = ""
    ) -> Result:
        with self._entered(service or table.backends()[0].name) as (client, container):
            return _execute(client, container, argv, timeout, input)

    def programs(self) -> tuple[str, ...]:
        first = table.backends()[0].name
        return (first, *(row.name for row in table.programs() if row.name != first))

    def restart(self, services: Sequence[str]) -> None:
        import docker

        with connected(self._host) as client:
            for name in services:
                try:
                    client.api.restart(f"{self._project}-{name}", timeout=table.service(name).stop_seconds)
                except docker.errors.APIError as error:
                    raise ResourceError(f"{name} could not be started anew: {reason(error)}.") from error
            for name in services:
                container = f"{self._project}-{name}"
                if not wait_until(partial(_ends_well, client, container, LAID), timeout=LAID_SECONDS):
                    tail = container_lifecycle.log_tail(client, container)
                    raise ResourceError(f"{name} did not start anew within {LAID_SECONDS:g} s.", "", tail)

    def logs(self, services: Sequence[str], *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        names = {service: f"{self._project}-{service}" for service in services}
        if follow:
            yield from _follow(self._host, names, lines)
            return
        with connected(self._host) as client:
            for service, name in names.items():
                if (found := container_lifecycle.find(client, name)) is not None:
                    for line in container_lifecycle.log_tail(client, found["Id"], lines):
                        yield service, line

    def ssh(self) -> SshAccess:
        if why := self._outputs.not_offered.get(SSH):
            raise NotOfferedError(f"This node has no ssh: {why}.")
        folder = ensure_private(Home.default().stack(self._outputs.spec.stack) / "keys")
        # Read anew each time: a node that was made anew on the same address has other keys.
        with self._entered(SSH) as (client, container):
            for name in (keys.CLIENT_KEY, keys.KNOWN_HOSTS):
                write_private(folder / name, _read(client, container, f"{VOLUME_PATH}/keys/{name}"))
        return SshAccess(
            user=self._outputs.ssh_user,
            host=self._outputs.address,
            port=self._outputs.ports[SSH],
            key=folder / keys.CLIENT_KEY,
            known_hosts=folder / keys.KNOWN_HOSTS,
        )

    @contextlib.contextmanager
    def _entered(self, service: str) -> Iterator[tuple[docker.DockerClient, str]]:
        """The daemon, and the id of a service's container that runs.

        Raises:
            ResourceError: it does not.
        """
        name = f"{self._project}-{service}"
        with connected(self._host) as client:
            found = container_lifecycle.find(client, name)
            if found is None:
                again = typed("deploy", self._outputs.spec.name)
                raise ResourceError(f"The container {name} is gone.", f"`{again}` makes it anew.")
            if not found["State"]["Running"] or found["State"]["Restarting"]:
                raise ResourceError(
                    f"The container {name} does not run.", f"`{typed('start', self._outputs.spec.name)}`"
                )
            yield client, found["Id"]


def _ends_well(client: docker.DockerClient, container: str, argv: Sequence[str]) -> bool:
    code, _ = container_lifecycle.asked(client, container, argv)
    return code == 0


def _read(client: docker.DockerClient, container: str, path: str) -> bytes:
    """A file of a container.

    Raises:
        ResourceError: it is not there.
    """
    if data := container_lifecycle.read(client, container, path):
        return data
    raise ResourceError("The node has not made its ssh keys yet.", "Is it running?")


def _execute(
    client: docker.DockerClient, identity: str, argv: Sequence[str], timeout: float, input: bytes | None
) -> Result:
    """Run a command in a container.

    Raises:
        TimeoutError: it took longer than `timeout` seconds; it may go on in the container.
    """
    made = client.api.exec_create(identity, list(argv), stdin=input is not None)["Id"]
    client.api.timeout = timeout
    connection = client.api.exec_start(made, socket=True)
    texts: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    raw = getattr(connection, "_sock", connection)
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)

    # In all: the SDK waits for each frame as long as it takes.
    timer = threading.Timer(timeout, expire)
    timer.daemon = True
    timer.start()
    try:
        if input is not None:
            raw.sendall(input)
            _end_input(raw)
        for stream, data in _frames(_reader(connection, raw)):
            texts.setdefault(stream, []).append(data)
    except OSError:
        if not expired.is_set():
            raise
    finally:
        timer.cancel()
        connection.close()
        # The SDK never closes the connection itself.
        raw.close()
    if expired.is_set():
        raise TimeoutError(f"{argv[0]} did not end within {timeout:g} s")
    # The end of what it writes may be known a moment before its own.
    wait_until(lambda: not client.api.exec_inspect(made)["Running"], timeout=END_SECONDS)
    code = client.api.exec_inspect(made)["ExitCode"]
    out, err = (b"".join(texts[stream]).decode(errors="replace") for stream in (STDOUT, STDERR))
    return Result(tuple(argv), 1 if code is None else int(code), out, err)


def _reader(connection: Any, raw: Any) -> Callable[[int], bytes]:
    """Reads what a command writes, at most so many bytes; nothing at its end.

    The SDK hands out the connection from below the buffer that its HTTP client reads the answer's head into.
    What came along with the head is in that buffer.
    """
    early = b""
    if response := getattr(connection, "_response", None):
        raw.settimeout(0)
        early = response.raw._fp.fp.peek()
    raw.settimeout(None)
    begun = io.BytesIO(early)
    return lambda size: begun.read(size) or raw.recv(size)


def _frames(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """What is written, each part with its stream
    (https://docs.docker.com/reference/api/engine/, "Attach to a container")."""
    while len(head := _exactly(read, FRAME.size)) == FRAME.size:
        stream, size = FRAME.unpack(head)
        yield stream, _exactly(read, size)


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """So many bytes; fewer at the end."""
    parts = []
    while size and (part := read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _end_input(connection: Any) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _follow(host: str, names: dict[str, str], lines: int) -> Iterator[tuple[str, str]]:
    """The lines of several containers as they come; ends when all of them have."""
    found: queue.Queue[tuple[str, str] | None] = queue.Queue()
    # Not closed: its threads are in the middle of reading when the person has seen enough.
    client = connect(host)
    client.api.timeout = None

    def read(service: str, name: str) -> None:
        import docker

        try:
            buffer = b""
            for part in client.api.logs(name, stream=True, follow=True, tail=lines):
                *whole, buffer = (buffer + part).split(b"\n")
                for line in whole:
                    found.put((service, line.decode(errors="replace").rstrip("\r")))
        except (docker.errors.DockerException, OSError):
            pass
        finally:
            found.put(None)

    for service, name in names.items():
        threading.Thread(target=read, args=(service, name), daemon=True).start()
    open_ones = len(names)
    while open_ones:
        item = found.get()
        if item is None:
            open_ones -= 1
        else:
            yield item
