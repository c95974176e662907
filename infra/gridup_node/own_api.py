"""The address of the API, and connections to it from the node's own programs. Standard library only.

In its own container the API has a port, which only the container's networks can reach. Where it shares a
machine with the reverse proxy and other users, it has a socket in the node's folder, which only its user can
open.
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
    """Return a connection to the API, not yet connected. `seconds` is the timeout of each step."""
    port = node.ports.get("api")
    return http.client.HTTPConnection("127.0.0.1", port, timeout=seconds) if port else _Local(folder, seconds)


def where(node: Facts) -> str:
    """Return the API's address as text."""
    port = node.ports.get("api")
    return f"127.0.0.1:{port}" if port else SOCKET


def claim() -> None:
    """Create the socket's file in the working directory, with access for its user only.

    uvicorn gives its own socket the same mode. A file that a killed server left is replaced.

    Raises:
        OSError: a server listens on the socket already.
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
