"""Bodies that Azure takes, and what is made of them: a network, an address, a machine."""

from __future__ import annotations

import base64
import copy
from typing import Any

from support.arm.customer import Customer, Reply
from support.ssh_keys import ed25519

LOCATION = "westeurope"

NETWORK, COMPUTE = "Microsoft.Network", "Microsoft.Compute"

VNET = {
    "location": LOCATION,
    "properties": {
        "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
        "subnets": [{"name": "front", "properties": {"addressPrefix": "10.0.0.0/24"}}],
    },
}

RULE = {
    "properties": {
        "protocol": "Tcp",
        "sourcePortRange": "*",
        "destinationPortRange": "22",
        "sourceAddressPrefix": "198.51.100.7/32",
        "destinationAddressPrefix": "*",
        "access": "Allow",
        "priority": 100,
        "direction": "Inbound",
    }
}

NSG = {"location": LOCATION, "properties": {"securityRules": [{"name": "ssh", **RULE}]}}

ADDRESS = {
    "location": LOCATION,
    "sku": {"name": "Standard"},
    "properties": {"publicIPAllocationMethod": "Static", "dnsSettings": {"domainNameLabel": "inst-7f3a"}},
}

DISK = {
    "location": LOCATION,
    "sku": {"name": "Premium_LRS"},
    "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 32},
}

CUSTOM_DATA = b"#cloud-config\n{}\n"

MACHINE = {
    "location": LOCATION,
    "properties": {
        "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
        "securityProfile": {
            "securityType": "TrustedLaunch",
            "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
        },
        "osProfile": {
            "adminUsername": "gridup",
            "computerName": "inst",
            "customData": base64.b64encode(CUSTOM_DATA).decode(),
            "linuxConfiguration": {
                "disablePasswordAuthentication": True,
                "ssh": {
                    "publicKeys": [{"path": "/home/gridup/.ssh/authorized_keys", "keyData": ed25519("a key")}]
                },
            },
        },
        "storageProfile": {
            "imageReference": {
                "publisher": "debian",
                "offer": "debian-13",
                "sku": "13-gen2",
                "version": "latest",
            },
            "osDisk": {"name": "root", "createOption": "FromImage", "deleteOption": "Delete"},
        },
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    },
}


def changed(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A body with other values: `properties__osProfile__adminUsername="root"`; None takes one out."""
    whole = copy.deepcopy(body)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = whole
        for step in way:
            place = place.setdefault(step, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return whole


class Site:
    """A resource group, and what a customer has in it."""

    def __init__(self, customer: Customer, group: str = "site") -> None:
        self.customer = customer
        self.group = group
        customer.make(f"resourceGroups/{group}", {"location": LOCATION})

    def path(self, type_: str, name: str = "") -> str:
        namespace = COMPUTE if type_ in ("virtualMachines", "disks") else NETWORK
        return f"resourceGroups/{self.group}/providers/{namespace}/{type_}/{name}".rstrip("/")

    def id(self, type_: str, name: str) -> str:
        """The full id of one."""
        return f"{self.customer.root}/{self.path(type_, name)}"

    def put(self, type_: str, name: str, body: dict[str, Any], **how: Any) -> Reply:
        return self.customer.send("PUT", self.path(type_, name), body, **how)

    def make(self, type_: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.customer.make(self.path(type_, name), body)

    def vnet(self, **changes: Any) -> dict[str, Any]:
        return self.make("virtualNetworks", "net", changed(VNET, **changes))

    def nsg(self, **changes: Any) -> dict[str, Any]:
        return self.make("networkSecurityGroups", "nsg", changed(NSG, **changes))

    def address(self, **changes: Any) -> dict[str, Any]:
        return self.make("publicIPAddresses", "ip", changed(ADDRESS, **changes))

    def disk(self, name: str = "data", **changes: Any) -> dict[str, Any]:
        return self.make("disks", name, changed(DISK, **changes))

    def interface_body(self, **inner: Any) -> dict[str, Any]:
        subnet = {"id": self.id("virtualNetworks", "net") + "/subnets/front"}
        one = {"name": "main", "properties": {"subnet": subnet, **inner}}
        return {"location": LOCATION, "properties": {"ipConfigurations": [one]}}

    def interface(self, name: str = "nic", **inner: Any) -> dict[str, Any]:
        """In the network `net`."""
        return self.make("networkInterfaces", name, self.interface_body(**inner))

    def machine_body(self, nic: str = "nic", *disks: str, **changes: Any) -> dict[str, Any]:
        body = changed(MACHINE, **changes)
        reference = {"id": self.id("networkInterfaces", nic), "properties": {"primary": True}}
        body["properties"].setdefault("networkProfile", {"networkInterfaces": [reference]})
        body["properties"]["storageProfile"]["dataDisks"] = [
            {"lun": lun, "createOption": "Attach", "managedDisk": {"id": self.id("disks", name)}}
            for lun, name in enumerate(disks)
        ]
        return body

    def whole(self, **changes: Any) -> dict[str, Any]:
        """A machine with a network, an address and a data disk."""
        self.vnet()
        address = self.address()
        self.interface(publicIPAddress={"id": address["id"]})
        self.disk()
        return self.make("virtualMachines", "vm", self.machine_body("nic", "data", **changes))
