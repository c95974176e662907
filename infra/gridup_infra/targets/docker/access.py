"""Access to a Docker node: commands by `docker exec`, logs from the daemon, ssh with the node's own keys."""

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
"""Docker's numbers for a program's output streams."""

FRAME = struct.Struct(">BxxxL")
"""The header of each frame of output: the stream's number, and the frame's size in bytes."""

SSH = "ssh"

END_SECONDS = 5
"""Time limit for a program to end after it has closed its output."""


class DockerAccess(NodeAccess):
    """Access to the containers of one node."""

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
        # Read the keys each time: a node that was created again at the same address has other keys.
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
        """Yield a client of the daemon, and the id of a service's running container.

        Raises:
            ResourceError: the container does not exist or does not run.
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
    """Return the content of a file in a container.

    Raises:
        ResourceError: the file does not exist or is empty.
    """
    if data := container_lifecycle.read(client, container, path):
        return data
    raise ResourceError("The node has not made its ssh keys yet.", "Is it running?")


def _execute(
    client: docker.DockerClient, identity: str, argv: Sequence[str], timeout: float, input: bytes | None
) -> Result:
    """Run a command in a container.

    Raises:
        TimeoutError: the command takes longer than `timeout` seconds. It may continue in the container.
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

    # One time limit for the whole command: the SDK waits for each frame without a limit.
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
        # The SDK never closes the socket.
        raw.close()
    if expired.is_set():
        raise TimeoutError(f"{argv[0]} did not end within {timeout:g} s")
    # The daemon may report the end of the output a moment before the end of the program.
    wait_until(lambda: not client.api.exec_inspect(made)["Running"], timeout=END_SECONDS)
    code = client.api.exec_inspect(made)["ExitCode"]
    out, err = (b"".join(texts[stream]).decode(errors="replace") for stream in (STDOUT, STDERR))
    return Result(tuple(argv), 1 if code is None else int(code), out, err)


def _reader(connection: Any, raw: Any) -> Callable[[int], bytes]:
    """Return a function that reads at most `size` bytes of a command's output; b"" at the end.

    The SDK returns the raw socket, below the buffer of its HTTP client. The client reads the response's head
    into that buffer, and the first output may be in the buffer as well. The function reads the buffer first.
    """
    early = b""
    if response := getattr(connection, "_response", None):
        raw.settimeout(0)
        early = response.raw._fp.fp.peek()
    raw.settimeout(None)
    begun = io.BytesIO(early)
    return lambda size: begun.read(size) or raw.recv(size)


def _frames(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each frame of output as (stream, data).

    See https://docs.docker.com/reference/api/engine/, "Attach to a container".
    """
    while len(head := _exactly(read, FRAME.size)) == FRAME.size:
        stream, size = FRAME.unpack(head)
        yield stream, _exactly(read, size)


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """Return exactly `size` bytes; fewer at the end of the output."""
    parts = []
    while size and (part := read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _end_input(connection: Any) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _follow(host: str, names: dict[str, str], lines: int) -> Iterator[tuple[str, str]]:
    """Yield (service, line) from the logs of several containers as lines arrive, until all logs end."""
    found: queue.Queue[tuple[str, str] | None] = queue.Queue()
    # The client is not closed: its threads may still be reading when the user stops the command.
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
