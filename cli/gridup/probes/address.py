"""Builds the endpoints to probe, from an address that a user typed or from a stack's outputs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gridup.probes.model import Endpoint, Trust
from gridup_infra.errors import UsageError
from gridup_node.facts import SERVER_TYPES
from gridup_node.services import PROXY, SERVICES, ProbeKind, Service, probed

if TYPE_CHECKING:
    from gridup_infra.outputs import NodeOutputs

HTTP_PORT = 80
HTTPS_PORT = 443
SSH_PORT = 22
UNTIED = "not known to be this node's"
"""Why a service is not offered: the host may have it, but nothing shows that it belongs to the given port."""

_HOST = re.compile(r"[^\s\x00-\x20/?#@:\[\]<>\"\\^`{|}%]+")
_HOW = "Give HOST, HOST:PORT, [IPV6]:PORT or the node's URL, such as 20.31.143.254 or localhost:8080."


@dataclass(frozen=True)
class Address:
    """A host as typed, without brackets. `port` and `scheme` are None if the user gave none."""

    host: str
    port: int | None = None
    scheme: str | None = None


def parse_address(text: str) -> Address:
    """Parse `host`, `host:port`, `[ipv6]:port`, a bare IPv6 address, or a URL (its path is ignored).

    Raises:
        UsageError: the text has none of these forms.
    """
    rest = text.strip()
    scheme: str | None = None
    if "://" in rest:
        given, _, rest = rest.partition("://")
        scheme = given.lower()
        if scheme not in ("http", "https"):
            raise UsageError(f"{text!r} can't be checked: {given}:// is neither http:// nor https://.", _HOW)
    rest = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest:
        raise UsageError(f"{text!r} can't be checked: it names a user.", _HOW)
    host, port = _split_port(rest, text)
    return Address(_checked_host(host, text), port, scheme)


def _split_port(rest: str, text: str) -> tuple[str, int | None]:
    if rest.startswith("["):
        inner, closed, after = rest[1:].partition("]")
        if not closed or not is_ip(inner, version=6) or (after and not after.startswith(":")):
            raise UsageError(f"{text!r} is not an address: [ ] hold an IPv6 address.", _HOW)
        return inner, _port(after[1:], text) if after else None
    if rest.count(":") > 1 and is_ip(rest, version=6):
        return rest, None
    host, colon, port = rest.partition(":")
    return host, _port(port, text) if colon else None


def _port(digits: str, text: str) -> int:
    if digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535:
        return int(digits)
    raise UsageError(f"{text!r} is not an address: {digits!r} is no port (1 to 65535).", _HOW)


def _checked_host(host: str, text: str) -> str:
    if is_ip(host):
        return host
    if not _HOST.fullmatch(host):
        raise UsageError(f"{text!r} is not an address.", _HOW)
    if re.fullmatch(r"[0-9.]+", host):
        raise UsageError(f"{text!r} is not an address: {host} is no IPv4 address.", _HOW)
    try:
        # Reject an empty or overlong label here, before the system's resolver gets it.
        host.encode("idna")
    except UnicodeError:
        raise UsageError(f"{text!r} is not an address: {host} is no host name.", _HOW) from None
    return host


def is_ip(host: str, version: int | None = None) -> bool:
    """Return whether `host` is an IP address (of that version, if given) and not a name."""
    try:
        return version in (None, ipaddress.ip_address(host).version)
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine: a loopback address, `localhost`, or a name below (RFC 6761)."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def endpoints_for_host(text: str, table: Sequence[Service] = SERVICES) -> list[Endpoint]:
    """Return the endpoints of a node that Gridup did not deploy, from an address alone.

    If the address has no port: on a loopback address, the ports are those of the service table, where a
    local node listens (8080, 2222, 8888). On any other host, they are those of the tutorial's VM: 80 for
    the reverse proxy and 22 for ssh (port 80 redirects to https if the node has https). If the address has
    a port, it is the reverse proxy's port. `https://` or port 443 means https.

    ssh and jupyter have their own ports. A given port does not show that they belong to the same node. So
    they are listed as not offered, and are not probed.

    Raises:
        UsageError: `text` is not an address.
    """
    address = parse_address(text)
    tls = address.scheme == "https" or (address.scheme is None and address.port == HTTPS_PORT)
    local = is_loopback(address.host)
    front = address.port or _default_front(address, local, table)
    endpoints = []
    for row in probed(table):
        port = front if row.name == PROXY or row.front_path else row.port
        if row.proof is ProbeKind.SSH_BANNER and not local:
            port = SSH_PORT
        # Only the reverse proxy's scheme is known. Jupyter's own port redirects if it speaks https.
        row_tls = tls and bool(row.front_path)
        endpoint = _endpoint(row, address.host, port, row_tls)
        if address.port and port != front:
            endpoint = replace(endpoint, offered=False, reason=UNTIED)
        endpoints.append(endpoint)
    return endpoints


def _default_front(address: Address, local: bool, table: Sequence[Service]) -> int:
    if address.scheme == "https":
        return HTTPS_PORT
    if local and address.scheme is None:
        return next(row.port for row in table if row.name == PROXY)
    return HTTP_PORT


def _endpoint(row: Service, host: str, port: int, tls: bool) -> Endpoint:
    scheme, default = ("https", HTTPS_PORT) if tls else ("http", HTTP_PORT)
    shown = f"[{host}]" if ":" in host else host
    if row.name == PROXY:
        url = host
    elif row.speaks_http:
        suffix = "" if port == default else f":{port}"
        url = f"{scheme}://{shown}{suffix}{row.front_path}"
    else:
        url = f"{shown}:{port}"
    return Endpoint(
        service=row.name,
        title=row.title,
        url=url,
        proof=row.proof or ProbeKind.ANY,
        host=host,
        port=port,
        path=row.proof_path or "/",
        tls=tls,
    )


def endpoints_for_node(
    outputs: NodeOutputs,
    *,
    open_to: Mapping[str, tuple[str, ...]] | None = None,
    way: Sequence[str] = (),
    table: Sequence[Service] = SERVICES,
) -> list[Endpoint]:
    """Return the endpoints of a node that Gridup deployed.

    Args:
        open_to: for each service that is not open to everybody, the networks that may reach its port.
        way: the command that connects to the node's ssh, see `Endpoint.way`.
    """
    hints = open_to or {}
    endpoints = []
    where = outputs.endpoints(table)
    told = {"name": outputs.spec.name, "server_type": SERVER_TYPES[outputs.spec.node_type]}
    for row in probed(table):
        known = where[row.name]
        tls = outputs.tls if row.name == PROXY else urlsplit(known.url).scheme == "https"
        endpoints.append(
            Endpoint(
                service=row.name,
                title=row.title,
                url=known.url,
                proof=row.proof or ProbeKind.ANY,
                host=known.host,
                port=known.port,
                path=row.proof_path or "/",
                tls=tls,
                expected=told if row.proof is ProbeKind.SYFT_METADATA else None,
                # The node's own CA signs for this node only. A CA that certifies names signs for others too.
                trust=Trust(outputs.ca, named=outputs.named, ours=True),
                offered=not known.reason,
                reason=known.reason,
                way=tuple(way) if row.proof is ProbeKind.SSH_BANNER else (),
                open_to=hints.get(row.name, ()),
                node=outputs.spec.name,
            )
        )
    return endpoints
