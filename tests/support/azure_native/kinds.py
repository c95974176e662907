"""The resource types that the provider serves: where each lives in ARM, and what can't change in place.

API versions are those that pulumi-azure-native 3 takes where no other module is asked for, as its docs say;
what replaces a thing was read in its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

RESOURCES = "2024-03-01"
NETWORK = "2024-05-01"
DISKS = "2024-03-02"
COMPUTE = "2024-11-01"

GROUP = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}"


@dataclass(frozen=True)
class Kind:
    """One resource type.

    Attributes:
        token: as the engine knows it.
        path: of its id in ARM; each {name} but the subscription's is an input of that name.
        named: the inputs that are made up when they are not given.
        replaced: properties whose change replaces the thing, besides those of its path.
        kept: lists that are resources of their own as well. Where they are not given, those there stay.
    """

    token: str
    path: str
    api_version: str
    replaced: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def shape(self) -> str:
        """The name of its shape."""
        return self.token.removeprefix("azure-native:")

    @property
    def places(self) -> tuple[str, ...]:
        """The inputs that make up its path."""
        return tuple(name for name in re.findall(r"{(\w+)}", self.path) if name != "subscriptionId")

    @property
    def named(self) -> str:
        """The input that is made up when it is not given: its own name."""
        return self.places[-1]

    def id(self, subscription: str, inputs: dict[str, object]) -> str:
        return self.path.format(subscriptionId=subscription, **{name: inputs[name] for name in self.places})

    def parts(self, id_: str) -> dict[str, str]:
        """The inputs that an id tells: ARM's ids are case-insensitive.

        Raises:
            ValueError: It is not of this type.
        """
        pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path)
        found = re.fullmatch(pattern, id_, re.IGNORECASE)
        if not found:
            raise ValueError(f"the resource ID {id_!r} is not of the form {self.path}")
        return {name: value for name, value in found.groupdict().items() if name != "subscriptionId"}


KINDS = {
    kind.token: kind
    for kind in (
        Kind("azure-native:resources:ResourceGroup", GROUP, RESOURCES, replaced=("location",)),
        Kind(
            "azure-native:network:VirtualNetwork",
            GROUP + "/providers/Microsoft.Network/virtualNetworks/{virtualNetworkName}",
            NETWORK,
            replaced=("location",),
            kept=("subnets", "virtualNetworkPeerings"),
        ),
        Kind(
            "azure-native:network:Subnet",
            GROUP + "/providers/Microsoft.Network/virtualNetworks/{virtualNetworkName}/subnets/{subnetName}",
            NETWORK,
        ),
        Kind(
            "azure-native:network:NetworkSecurityGroup",
            GROUP + "/providers/Microsoft.Network/networkSecurityGroups/{networkSecurityGroupName}",
            NETWORK,
            kept=("securityRules",),
        ),
        Kind(
            "azure-native:network:SecurityRule",
            GROUP + "/providers/Microsoft.Network/networkSecurityGroups/{networkSecurityGroupName}"
            "/securityRules/{securityRuleName}",
            NETWORK,
        ),
        Kind(
            "azure-native:network:PublicIPAddress",
            GROUP + "/providers/Microsoft.Network/publicIPAddresses/{publicIpAddressName}",
            NETWORK,
            replaced=("location", "publicIPAddressVersion", "publicIPPrefix", "sku"),
        ),
        Kind(
            "azure-native:network:NetworkInterface",
            GROUP + "/providers/Microsoft.Network/networkInterfaces/{networkInterfaceName}",
            NETWORK,
        ),
        Kind(
            "azure-native:compute:Disk",
            GROUP + "/providers/Microsoft.Compute/disks/{diskName}",
            DISKS,
        ),
        Kind(
            "azure-native:compute:VirtualMachine",
            GROUP + "/providers/Microsoft.Compute/virtualMachines/{vmName}",
            COMPUTE,
        ),
    )
}


def group_id(subscription: str, name: str) -> str:
    return GROUP.format(subscriptionId=subscription, resourceGroupName=name)


def of(urn: str) -> Kind:
    """The type of a URN's resource.

    Raises:
        LookupError: It is none that is served.
    """
    token = urn.split("::")[2].rpartition("$")[2]
    if token not in KINDS:
        raise LookupError(f"Resource type {token} not found")
    return KINDS[token]
