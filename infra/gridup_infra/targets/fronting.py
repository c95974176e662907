"""Plain http or https, where the person chooses the address that a node listens on.

What goes by on this machine's loopback is seen by nobody else; beyond it, it is https, unless the person
says otherwise.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from gridup_infra.loopback import is_loopback
from gridup_infra.spec import HTTPS, DeploySpec
from gridup_node.render import LOOPBACK, Tls
from gridup_node.services import PROXY, inside, ports, service

_HOST = re.compile(r"[0-9a-z]([0-9a-z.:-]*[0-9a-z])?|::1")
"""A name or address as it may stand in the reverse proxy's configuration."""

BRIDGES = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|veth.*")
"""Interfaces of Docker's own, which come and go with its networks: nobody finds a node there."""


def settled(spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
    """The spec with what it speaks beyond the loopback.

    A node that was bound there by a Gridup that knew no https stays as it is, for its users have its address;
    `warnings` says so at each deploy.
    """
    if spec.scheme or is_loopback(spec.bind) or _was_beyond(previous):
        return spec
    return replace(spec, scheme=HTTPS)


def _was_beyond(previous: DeploySpec | None) -> bool:
    return bool(previous and previous.bind and not is_loopback(previous.bind))


def warnings(spec: DeploySpec) -> tuple[str, ...]:
    """What the person should know of the address that a node listens on, a line each."""
    if spec.scheme == HTTPS or is_loopback(spec.bind):
        return ()
    line = f'"{spec.name}" speaks plain http at {spec.bind}: whoever is on the way can read and change '
    # Who chose it knows how it is chosen otherwise.
    return (f"{line}passwords and data.{'' if spec.scheme else ' --no-plain-http gives it https.'}",)


def tls(spec: DeploySpec, address: str, names: Sequence[str]) -> Tls | None:
    """How the reverse proxy proves who it is: by the node's own CA; None for plain http.

    Args:
        address: that people connect to.
        names: of the machine, see `names_of`.
    """
    if spec.scheme != HTTPS:
        return None
    return Tls(name=address, more=tuple(dict.fromkeys((*names, *spec.host_names))))


def names_of(spec: DeploySpec, but: re.Pattern[str] | None = None) -> list[str]:
    """The names and addresses of this machine that people may use for a node on it; none for plain http.

    Args:
        but: interfaces that are passed over.
    """
    if spec.scheme != HTTPS:
        return []
    import psutil

    found = [socket.gethostname().lower(), "localhost"]
    bind = ipaddress.ip_address(spec.bind or LOOPBACK)
    if bind.is_unspecified:
        for interface, rows in psutil.net_if_addrs().items():
            for row in rows if but is None or not but.fullmatch(interface) else ():
                with contextlib.suppress(ValueError):
                    address = ipaddress.ip_address(row.address)
                    if not address.is_link_local and address.version <= bind.version:
                        found.append(str(address))
    return sorted({name for name in found if _HOST.fullmatch(name)})


EVERY = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # noqa: S104
"""What stands for every address of this machine, each with one that is elsewhere: for documentation alone."""


def outward(spec: DeploySpec) -> str:
    """What colleagues connect to where a node on this machine listens on every address: the one that the
    machine has on its way out. Empty where it has none, or the node listens on another."""
    return outward_address(EVERY[spec.bind]) if spec.bind in EVERY else ""


def outward_address(elsewhere: str) -> str:
    """The address that this machine has on its way there; empty where it has none. Nothing is sent."""
    family = socket.AF_INET6 if ":" in elsewhere else socket.AF_INET
    with contextlib.suppress(OSError), contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        probe.connect((elsewhere, 9))
        return str(probe.getsockname()[0])
    return ""


def first_port(taken: Collection[int], free: Callable[[int], bool]) -> int:
    """Where a reverse proxy with https is looked for first: syft's client knows no other port than https's
    own, and that one takes the rights of root."""
    own, other = _FIRST
    return own if own not in taken and free(own) else other


_FIRST = (service(PROXY).vm_port, inside(service(PROXY).vm_port))


def usual_ports(spec: DeploySpec) -> dict[str, tuple[int, ...]]:
    """See `Target.usual_ports`."""
    usual: dict[str, tuple[int, ...]] = {name: (port,) for name, port in ports().items()}
    return {**usual, PROXY: _FIRST} if spec.scheme == HTTPS else usual
