"""Microsoft.Network: security groups and their rules."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from azure.mgmt.network import models as network

from support.arm import refusals, rules
from support.arm.ids import Id
from support.arm.networking import NAMESPACE, NetworkKind, inner
from support.arm.world import Thing, World

PRIORITIES = range(100, 4097)
"""https://learn.microsoft.com/azure/virtual-network/network-security-groups-overview#security-rules"""


class SecurityGroup(NetworkKind):
    """https://learn.microsoft.com/rest/api/virtualnetwork/network-security-groups"""

    type = f"{NAMESPACE}/networkSecurityGroups"
    model = network.NetworkSecurityGroup
    update = network.TagsObject
    names = rules.network_names()
    children: ClassVar = {"securityRules": "securityRules"}

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        thing.properties["resourceGuid"] = thing.guid
        thing.properties["defaultSecurityRules"] = [
            {"name": name, "id": f"{thing.id}/defaultSecurityRules/{name}", "properties": properties}
            for name, properties in DEFAULT_RULES.items()
        ]

    def refresh(self, world: World, thing: Thing, properties: dict[str, Any]) -> None:
        properties["securityRules"] = inner(world, thing, "securityRules")
        users = world.users(thing.id)
        for name, type_ in (("networkInterfaces", "networkInterfaces"), ("subnets", "subnets")):
            found = [{"id": link.source} for link in users if link.owner.types[-1] == type_]
            if found:
                properties[name] = found

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        users = [link for link in world.users(thing.id) if not link.owner.within(going)]
        if users:
            named = ", ".join(link.source for link in users)
            raise refusals.NSG_IN_USE(
                f"Network security group {thing.id} cannot be deleted because it is in use by the following "
                f"resources: {named}. In order to delete the Network security group, remove the association "
                "with the resource(s). To learn how to do this, see aka.ms/deletensg."
            )


def _default(direction: str, access: str, priority: int, source: str, destination: str) -> dict[str, Any]:
    return {
        "protocol": "*",
        "sourcePortRange": "*",
        "destinationPortRange": "*",
        "sourceAddressPrefix": source,
        "destinationAddressPrefix": destination,
        "access": access,
        "priority": priority,
        "direction": direction,
        "provisioningState": "Succeeded",
    }


DEFAULT_RULES = {
    "AllowVnetInBound": _default("Inbound", "Allow", 65000, "VirtualNetwork", "VirtualNetwork"),
    "AllowAzureLoadBalancerInBound": _default("Inbound", "Allow", 65001, "AzureLoadBalancer", "*"),
    "DenyAllInBound": _default("Inbound", "Deny", 65500, "*", "*"),
    "AllowVnetOutBound": _default("Outbound", "Allow", 65000, "VirtualNetwork", "VirtualNetwork"),
    "AllowInternetOutBound": _default("Outbound", "Allow", 65001, "*", "Internet"),
    "DenyAllOutBound": _default("Outbound", "Deny", 65500, "*", "*"),
}
"""https://learn.microsoft.com/azure/virtual-network/network-security-groups-overview#default-security-rules"""


MISSING = "Required security rule parameters are missing."


class SecurityRule(NetworkKind):
    """https://learn.microsoft.com/rest/api/virtualnetwork/security-rules"""

    type = f"{NAMESPACE}/networkSecurityGroups/securityRules"
    model = update = network.SecurityRule
    names = rules.network_names()
    tracked = False

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        rule = thing.properties
        if rule["priority"] not in PRIORITIES:
            raise refusals.RULE_PRIORITY(
                f"Security rule has invalid Priority. Value provided: {rule['priority']} Allowed range "
                f"{PRIORITIES[0]}-{PRIORITIES[-1]}."
            )
        for side in ("source", "destination"):
            self._ports(rule, side)
            self._addresses(rule, side)
        for other in world.children(thing.id.parent, "securityRules"):
            theirs = other.properties
            if other.id.key != thing.id.key and (rule["priority"], rule["direction"].lower()) == (
                theirs["priority"],
                theirs["direction"].lower(),
            ):
                raise refusals.RULES_CONFLICT(
                    f"Security rule {thing.id.name} conflicts with rule {other.id.name}. Rules cannot have "
                    "the same Priority and Direction. To learn more, see aka.ms/nsgrules."
                )

    @staticmethod
    def _ports(rule: Mapping[str, Any], side: str) -> None:
        plural = rule.get(f"{side}PortRanges") or []
        single = rule.get(f"{side}PortRange")
        if not plural and not single:
            raise refusals.RULE_PARAMETER(
                f"{MISSING} Security rule must specify {side}PortRange or {side}PortRanges."
            )
        for text in [*plural, *([single] if single else [])]:
            match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
            whole = text == "*" and not plural
            if not whole and not (match and int(match[1]) <= int(match[2] or match[1]) <= 65535):
                raise refusals.RULE_PORTS(f"Security rule has invalid Port range. Value provided: {text}.")

    @staticmethod
    def _addresses(rule: Mapping[str, Any], side: str) -> None:
        plural = rule.get(f"{side}AddressPrefixes") or []
        single = rule.get(f"{side}AddressPrefix")
        if not plural and not single and not rule.get(f"{side}ApplicationSecurityGroups"):
            raise refusals.RULE_PARAMETER(
                f"{MISSING} Security rule must specify {side}AddressPrefixes, {side}AddressPrefix, or "
                f"{side}ApplicationSecurityGroups."
            )
        for text in [*plural, *([single] if single else [])]:
            if text in ("*", "Internet", "VirtualNetwork", "AzureLoadBalancer") and not plural:
                continue
            try:
                ipaddress.ip_network(text, strict=True)
            except ValueError:
                if plural or not re.fullmatch(r"[A-Z][A-Za-z]+(\.[A-Za-z0-9]+)?", text):
                    raise refusals.RULE_ADDRESS(
                        f"Security rule has invalid Address prefix. Value provided: {text}."
                    ) from None
