"""Microsoft.Network: public addresses, and their names."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from azure.mgmt.network import models as network

from support.arm import catalogue, refusals, rules
from support.arm.ids import Id
from support.arm.networking import NAMESPACE, NetworkKind
from support.arm.world import Thing, World
from support.workers import AZURE_NETWORK, public_address

RESERVED = frozenset(
    [
        "access",
        "azure",
        "bing",
        "bizspark",
        "biztalk",
        "cortana",
        "directx",
        "dotnet",
        "dynamics",
        "excel",
        "exchange",
        "forefront",
        "groove",
        "hololens",
        "hyperv",
        "kinect",
        "lync",
        "msdn",
        "o365",
        "office",
        "office365",
        "onedrive",
        "onenote",
        "outlook",
        "powerpoint",
        "sharepoint",
        "skype",
        "visio",
        "visualstudio",
        "xbox",
    ]
)
"""Words that what the public reaches can't be called by. Those of TRADEMARKS can be in no part of a name.

https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-reserved-resource-name"""

TRADEMARKS = ("microsoft", "windows")

DNS_LABEL = r"[a-z][a-z0-9-]{1,61}[a-z0-9]"


class PublicAddress(NetworkKind):
    """https://learn.microsoft.com/rest/api/virtualnetwork/public-ip-addresses"""

    type = f"{NAMESPACE}/publicIPAddresses"
    model = network.PublicIPAddress
    update = network.TagsObject
    names = rules.network_names()

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        properties = thing.properties
        sku = thing.top.setdefault("sku", {})
        sku.setdefault("name", "Basic")
        sku.setdefault("tier", "Regional")
        properties.setdefault("publicIPAllocationMethod", "Dynamic")
        properties.setdefault("publicIPAddressVersion", "IPv4")
        if old is None:
            self._count(world, thing)
        else:
            for name, was, now in (
                ("sku", old.top["sku"]["name"], sku["name"]),
                (
                    "publicIPAddressVersion",
                    old.properties["publicIPAddressVersion"],
                    properties["publicIPAddressVersion"],
                ),
            ):
                if was.lower() != now.lower():
                    raise refusals.IP_CHANGED(
                        f"Changing property '{name}' of {thing.id} is not allowed.", name
                    )
        if sku["name"].lower() == "standard" and properties["publicIPAllocationMethod"].lower() != "static":
            raise refusals.STANDARD_IP_STATIC(
                f"Standard sku publicIp {thing.id} must have AllocationMethod set to Static."
            )
        if not 4 <= properties.setdefault("idleTimeoutInMinutes", 4) <= 30:
            raise refusals.IP_IDLE(
                f"Idle timeout {properties['idleTimeoutInMinutes']} of {thing.id} is not valid: 4 to 30 "
                "minutes are."
            )
        self._label(world, thing)
        properties["ipAddress"] = old.properties["ipAddress"] if old else self._address(world)
        properties.setdefault("ipTags", [])
        properties["resourceGuid"] = thing.guid

    @staticmethod
    def _count(world: World, thing: Thing) -> None:
        if thing.top["sku"]["name"].lower() == "basic":
            raise refusals.BASIC_IP(
                "Cannot create more than 0 IPv4 Basic SKU public IP addresses for this subscription in "
                "this region."
            )
        have = [one for one in world.of(PublicAddress.type) if one.location == thing.location]
        if len(have) >= world.quota(thing.location, "PublicIPAddresses", catalogue.IPS):
            raise refusals.IP_COUNT(
                f"Cannot create more than {len(have)} public IP addresses for this subscription in this "
                "region."
            )

    @staticmethod
    def _address(world: World) -> str:
        taken = {one.properties.get("ipAddress") for one in world.of(PublicAddress.type)}
        while True:
            address = public_address(AZURE_NETWORK, next(world.numbers))
            if address not in taken:
                return address

    @staticmethod
    def _label(world: World, thing: Thing) -> None:
        settings = thing.properties.get("dnsSettings") or {}
        label = settings.get("domainNameLabel")
        if not label:
            return
        if not re.fullmatch(DNS_LABEL, label):
            raise refusals.DNS_LABEL(
                f"The domain name label {label} is invalid. It must conform to the following regular "
                f"expression: ^{DNS_LABEL}$."
            )
        words = set(label.split("-"))
        if words & RESERVED or any(word in label for word in TRADEMARKS) or label.startswith("login"):
            raise refusals.DNS_RESERVED(
                f"The domain name label {label} is reserved or contains a trademark. Please choose another "
                "one."
            )
        scope = settings.get("domainNameLabelScope")
        name = label
        if scope:
            seed = {"TenantReuse": "", "SubscriptionReuse": thing.id.subscription}.get(
                scope, str(thing.id.parent)
            )
            name = f"{label}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}"
        fqdn = f"{name}.{thing.location}.{world.dns_suffix}"
        others = (one for one in world.of(PublicAddress.type) if one.id.key != thing.id.key)
        if label in world.taken_labels or any(dns_name(one) == fqdn for one in others):
            raise refusals.DNS_TAKEN(f"DNS record {fqdn} is already used by another public IP.")
        thing.properties["dnsSettings"] = {**settings, "fqdn": fqdn}

    def refresh(self, world: World, thing: Thing, properties: dict[str, Any]) -> None:
        for link in world.users(thing.id):
            properties["ipConfiguration"] = {"id": link.source}

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        for link in world.users(thing.id):
            if not link.owner.within(going):
                raise refusals.IP_IN_USE(
                    f"Public IP address {thing.id} can not be deleted since it is still allocated to "
                    f"resource {link.source}. In order to delete the public IP, disassociate/detach the "
                    "Public IP address from the resource. To learn how to do this, see "
                    "aka.ms/deletepublicip."
                )


def dns_name(address: Thing) -> str:
    return str((address.properties.get("dnsSettings") or {}).get("fqdn", ""))
