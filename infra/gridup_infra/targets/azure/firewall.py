"""Who may reach a node: the rules of its network security group, from the table of services. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gridup_node.services import Audience, firewall_ports

FIRST, STEP = 100, 10
"""Priorities: from 100 to 4096, each once in a direction
(https://learn.microsoft.com/azure/virtual-network/network-security-groups-overview#security-rules)."""

WORLD = ("0.0.0.0/0",)
"""The node has no IPv6 address."""

V6 = "-ipv6"

NEIGHBOURS = "neighbours"
"""The rule that keeps out whoever else is in the virtual network: Azure's own rules, which come after all of
ours, let it in at every port."""

LAST = 4096

NETWORK = "VirtualNetwork"
"""Azure's name for it, and for all that it is joined to."""

NAMES = frozenset(audience.value + suffix for audience in Audience for suffix in ("", V6)) | {NEIGHBOURS}
"""What a rule of ours may be called."""


@dataclass(frozen=True)
class Rule:
    """What is let in, or kept out.

    Attributes:
        ports: TCP ports; none for all that there is, of every protocol.
        who: networks, all of one version of IP: Azure takes no others in one rule. Or one name of Azure's.
    """

    name: str
    priority: int
    ports: tuple[int, ...]
    who: tuple[str, ...]
    allow: bool = True


def rules(allow: Iterable[str], web: Iterable[str], *, shared: bool) -> list[Rule]:
    """The rules of a node: one for each audience and version of IP. Each has the same name and priority
    whoever it lets in, so that a change of that is one of it.

    Args:
        allow: `--allow-cidr`.
        web: `--web-cidr`; empty is the world.
        shared: whether the virtual network is not the node's alone.
    """
    who = {Audience.STAFF: tuple(allow), Audience.WEB: tuple(web) or WORLD}
    ports: dict[Audience, list[int]] = {}
    for port, audience in firewall_ports():
        ports.setdefault(audience, []).append(port)
    made = []
    slots = [(audience, version) for audience in Audience for version in (4, 6)]
    for place, (audience, version) in enumerate(slots):
        networks = {ipaddress.ip_network(cidr) for cidr in who.get(audience, ())}
        ours = sorted(str(net) for net in networks if net.version == version)
        if ours and audience in ports:
            name = audience.value + (V6 if version == 6 else "")
            made.append(Rule(name, FIRST + STEP * place, tuple(sorted(ports[audience])), tuple(ours)))
    return [*made, Rule(NEIGHBOURS, LAST, (), (NETWORK,), allow=False)] if shared else made


def unmanaged_rules(group: Mapping[str, Any], ours: Iterable[str]) -> list[str]:
    """The names of those rules in a security group, as ARM shows it, that are none of ours."""
    known = {name.lower() for name in ours}
    rows = (group.get("properties") or {}).get("securityRules") or ()
    return sorted(str(row["name"]) for row in rows if str(row["name"]).lower() not in known)


def allowed_rules(group: Mapping[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Whom a security group, as ARM shows it, lets in to what: (protocol, port) -> networks."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in (group.get("properties") or {}).get("securityRules") or ():
        rule = row.get("properties") or {}
        if rule.get("access") != "Allow" or rule.get("direction") != "Inbound":
            continue
        ports = list(rule.get("destinationPortRanges") or ()) or [rule.get("destinationPortRange") or "*"]
        who = list(rule.get("sourceAddressPrefixes") or ()) or [rule.get("sourceAddressPrefix") or "*"]
        for port in ports:
            found.setdefault((str(rule.get("protocol", "*")).lower(), str(port)), set()).update(who)
    return found


def drift(group: Mapping[str, Any], wanted: Iterable[Rule]) -> list[str]:
    """The drift of the rules, a line each."""
    asked: dict[tuple[str, str], set[str]] = {}
    wanted = list(wanted)
    for rule in wanted:
        for number in rule.ports:
            asked.setdefault(("tcp", str(number)), set()).update(rule.who)
    has = allowed_rules(group)
    lines = []
    for key in sorted({*asked, *has}):
        protocol, port = key
        lines += [
            f"the firewall's rule {protocol} {port} {who} is gone"
            for who in sorted(asked.get(key, set()) - has.get(key, set()))
        ]
        lines += [
            f"the firewall also lets in {protocol} {port} {who}"
            for who in sorted(has.get(key, set()) - asked.get(key, set()))
        ]
    if any(not rule.allow for rule in wanted) and not _neighbours_kept_out(group):
        lines.append("the firewall's rule that keeps the rest of the virtual network out is gone")
    # Azure's own rules let everything out; the node has none for that.
    lines += [f"the firewall has a rule {name} for what is let out" for name in _outbound(group)]
    return lines


def _outbound(group: Mapping[str, Any]) -> list[str]:
    rows = (group.get("properties") or {}).get("securityRules") or ()
    return sorted(
        str(row["name"]) for row in rows if (row.get("properties") or {}).get("direction") == "Outbound"
    )


def _neighbours_kept_out(group: Mapping[str, Any]) -> bool:
    found = (
        row.get("properties") or {} for row in (group.get("properties") or {}).get("securityRules") or ()
    )
    kept_out = ("Deny", "Inbound", "*", "*", NETWORK)
    keys = ("access", "direction", "protocol", "destinationPortRange", "sourceAddressPrefix")
    return any(tuple(rule.get(key) for key in keys) == kept_out for rule in found)
