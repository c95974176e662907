"""Free ports of this machine for a node: chosen once, under a lock, and never one that another keeps."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from gridup_infra.errors import ResourceError
from gridup_infra.outputs import url_host
from gridup_infra.spec import HTTPS, DeploySpec
from gridup_node import services
from gridup_node.render import LOOPBACK

LAST = 65535

TRIES = 200
"""How far from the default to look for a free port."""

Obstacle = Callable[[str, int], int | None]
"""The number of the error that listening on an address and port would meet; None when it would work."""


def reachable(bind: str) -> str:
    """The address to connect to when a service listens on `bind`: a wildcard is reached by loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104


def bind_errno(address: str, port: int) -> int | None:
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


def free(address: str, port: int, look: Obstacle = bind_errno) -> bool:
    """Whether we could listen there now.

    Raises:
        ResourceError: this machine has no such address.
    """
    return look(address, port) is None


def hold(address: str, port: int) -> bool:
    """Keep a free port from all others on this machine until our program listens there, or this one ends.

    Others look for free ports meanwhile, for nodes of another GRIDUP_HOME or another person, say. Nothing is
    kept where a system lets no second socket have the address: there a port may be lost to others, and the
    next deploy takes another one.

    Returns:
        False when somebody has it, or keeps it like that.
    """
    if sys.platform != "linux":
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    mark, kept = socket.socket(socket.AF_UNIX), socket.socket(family, socket.SOCK_STREAM)
    # Servers set it, and a bound socket that does not listen is in nobody's way who does (socket(7)). Without
    # it the last connections of a node that has just ended would be.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Two of us could bind that. An abstract name is one's alone, and ends with the program.
        mark.bind(f"\0gridup-port-{port}")
        kept.bind((address, port))
    except OSError:
        mark.close()
        kept.close()
        return False
    _held.extend((mark, kept))
    return True


_held: list[socket.socket] = []


def check_free(address: str, port: int, look: Obstacle = bind_errno) -> None:
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

    for pid in listeners(port):
        with contextlib.suppress(psutil.Error):
            return f"{psutil.Process(pid).name()} (process {pid})"
    return "another process"


def listeners(port: int) -> set[int]:
    """The processes that listen on `port`, as far as the system tells."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return {
            connection.pid
            for connection in psutil.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        }
    return set()


def reserved_by_others(nodes: Path, folder: Path | None = None) -> dict[int, str]:
    """Ports that local nodes but the one in `folder` keep, whether they run or not, and who keeps them."""
    kept: dict[int, str] = {}
    for path in nodes.glob("*/config/node.json"):
        if path.parent.parent != folder:
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
                facts = json.loads(path.read_text(encoding="utf-8"))
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


def allocate(
    wanted: Mapping[str, int],
    asked: Mapping[str, int],
    current: Mapping[str, int],
    bind: str,
    taken: Mapping[int, str],
    inner: Collection[str] = (),
    look: Obstacle = bind_errno,
    hold: Callable[[str, int], bool] = lambda _address, _port: True,
) -> dict[str, int]:
    """A port for every key of `wanted`.

    Args:
        bind: the address that they listen on, but those of `inner`, which keep to the loopback.
        wanted: the defaults, from the service table.
        asked: ports that the person asked for; taken as they are, or refused.
        current: ports that this node has: kept where they are not asked to change.
        taken: ports not to be given away, each with who keeps it, in words.
        look: how it is seen whether a port is free.
        hold: keeps one that was found; false when it is another's after all.

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
            found = (p for p in _from(default) if p not in others and free(address, p, look))
            port = next((p for p in found if hold(address, p)), 0)
        if not port:
            raise ResourceError(f"No free port was found from {default} on for {key}.")
        chosen[key] = port
    return chosen


def _from(default: int) -> Iterator[int]:
    # A privileged default (80) would find only privileged ones beside it.
    yield default
    start = max(default + 1, 1024)
    yield from range(start, min(start + TRIES, LAST + 1))


def announced(spec: DeploySpec) -> tuple[str, ...]:
    """At which ports a new node is reached, as far as that is known before it is made."""
    asked = {services.PROXY: spec.port} if spec.port else {}
    rows = [row for row in services.probed() if row.port and not row.front_path]
    if spec.scheme == HTTPS and not asked:
        # Chosen when it is made: which of https's may be had depends on the machine.
        rows = [row for row in rows if row.name != services.PROXY]
    titles = {services.PROXY: "the node"}
    told = [f"{titles.get(row.name, row.title)} at {asked.get(row.name, row.port)}" for row in rows]
    return (f"ports: {', '.join(told)}; in the place of one that is in use, the next free one",)
