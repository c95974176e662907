"""Free ports of this machine for a node: chosen once, under a lock, and never one that another keeps."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from gridup_infra.errors import ResourceError
from gridup_infra.outputs import url_host
from gridup_node.render import LOOPBACK

LAST = 65535

TRIES = 200
"""How far from the default to look for a free port."""

Obstacle = Callable[[str, int], int | None]
"""The number of the error that listening on an address and port would meet; None when it would work."""


def reachable(bind: str) -> str:
    """The address to connect to when a service listens on `bind`: a wildcard is reached by loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104


def obstacle(address: str, port: int) -> int | None:
    """The number of the error that listening there would meet; None when it would work.

    Raises:
        ResourceError: this machine has no such address.
    """
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
            return error.errno
    return None


def free(address: str, port: int, look: Obstacle = obstacle) -> bool:
    """Whether we could listen there now.

    Raises:
        ResourceError: this machine has no such address.
    """
    return look(address, port) is None


def check_free(address: str, port: int, look: Obstacle = obstacle) -> None:
    """Nothing, when we could listen there now.

    Raises:
        ResourceError: we could not; it says why.
    """
    met = look(address, port)
    if met == errno.EACCES:
        raise ResourceError(
            f"Port {port} of {url_host(address)} needs the rights of root.",
            "Give a --port from 1024 on, or none.",
        )
    if met is not None:
        raise ResourceError(
            f"Port {port} of {url_host(address)} is in use by {holder(port)}.",
            "Give another --port, or none: the next free one is taken.",
        )


def holder(port: int) -> str:
    """Who listens on `port`, for a message: "nginx (process 812)", or "another process"."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("inet"):
            at = connection.laddr.port if connection.laddr else 0
            if connection.status == psutil.CONN_LISTEN and at == port and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f"{name} (process {connection.pid})"
    return "another process"


def kept_by_others(nodes: Path, folder: Path | None = None) -> dict[int, str]:
    """Ports that local nodes but the one in `folder` keep, whether they run or not, and who keeps them."""
    kept: dict[int, str] = {}
    for path in nodes.glob("*/config/node.json"):
        if path.parent.parent != folder:
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
                facts = json.loads(path.read_text())
                kept.update(
                    dict.fromkeys(facts["ports"].values(), f'the node "{facts["name"]}" of this machine')
                )
    return kept


def check_kept(port: int, kept: Mapping[int, str]) -> None:
    """Nothing, when no other node keeps `port`.

    Raises:
        ResourceError: one does; it is named.
    """
    if port in kept:
        raise ResourceError(
            f"Port {port} is kept by {kept[port]}.",
            "Give another --port, or none: the next free one is taken.",
        )


def choose(
    wanted: Mapping[str, int],
    asked: Mapping[str, int],
    current: Mapping[str, int],
    bind: str,
    taken: Mapping[int, str],
    inner: Collection[str] = (),
    look: Obstacle = obstacle,
) -> dict[str, int]:
    """A port for every key of `wanted`.

    Args:
        bind: the address that they listen on, but those of `inner`, which keep to the loopback.
        wanted: the defaults, from the service table.
        asked: ports that the person asked for; taken as they are, or refused.
        current: ports that this node has: kept where they are not asked to change.
        taken: ports not to be given away, each with who keeps it, in words.
        look: how it is seen whether a port is free.

    Raises:
        ResourceError: an asked port is in use or kept, or no free one was found.
    """
    chosen: dict[str, int] = {}
    fixed = {key: asked.get(key) or current.get(key, 0) for key in wanted}
    for key, default in wanted.items():
        port, address = fixed[key], LOOPBACK if key in inner else bind
        if port and port != current.get(key):
            # A stopped node's ports look free.
            check_kept(port, taken)
            own = next((other for other, at in current.items() if at == port and other != key), None)
            if own is not None:
                raise ResourceError(f"Port {port} is this node's own for {own}.", "Give another --port.")
            check_free(address, port, look)
        if not port:
            others = {*taken, *chosen.values(), *fixed.values()}
            port = next((p for p in _from(default) if p not in others and free(address, p, look)), 0)
        if not port:
            raise ResourceError(f"No free port was found from {default} on for {key}.")
        chosen[key] = port
    return chosen


def _from(default: int) -> Iterator[int]:
    # A privileged default (80) would find only privileged ones beside it.
    yield default
    start = max(default + 1, 1024)
    yield from range(start, min(start + TRIES, LAST + 1))
