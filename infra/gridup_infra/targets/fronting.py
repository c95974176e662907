"""Chooses plain http or https for a node if the user chooses the address that it listens on.

On the loopback nobody else can read the data, so the node speaks plain http. On another address it speaks
https, unless the user chooses plain http.
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
"""A name or address that is allowed in the reverse proxy's configuration."""

BRIDGES = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|veth.*")
"""Docker's own interfaces, which appear and disappear with its networks. Nobody reaches a node there."""


def settled(spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
    """Return the spec with the scheme for an address beyond the loopback: https, unless the user chose one.

    A node that an older Gridup without https deployed there keeps plain http, because its users have that
    address. `warnings` reports this at each deploy.
    """
    if spec.scheme or is_loopback(spec.bind) or _was_beyond(previous):
        return spec
    return replace(spec, scheme=HTTPS)


def _was_beyond(previous: DeploySpec | None) -> bool:
    return bool(previous and previous.bind and not is_loopback(previous.bind))


def warnings(spec: DeploySpec) -> tuple[str, ...]:
    """Return warnings about the address that a node listens on, a line each."""
    if spec.scheme == HTTPS or is_loopback(spec.bind):
        return ()
    line = f'"{spec.name}" speaks plain http at {spec.bind}: whoever is on the way can read and change '
    # A user who chose plain http knows the option.
    return (f"{line}passwords and data.{'' if spec.scheme else ' --no-plain-http gives it https.'}",)


def tls(spec: DeploySpec, address: str, names: Sequence[str]) -> Tls | None:
    """Return the TLS settings of the reverse proxy, with the node's own CA; None for plain http.

    Args:
        address: the address that users connect to.
        names: the machine's names and addresses, see `names_of`.
    """
    if spec.scheme != HTTPS:
        return None
    return Tls(name=address, more=tuple(dict.fromkeys((*names, *spec.host_names))))


def names_of(spec: DeploySpec, but: re.Pattern[str] | None = None) -> list[str]:
    """Return this machine's names and addresses that users may use for a node on it; empty for plain http.

    Args:
        but: the names of interfaces to skip.
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
"""The wildcard addresses, each with an address outside of this machine that is reserved for documentation."""


def outward(spec: DeploySpec) -> str:
    """Return the address that other machines connect to if a node here listens on every address.

    It is the source address of this machine's outgoing connections. Empty if there is none, or if the node
    does not listen on a wildcard address.
    """
    return outward_address(EVERY[spec.bind]) if spec.bind in EVERY else ""


def outward_address(elsewhere: str) -> str:
    """Return this machine's source address for connections to `elsewhere`; empty if none. Sends nothing."""
    family = socket.AF_INET6 if ":" in elsewhere else socket.AF_INET
    with contextlib.suppress(OSError), contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        probe.connect((elsewhere, 9))
        return str(probe.getsockname()[0])
    return ""


def first_port(taken: Collection[int], free: Callable[[int], bool]) -> int:
    """Return the first port to try for a reverse proxy with https: 443 if it is available, else another one.

    syft's client reaches https only at 443. To listen there needs the rights of root.

    Args:
        taken: ports that are reserved.
        free: whether this node could listen at a port.
    """
    own, other = _FIRST
    return own if own not in taken and free(own) else other


_FIRST = (service(PROXY).vm_port, inside(service(PROXY).vm_port))


def usual_ports(spec: DeploySpec) -> dict[str, tuple[int, ...]]:
    """Return the result of `Target.usual_ports` for a node on this machine."""
    usual: dict[str, tuple[int, ...]] = {name: (port,) for name, port in ports().items()}
    return {**usual, PROXY: _FIRST} if spec.scheme == HTTPS else usual
