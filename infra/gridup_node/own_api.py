"""Where the api listens, and the way there for the node's own programs. Standard library only.

In a container of its own it has a port, which leads from the container's network alone. Beside the reverse
proxy, on a machine that others use too, it has a socket in the node's folder, which is its user's alone.
"""

from __future__ import annotations

import errno
import http.client
import os
import socket
from contextlib import suppress
from pathlib import Path

from gridup_node.facts import Facts, NodeDir
from gridup_node.services import service

SOCKET = service("api").socket


def connection(folder: NodeDir, node: Facts, seconds: float) -> http.client.HTTPConnection:
    """A way to the api, not yet connected; `seconds` bound each step of it."""
    port = node.ports.get("api")
    return http.client.HTTPConnection("127.0.0.1", port, timeout=seconds) if port else _Local(folder, seconds)


def where(node: Facts) -> str:
    """The api's place, in words."""
    port = node.ports.get("api")
    return f"127.0.0.1:{port}" if port else SOCKET


def claim() -> None:
    """Make the socket's file in the working folder, its user's alone: uvicorn gives its own the same rights.

    Raises:
        OSError: a server listens there. One that was killed has left only the file.
    """
    place = Path(SOCKET)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(SOCKET)
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(SOCKET)
        place.chmod(0o600)


class _Local(http.client.HTTPConnection):
    def __init__(self, folder: NodeDir, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._root: Path = folder.root

    def connect(self) -> None:
        here = os.open(".", os.O_RDONLY)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            os.chdir(self._root)
            self.sock.connect(SOCKET)
        except OSError:
            self.close()
            raise
        finally:
            os.fchdir(here)
            os.close(here)
