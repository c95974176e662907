"""Chooses free ports of this machine for a node: once, under a lock, and none that another node reserves."""

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
"""How many ports after the default one to try."""

Obstacle = Callable[[str, int], int | None]
"""Takes an address and a port. Returns the errno of an attempt to listen there; None if it would work."""


def reachable(bind: str) -> str:
    """Return the address to connect to if a service listens on `bind`: the loopback for a wildcard."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104


def bind_errno(address: str, port: int) -> int | None:
    """Return the errno of an attempt to listen at an address and port; None if it would work.

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
    """Return whether a program of this account could listen there now.

    Raises:
        ResourceError: this machine has no such address.
    """
    return look(address, port) is None


def hold(address: str, port: int) -> bool:
    """Reserve a free port until the node's program listens there, or this process ends.

    Other runs may search for free ports at the same time, such as for nodes of another GRIDUP_HOME or another
    account. On a system that does not allow a second socket on the address, nothing is reserved: another
    program may get the port first, and then the next deploy takes another port.

    Returns:
        False if somebody uses the port, or has reserved it this way.
    """
    if sys.platform != "linux":
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    mark, kept = socket.socket(socket.AF_UNIX), socket.socket(family, socket.SOCK_STREAM)
    # Servers set this option too. Then a socket that is bound but does not listen does not prevent another
    # one from listening (socket(7)). Without the option, the last connections of a node that has just ended
    # would prevent this bind.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Two runs of Gridup could both bind the port. Only one can have the abstract socket name, and the
        # kernel frees it when the process ends.
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
    """Check that a program of this account could listen there now.

    Raises:
        ResourceError: it could not; the message has the reason.
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
    """Return who listens on `port`, for a message: "nginx (process 812)", or "another process"."""
    import psutil

    for pid in listeners(port):
        with contextlib.suppress(psutil.Error):
            return f"{psutil.Process(pid).name()} (process {pid})"
    return "another process"


def listeners(port: int) -> set[int]:
    """Return the ids of the processes that listen on `port`, as far as this account may see them."""
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
    """Return {port: the node that reserves it, in words} of all local nodes but the one in `folder`.

    Nodes reserve their ports whether they run or not.
    """
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
    """Check that no other node reserves `port`.

    Args:
        kept: the reserved ports, each with its node in words.

    Raises:
        ResourceError: a node reserves it; the message names the node.
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
    """Return a port for every key of `wanted`.

    Args:
        wanted: the default ports, from the service table.
        asked: ports that the user asked for; used exactly, or refused.
        current: ports that this node has; they stay unless the user asks for others.
        bind: the address that the services listen on.
        taken: ports that are reserved, each with who reserves it, in words.
        inner: keys of `wanted` that listen on the loopback instead.
        look: checks whether a port is free.
        hold: reserves a port that was found; false if another program has got it first.

    Raises:
        ResourceError: an asked port is in use or reserved, or no free port was found.
    """
    chosen: dict[str, int] = {}
    fixed = {key: asked.get(key) or current.get(key, 0) for key in wanted}
    for key, default in wanted.items():
        port, address = fixed[key], LOOPBACK if key in inner else bind
        if port and port != current.get(key):
            # The ports of a stopped node seem free, but they are reserved.
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
    # The next ports after a privileged default (80) are privileged too.
    yield default
    start = max(default + 1, 1024)
    yield from range(start, min(start + TRIES, LAST + 1))


def announced(spec: DeploySpec) -> tuple[str, ...]:
    """Return a line about the ports of a new node, as far as they are known before it is created."""
    asked = {services.PROXY: spec.port} if spec.port else {}
    rows = [row for row in services.probed() if row.port and not row.front_path]
    if spec.scheme == HTTPS and not asked:
        # The https port is chosen when the node is created: it depends on what the machine allows.
        rows = [row for row in rows if row.name != services.PROXY]
    titles = {services.PROXY: "the node"}
    told = [f"{titles.get(row.name, row.title)} at {asked.get(row.name, row.port)}" for row in rows]
    return (f"ports: {', '.join(told)}; in the place of one that is in use, the next free one",)
