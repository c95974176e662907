"""Into a Docker node: commands by exec, logs by the daemon, ssh with the keys that the node has made."""

from __future__ import annotations

import contextlib
import io
import queue
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from gridup_infra.errors import ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.paths import Home, ensure_private, write_private
from gridup_infra.processes import Result, wait_until
from gridup_infra.targets.base import SshAccess, WayIn
from gridup_infra.targets.docker import running
from gridup_infra.targets.docker.client import connect, connected
from gridup_node import keys
from gridup_node.containers import VOLUME_PATH
from gridup_node.services import backends

if TYPE_CHECKING:
    import docker

STDOUT, STDERR = 1, 2
"""Docker's numbers of a program's streams."""

END_SECONDS = 5
"""For a program to end that has closed its output."""


class DockerWayIn(WayIn):
    """The containers of one node."""

    def __init__(self, outputs: NodeOutputs) -> None:
        self._outputs = outputs
        self._host = outputs.facts["host"]
        self._project = outputs.facts["project"]

    def run(self, argv: Sequence[str], *, timeout: float, input: bytes | None = None) -> Result:
        return self._run(backends()[0].name, argv, timeout=timeout, input=input)

    def logs(self, services: Sequence[str], *, lines: int, follow: bool) -> Iterator[tuple[str, str]]:
        names = {service: f"{self._project}-{service}" for service in services}
        if follow:
            yield from _follow(self._host, names, lines)
            return
        with connected(self._host) as client:
            for service, name in names.items():
                if (found := running.find(client, name)) is not None:
                    for line in running.log_tail(client, found["Id"], lines):
                        yield service, line

    def ssh(self) -> SshAccess:
        service = "ssh"
        if reason := self._outputs.not_offered.get(service):
            raise ResourceError(f"This node has no ssh: {reason}.")
        folder = ensure_private(Home.default().stack(self._outputs.spec.stack) / "keys")
        # Read anew each time: a node that was made anew on the same address has other keys.
        with self._entered(service) as (client, container):
            for name in (keys.CLIENT_KEY, keys.KNOWN_HOSTS):
                write_private(folder / name, _read(client, container, f"{VOLUME_PATH}/keys/{name}"))
        return SshAccess(
            user=self._outputs.ssh_user,
            host=self._outputs.address,
            port=self._outputs.ports[service],
            key=folder / keys.CLIENT_KEY,
            known_hosts=folder / keys.KNOWN_HOSTS,
        )

    def _run(
        self, service: str, argv: Sequence[str], *, timeout: float, input: bytes | None = None
    ) -> Result:
        with self._entered(service) as (client, container):
            return _execute(client, container, argv, timeout, input)

    @contextlib.contextmanager
    def _entered(self, service: str) -> Iterator[tuple[docker.DockerClient, str]]:
        """The daemon, and the id of a service's container that runs.

        Raises:
            ResourceError: it does not.
        """
        name = f"{self._project}-{service}"
        with connected(self._host) as client:
            found = running.find(client, name)
            if found is None:
                raise ResourceError(f"The container {name} is gone.", "`gridup deploy` makes it anew.")
            if not found["State"]["Running"] or found["State"]["Restarting"]:
                raise ResourceError(
                    f"The container {name} does not run.", f'`gridup start "{self._outputs.spec.name}"`'
                )
            yield client, found["Id"]


def _read(client: docker.DockerClient, container: str, path: str) -> bytes:
    """A file of a container, by the daemon and not by a program in it.

    A program that writes in its first milliseconds and ends, as `cat` does, may have its output lost by
    Docker (20.10: once in some hundred times on a busy machine).

    Raises:
        ResourceError: it is not there.
    """
    import docker

    try:
        parts, _ = client.api.get_archive(container, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
            file = tar.extractfile(PurePosixPath(path).name)
            data = file.read() if file else b""
    except docker.errors.NotFound:
        data = b""
    if not data:
        raise ResourceError("The node has not made its ssh keys yet.", "Is it running?")
    return data


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
    try:
        raw = getattr(connection, "_sock", connection)
        raw.settimeout(timeout)
        if input is not None:
            raw.sendall(input)
            _end_input(raw)
        for stream, data in _frames(connection):
            texts.setdefault(stream, []).append(data)
    except TimeoutError:
        raise TimeoutError(f"{argv[0]} did not end within {timeout:g} s") from None
    finally:
        connection.close()
    # The end of what it writes may be known a moment before its own.
    wait_until(lambda: not client.api.exec_inspect(made)["Running"], timeout=END_SECONDS)
    code = client.api.exec_inspect(made)["ExitCode"]
    out, err = (b"".join(texts[stream]).decode(errors="replace") for stream in (STDOUT, STDERR))
    return Result(tuple(argv), 1 if code is None else int(code), out, err)


def _frames(connection: Any) -> Iterator[tuple[int, bytes]]:
    from docker.utils.socket import frames_iter_no_tty

    yield from frames_iter_no_tty(connection)


def _end_input(connection: Any) -> None:
    import socket

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
