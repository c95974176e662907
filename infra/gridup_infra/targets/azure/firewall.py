"""Who may reach a node: the rules of its network security group, from the table of services. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gridup_node.services import Audience, openings

FIRST, STEP = 100, 10
"""Priorities: from 100 to 4096, each once in a direction
(https://learn.microsoft.com/azure/virtual-network/network-security-groups-overview#security-rules)."""

WORLD = ("0.0.0.0/0",)
"""The node has no IPv6 address."""

V6 = "-ipv6"

NAMES = frozenset(audience.value + suffix for audience in Audience for suffix in ("", V6))
"""What a rule of ours may be called."""


@dataclass(frozen=True)
class Rule:
    """What is let in.

    Attributes:
        who: networks, all of one version of IP: Azure takes no others in one rule.
    """

    name: str
    priority: int
    ports: tuple[int, ...]
    who: tuple[str, ...]


def rules(allow: Iterable[str], web: Iterable[str]) -> list[Rule]:
    """The rules of a node: one for each audience and version of IP. Each has the same name and priority
    whoever it lets in, so that a change of that is one of it.

    Args:
        allow: `--allow-cidr`.
        web: `--web-cidr`; empty is the world.
    """
    who = {Audience.STAFF: tuple(allow), Audience.WEB: tuple(web) or WORLD}
    ports: dict[Audience, list[int]] = {}
    for port, audience in openings():
        ports.setdefault(audience, []).append(port)
    made = []
    slots = [(audience, version) for audience in Audience for version in (4, 6)]
    for place, (audience, version) in enumerate(slots):
        networks = {ipaddress.ip_network(cidr) for cidr in who.get(audience, ())}
        ours = sorted(str(net) for net in networks if net.version == version)
        if ours and audience in ports:
            name = audience.value + (V6 if version == 6 else "")
            made.append(Rule(name, FIRST + STEP * place, tuple(sorted(ports[audience])), tuple(ours)))
    return made


def strangers(group: Mapping[str, Any], ours: Iterable[str]) -> list[str]:
    """The names of those rules in a security group, as ARM shows it, that are none of ours."""
    known = {name.lower() for name in ours}
    rows = (group.get("properties") or {}).get("securityRules") or ()
    return sorted(str(row["name"]) for row in rows if str(row["name"]).lower() not in known)


def let_in(group: Mapping[str, Any]) -> dict[tuple[str, str], set[str]]:
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
    """Which rules are not as they were laid down, a line each."""
    asked: dict[tuple[str, str], set[str]] = {}
    for rule in wanted:
        for number in rule.ports:
            asked.setdefault(("tcp", str(number)), set()).update(rule.who)
    has = let_in(group)
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
    return lines
