"""Microsoft.Network: virtual networks and their subnets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from azure.mgmt.network import models as network

from support.arm import refusals, rules
from support.arm.ids import Id
from support.arm.kinds import reference
from support.arm.networking import NAMESPACE, NetworkKind, Prefix, inner, prefix
from support.arm.world import Link, Thing, World

SMALLEST_SUBNET = 29
"""https://learn.microsoft.com/azure/virtual-network/virtual-networks-faq"""


class VirtualNetwork(NetworkKind):
    """https://learn.microsoft.com/rest/api/virtualnetwork/virtual-networks"""

    type = f"{NAMESPACE}/virtualNetworks"
    model = network.VirtualNetwork
    update = network.TagsObject
    names = rules.network_names(2, 64)
    children: ClassVar = {"subnets": "subnets"}
    # "Azure virtual network now supports updates without subnet property", Microsoft's network blog:
    # https://techcommunity.microsoft.com/blog/azurenetworkingblog/a/4067952
    keeps_children_from = "2023-09-01"

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        spaces = (thing.properties.get("addressSpace") or {}).get("addressPrefixes") or []
        if not spaces:
            raise refusals.NO_PREFIX(f"Resource {thing.id} has no address prefixes.")
        found = [prefix(text, str(thing.id)) for text in spaces]
        for number, one in enumerate(found):
            if any(one.version == other.version and one.overlaps(other) for other in found[:number]):
                raise refusals.OVERLAPPING_SPACES(
                    f"The address prefix {one} of virtual network {thing.id.name} overlaps with another of "
                    "its own."
                )
        for subnet in world.children(thing.id, "subnets"):
            Subnet.place(found, subnet.id, Subnet.prefixes(subnet.properties))
        thing.properties.setdefault("enableDdosProtection", False)
        thing.properties.setdefault("virtualNetworkPeerings", [])
        thing.properties["resourceGuid"] = thing.guid

    def refresh(self, world: World, thing: Thing, properties: dict[str, Any]) -> None:
        properties["subnets"] = inner(world, thing, "subnets")

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        for subnet in world.children(thing.id, "subnets"):
            subnet.kind.removable(world, subnet, going)


class Subnet(NetworkKind):
    """https://learn.microsoft.com/rest/api/virtualnetwork/subnets"""

    type = f"{NAMESPACE}/virtualNetworks/subnets"
    model = update = network.Subnet
    names = rules.network_names()
    tracked = False

    @staticmethod
    def prefixes(properties: Mapping[str, Any]) -> list[str]:
        return properties.get("addressPrefixes") or [
            text for text in [properties.get("addressPrefix")] if text is not None
        ]

    @staticmethod
    def place(spaces: list[Prefix], id_: Id, prefixes: list[str]) -> list[Prefix]:
        """A subnet's prefixes, which must lie within the network's."""
        found = [prefix(text, str(id_)) for text in prefixes]
        for one in found:
            if one.version == 4 and one.prefixlen > SMALLEST_SUBNET:
                raise refusals.SUBNET_SMALL(
                    f"Subnet '{id_.name}' has the prefix {one}; the smallest IPv4 subnet is "
                    f"/{SMALLEST_SUBNET}."
                )
            if not any(one.version == space.version and one.subnet_of(space) for space in spaces):
                raise refusals.SUBNET_OUTSIDE(
                    f"Subnet '{id_.name}' is not valid because its IP address range is outside the IP "
                    f"address range of virtual network '{id_.parent.name}'."
                )
        return found

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        prefixes = self.prefixes(thing.properties)
        if not prefixes:
            raise refusals.NO_PREFIX(f"Resource {thing.id} has no address prefix.")
        owner = world.get(thing.id.parent)
        spaces = [] if owner is None else owner.properties["addressSpace"]["addressPrefixes"]
        mine = self.place([prefix(text, thing.id.name) for text in spaces], thing.id, prefixes)
        for other in world.children(thing.id.parent, "subnets"):
            if other.id.key == thing.id.key:
                continue
            theirs = [prefix(text, other.id.name) for text in self.prefixes(other.properties)]
            if any(a.version == b.version and a.overlaps(b) for a in mine for b in theirs):
                raise refusals.SUBNETS_OVERLAP(
                    f"Subnet '{thing.id.name}' is not valid because its IP address range overlaps with that "
                    f"of an existing subnet in virtual network '{thing.id.parent.name}'."
                )
        if old is not None and self.prefixes(old.properties) != prefixes and self.used(world, thing):
            raise refusals.SUBNET_PREFIX_IN_USE(
                f"IpPrefix {self.prefixes(old.properties)[0]} on Subnet {thing.id.name} has active "
                "allocations and cannot be deleted."
            )
        thing.properties.setdefault("delegations", [])
        thing.properties.setdefault("privateEndpointNetworkPolicies", "Disabled")
        thing.properties.setdefault("privateLinkServiceNetworkPolicies", "Enabled")

    def used(self, world: World, thing: Thing) -> list[Link]:
        return world.users(thing.id)

    def links(self, thing: Thing) -> Iterator[Link]:
        target = reference(thing.properties.get("networkSecurityGroup"))
        if target:
            yield Link(str(thing.id), target, f"{NAMESPACE}/networkSecurityGroups/join/action", thing.id)

    def refresh(self, world: World, thing: Thing, properties: dict[str, Any]) -> None:
        users = self.used(world, thing)
        if users:
            properties["ipConfigurations"] = [{"id": link.source} for link in users]

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        users = [link for link in self.used(world, thing) if not link.owner.within(going)]
        if users:
            named = ", ".join(link.source for link in users)
            raise refusals.SUBNET_IN_USE(
                f"Subnet {thing.id.name} is in use by {named} and cannot be deleted. In order to delete the "
                "subnet, delete all the resources within the subnet. See aka.ms/deletesubnet."
            )
