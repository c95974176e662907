"""The rules of a node's network security group, from the service table. Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gridup_node.services import Audience, firewall_ports

FIRST, STEP = 100, 10
"""Priorities go from 100 to 4096; each may occur once per direction
(https://learn.microsoft.com/azure/virtual-network/network-security-groups-overview#security-rules)."""

WORLD = ("0.0.0.0/0",)
"""The node has no IPv6 address."""

V6 = "-ipv6"

NEIGHBOURS = "neighbours"
"""The rule that blocks the other machines in the virtual network. Azure's default rules come after all of
Gridup's rules, and allow those machines at every port."""

LAST = 4096

NETWORK = "VirtualNetwork"
"""Azure's service tag for the virtual network and all networks joined to it."""

NAMES = frozenset(audience.value + suffix for audience in Audience for suffix in ("", V6)) | {NEIGHBOURS}
"""All names that a rule of Gridup can have."""


@dataclass(frozen=True)
class Rule:
    """One inbound rule.

    Attributes:
        ports: TCP ports; empty means every port of every protocol.
        who: networks of one IP version, because Azure does not mix versions in a rule; or one service tag.
        allow: whether the rule allows or denies.
    """

    name: str
    priority: int
    ports: tuple[int, ...]
    who: tuple[str, ...]
    allow: bool = True


def rules(allow: Iterable[str], web: Iterable[str], *, shared: bool) -> list[Rule]:
    """Return a node's rules: one for each audience and IP version.

    A rule's name and priority do not depend on its networks, so new networks update the same rule.

    Args:
        allow: `--allow-cidr`.
        web: `--web-cidr`; empty allows the whole internet.
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
    """Return the names of a security group's rules that are not in `ours`.

    Args:
        group: the security group, as ARM returns it.
        ours: the names of the node's rules.
    """
    known = {name.lower() for name in ours}
    rows = (group.get("properties") or {}).get("securityRules") or ()
    return sorted(str(row["name"]) for row in rows if str(row["name"]).lower() not in known)


def allowed_rules(group: Mapping[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Return what a security group, as ARM returns it, allows inbound: {(protocol, port): networks}."""
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
    """Return the drift of a security group's rules, a line each."""
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
    # The node has no outbound rules: Azure's default rules allow everything out.
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
