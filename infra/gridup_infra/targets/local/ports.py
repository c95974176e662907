"""Free ports for a local node: chosen once, under a lock, and never one that another node keeps."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from gridup_infra.errors import ResourceError
from gridup_infra.outputs import url_host

TRIES = 200
"""How far from the default to look for a free port."""


def free(address: str, port: int) -> bool:
    """Whether something could listen there now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ResourceError(
                    f"This machine has no address {address}.", "Give --bind one of its own, or 127.0.0.1."
                ) from None
            return False
    return True


def holder(port: int) -> str:
    """Who listens on `port`, for a message: "nginx (process 812)", or "another process"."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f"{name} (process {connection.pid})"
    return "another process"


def kept_by_others(nodes: Path, folder: Path) -> set[int]:
    """Ports that other nodes of this machine keep, whether they run or not."""
    kept: set[int] = set()
    for path in nodes.glob("*/config/node.json"):
        if path.parent.parent != folder:
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
                kept.update(json.loads(path.read_text())["ports"].values())
    return kept


def choose(
    wanted: Mapping[str, int],
    asked: Mapping[str, int],
    current: Mapping[str, int],
    bind: str,
    taken: Collection[int],
) -> dict[str, int]:
    """A port for every key of `wanted`.

    Args:
        wanted: the defaults, from the service table.
        asked: ports that the person asked for; taken as they are, or refused.
        current: ports that this node has: kept where they are not asked to change.
        taken: ports not to be given away.

    Raises:
        ResourceError: an asked port is in use, or no free one was found.
    """
    chosen: dict[str, int] = {}
    fixed = {key: asked.get(key) or current.get(key, 0) for key in wanted}
    for key, default in wanted.items():
        port = fixed[key]
        if port and port != current.get(key) and not free(bind, port):
            raise ResourceError(
                f"Port {port} of {url_host(bind)} is in use by {holder(port)}.", "Give another --port, or none."
            )
        if not port:
            others = {*taken, *chosen.values(), *fixed.values()}
            port = next((p for p in _from(default) if p not in others and free(bind, p)), 0)
        if not port:
            raise ResourceError(f"No free port was found from {default} on for {key}.")
        chosen[key] = port
    return chosen


def _from(default: int) -> Iterator[int]:
    # A privileged default (80) would find only privileged ones beside it.
    yield default
    yield from range(max(default + 1, 1024), max(default + 1, 1024) + TRIES)
