"""Frames between the api and a job: a kind, a length, and that many bytes. Standard library only."""

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
"""That folder, in the node's folder."""
SHELL = "GRIDUP_SHELL"
"""The variable that names the isolation layer in which the service already runs: `CONTAINER`."""
CONTAINER = "container"

PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
SMALL = 1 << 20
_HEAD = struct.Struct(">cQ")


class Kind(Enum):
    """The kind of a frame."""

    REQUEST = b"Q"
    """To the job, the first frame: what to run."""
    ANSWER = b"A"
    """To the job: the answer to its request."""
    OUTPUT = b"O"
    """From the job: printed text in UTF-8."""
    ASK = b"K"
    """From the job: a request that only the node can answer."""
    RESULT = b"R"
    """From the job, the last frame: the result of the code."""
    FAILURE = b"F"
    """From the job, the last frame: why there is no result; JSON of `Failure`."""


LARGEST: Mapping[Kind, int] = {
    Kind.OUTPUT: 64 << 10,
    Kind.ASK: 16 << 20,
    Kind.RESULT: 256 << 20,
    Kind.FAILURE: 64 << 10,
}
"""The most bytes that a job may send in a frame of each kind."""


class Ended(Exception):
    """The other side is gone, or sends an invalid frame."""


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
    """Return the next frame.

    Args:
        largest: the allowed kinds, each with its most bytes; None for a trusted side.

    Raises:
        Ended: there is no next frame, or it is too large.
        OSError: reading failed.
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
    # Pages without content cost no memory, whatever length the other side announces.
    data = memoryview(mmap.mmap(-1, size, flags=PRIVATE) if size > SMALL else bytearray(size))
    at = 0
    while at < size:
        count = connection.recv_into(data[at:])
        if not count:
            raise Ended("cut off")
        at += count
    return data
