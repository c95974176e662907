"""Microsoft.Network: interfaces, and the addresses that they have in a subnet."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterator
from typing import Any

from azure.mgmt.network import models as network

from support.arm import refusals, rules
from support.arm.ids import Id, parse
from support.arm.kinds import reference
from support.arm.networking import NAMESPACE, NetworkKind, Prefix, prefix
from support.arm.vnets import Subnet
from support.arm.world import Link, Thing, World

FIRST_FREE = 4
"""Azure keeps the first four addresses of a subnet, and the last.

https://learn.microsoft.com/azure/virtual-network/virtual-networks-faq"""


class Interface(NetworkKind):
    """https://learn.microsoft.com/rest/api/virtualnetwork/network-interfaces"""

    type = f"{NAMESPACE}/networkInterfaces"
    model = network.NetworkInterface
    update = network.TagsObject
    names = rules.network_names()

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        configurations = thing.properties.get("ipConfigurations") or []
        if not configurations:
            raise refusals.NIC_NO_IP(f"Network interface {thing.id} must have at least one IP configuration.")
        names = [str(one.get("name", "")).lower() for one in configurations]
        if len(set(names)) != len(names):
            raise refusals.SAME_NAMES(f"Resource {thing.id} has two child resources with the same name.")
        before = {
            one["name"].lower(): one["properties"]
            for one in (old.properties["ipConfigurations"] if old else [])
        }
        for number, one in enumerate(configurations):
            rules.network_names().check(one.get("name", ""))
            one["id"] = f"{thing.id}/ipConfigurations/{one['name']}"
            inner = one.setdefault("properties", {})
            inner.setdefault("primary", number == 0)
            inner.setdefault("privateIPAddressVersion", "IPv4")
            inner["provisioningState"] = "Succeeded"
            self._subnet(world, thing, one, before.get(one["name"].lower()), old)
            self._public(world, thing, inner)
        for name in ("enableAcceleratedNetworking", "enableIPForwarding", "disableTcpStateTracking"):
            thing.properties.setdefault(name, False)
        thing.properties.setdefault("dnsSettings", {"dnsServers": [], "appliedDnsServers": []})
        thing.properties.setdefault("nicType", "Standard")
        thing.properties["resourceGuid"] = thing.guid
        noise = uuid.uuid4().hex.upper()
        thing.hidden["mac"] = old.hidden["mac"] if old else f"00-0D-3A-{noise[:2]}-{noise[2:4]}-{noise[4:6]}"

    def _subnet(
        self,
        world: World,
        thing: Thing,
        one: dict[str, Any],
        before: dict[str, Any] | None,
        old: Thing | None,
    ) -> None:
        inner = one["properties"]
        target = reference(inner.get("subnet"))
        subnet = world.get(target) if target else None
        if subnet is None:
            # The links were looked at before: here it is only missing.
            raise refusals.NIC_NO_SUBNET(f"Subnet reference is required for ipconfiguration {one['id']}.")
        space = prefix(Subnet.prefixes(subnet.properties)[0], subnet.id.name)
        inner.setdefault("privateIPAllocationMethod", "Dynamic")
        if before and reference(before["subnet"]) and before["subnet"]["id"].lower() != subnet.id.key:
            if subnet.id.parent.key != (parse(before["subnet"]["id"]) or subnet.id).parent.key:
                raise refusals.NIC_MOVED(
                    f"Network interface {thing.id} can't move to another virtual network: {subnet.id.parent}."
                )
            before = None
        wanted = inner.get("privateIPAddress")
        if inner["privateIPAllocationMethod"].lower() == "dynamic":
            wanted = before["privateIPAddress"] if before else None
        inner["privateIPAddress"] = self._private(world, thing, space, wanted, subnet)

    @staticmethod
    def _private(world: World, thing: Thing, space: Prefix, wanted: str | None, subnet: Thing) -> str:
        taken = {
            one["properties"]["privateIPAddress"]
            for nic in world.of(Interface.type)
            if nic.id.key != thing.id.key
            for one in nic.properties["ipConfigurations"]
            if one["properties"]["subnet"]["id"].lower() == subnet.id.key
        }
        if wanted is None:
            for number in range(FIRST_FREE, space.num_addresses - 1):
                if str(space[number]) not in taken:
                    return str(space[number])
            raise refusals.SUBNET_FULL(
                f"Subnet {subnet.id.name} with address prefix {space} does not have enough capacity for 1 "
                "IP addresses."
            )
        address = ipaddress.ip_address(wanted)
        if address not in space:
            raise refusals.NIC_ADDRESS_OUTSIDE(
                f"Private static IP address {wanted} does not belong to the range of subnet prefix {space}."
            )
        if address in [space[number] for number in range(FIRST_FREE)] or address == space[-1]:
            raise refusals.NIC_ADDRESS_RESERVED(
                f"Private static IP address {wanted} falls within reserved IP range of subnet prefix {space}."
            )
        if wanted in taken:
            raise refusals.NIC_ADDRESS_TAKEN(
                f"IP configuration of {thing.id} is using the private IP address {wanted} which is already "
                "allocated."
            )
        return wanted

    @staticmethod
    def _public(world: World, thing: Thing, inner: dict[str, Any]) -> None:
        target = reference(inner.get("publicIPAddress"))
        address = world.get(target) if target else None
        if address is None:
            return
        for link in world.users(address.id):
            if link.owner.key != thing.id.key:
                raise refusals.IP_TAKEN(
                    f"Resource {thing.id} is referencing public IP address {address.id} that is already "
                    f"allocated to resource {link.source}."
                )

    def links(self, thing: Thing) -> Iterator[Link]:
        group = reference(thing.properties.get("networkSecurityGroup"))
        if group:
            yield Link(str(thing.id), group, f"{NAMESPACE}/networkSecurityGroups/join/action", thing.id)
        for one in thing.properties.get("ipConfigurations") or []:
            source = f"{thing.id}/ipConfigurations/{one.get('name')}"
            inner = one.get("properties") or {}
            subnet, address = reference(inner.get("subnet")), reference(inner.get("publicIPAddress"))
            if subnet:
                yield Link(source, subnet, f"{NAMESPACE}/virtualNetworks/subnets/join/action", thing.id)
            if address:
                yield Link(source, address, f"{NAMESPACE}/publicIPAddresses/join/action", thing.id)

    def refresh(self, world: World, thing: Thing, properties: dict[str, Any]) -> None:
        for link in world.users(thing.id):
            properties["virtualMachine"] = {"id": link.source}
            properties["primary"] = True
            properties["macAddress"] = thing.hidden["mac"]

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        for link in world.users(thing.id):
            if not link.owner.within(going):
                raise refusals.NIC_IN_USE(
                    f"Network Interface {thing.id} is used by existing resource {link.source}. In order to "
                    "delete the network interface, it must be dissociated from the resource. To learn "
                    "more, see aka.ms/deletenic."
                )
        check_reservation(world, thing)

    def removed(self, world: World, thing: Thing) -> None:
        for one in thing.properties["ipConfigurations"]:
            inner = (one["properties"].get("publicIPAddress") or {}).get("properties") or {}
            if str(inner.get("deleteOption", "")).lower() == "delete":
                address = parse(one["properties"]["publicIPAddress"]["id"])
                if address:
                    world.remove(address)


def check_reservation(world: World, nic: Thing, owner: Id | None = None) -> None:
    """Refuse what is to be done to an interface that a VM whose creation failed still has."""
    vm = world.reservation(nic.id, owner)
    if vm is not None:
        raise refusals.NIC_RESERVED(
            f"Nic(s) in request is reserved for another Virtual Machine for {world.reserves:g} seconds. "
            f"Please provide another nic(s) or retry after {world.reserves:g} seconds. Reserved VM: {vm}"
        )
