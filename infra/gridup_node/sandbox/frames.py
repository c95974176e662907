"""Frames between the api and a job: a kind, a length, that many bytes. Standard library only."""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Iterable, Mapping
from enum import Enum

from gridup_node.sandbox.values import Blob

SOCKET = "socket"
"""The service's socket, in the folder that it shares with the api."""
FOLDER = "jobs"
"""That folder, in the node's."""
SHELL = "GRIDUP_SHELL"
"""The variable that names the shell which the service is in already: `CONTAINER`."""
CONTAINER = "container"

PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SMALL = 1 << 20
_HEAD = struct.Struct(">cQ")


class Kind(Enum):
    """What a frame holds."""

    REQUEST = b"Q"
    """To the job, and the first: what to run."""
    ANSWER = b"A"
    """To the job: what it asked for."""
    OUTPUT = b"O"
    """What the code has printed: UTF-8."""
    ASK = b"K"
    """Something that only the node can do."""
    RESULT = b"R"
    """The last: what the code has returned."""
    FAILURE = b"F"
    """The last: why it has not; JSON of `Failure`."""


LARGEST: Mapping[Kind, int] = {
    Kind.OUTPUT: 64 << 10,
    Kind.ASK: 16 << 20,
    Kind.RESULT: 256 << 20,
    Kind.FAILURE: 64 << 10,
}
"""Bytes of what a job may send."""


class Ended(Exception):
    """The other side is gone, or sends what is no frame."""


def send(connection: socket.socket, kind: Kind, pieces: Iterable[Blob]) -> None:
    """Send one frame.

    Raises:
        OSError: the other side is gone.
    """
    pieces = list(pieces)
    connection.sendall(_HEAD.pack(kind.value, sum(len(piece) for piece in pieces)))
    for piece in pieces:
        if len(piece):
            connection.sendall(piece)


def receive(connection: socket.socket, largest: Mapping[Kind, int] | None = None) -> tuple[Kind, memoryview]:
    """The next frame.

    Args:
        largest: the bytes that each kind may have, and the kinds that there may be; None for a trusted side.

    Raises:
        Ended: there is none; also where one is too large.
        OSError: as reading says.
    """
    name, size = _HEAD.unpack(_exactly(connection, _HEAD.size))
    try:
        kind = Kind(name)
    except ValueError:
        raise Ended("no frame") from None
    if largest is not None and size > largest.get(kind, -1):
        raise Ended(TOO_LARGE if kind in largest else "no frame")
    return kind, _exactly(connection, size)


TOO_LARGE = "too large"


def _exactly(connection: socket.socket, size: int) -> memoryview:
    # Pages that nothing was read into cost nothing, whatever length was announced.
    data = memoryview(mmap.mmap(-1, size, flags=PRIVATE) if size > SMALL else bytearray(size))
    at = 0
    while at < size:
        count = connection.recv_into(data[at:])
        if not count:
            raise Ended("cut off")
        at += count
    return data
