"""What the Azure tests' provider sends is what the ARM emulator takes, which knows nothing of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.arm import SUBSCRIPTION, Arm
from support.azure_native.server import Provider
from support.azure_native.values import plain
from support.provider_caller import Caller, Refused

pytestmark = pytest.mark.tier("deep", proves=("azure_native", "arm"))

GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/inst"
IN_GROUP = {"resourceGroupName": "inst", "location": "westeurope", "tags": {"stack": "inst"}}
CHILD = {"resourceGroupName": "inst"}
NETWORK = "azure-native:network:"
COMPUTE = "azure-native:compute:"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVwAZ3n9pSMRdnBa3jgyKzjAyO0mCCrjiATbcCE0Fqy test"

RULE = {
    "priority": 100,
    "direction": "Inbound",
    "access": "Allow",
    "protocol": "Tcp",
    "sourcePortRange": "*",
    "sourceAddressPrefixes": ["192.0.2.1/32"],
    "destinationAddressPrefix": "*",
    "destinationPortRange": "22",
}


@dataclass
class Thing:
    """One of a deployment's, as the engine keeps it."""

    type: str
    id: str
    inputs: dict[str, Any]
    state: dict[str, Any]


class Deployment(Caller):
    """Makes things as the engine does, and forgets none."""

    def __init__(self) -> None:
        super().__init__(Provider())
        self.configure(useDefaultAzureCredential="true", subscriptionId=SUBSCRIPTION)
        self.made: list[Thing] = []

    def make(self, type_: str, inputs: dict[str, Any]) -> Thing:
        checked = self.check(type_, inputs)
        assert not checked.failures
        inputs = plain(checked.inputs)
        made = self.create(type_, inputs)
        self.made.append(Thing(type_, made.id, inputs, plain(made.properties)))
        return self.made[-1]

    def change(self, thing: Thing, **inputs: Any) -> None:
        news = {**thing.inputs, **inputs}
        thing.state = plain(self.update(thing.type, thing.state, thing.inputs, news).properties)
        thing.inputs = news

    def whole(self) -> None:
        """What a node consists of."""
        self.make("azure-native:resources:ResourceGroup", IN_GROUP)
        firewall = self.make(
            f"{NETWORK}NetworkSecurityGroup", {**IN_GROUP, "networkSecurityGroupName": "inst"}
        )
        self.make(
            f"{NETWORK}SecurityRule",
            {**CHILD, "networkSecurityGroupName": "inst", "securityRuleName": "ssh", **RULE},
        )
        self.make(
            f"{NETWORK}VirtualNetwork",
            {**IN_GROUP, "virtualNetworkName": "inst", "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}},
        )
        subnet = self.make(
            f"{NETWORK}Subnet",
            {
                **CHILD,
                "virtualNetworkName": "inst",
                "subnetName": "nodes",
                "addressPrefix": "10.0.0.0/24",
            },
        )
        address = self.make(
            f"{NETWORK}PublicIPAddress",
            {
                **IN_GROUP,
                "publicIpAddressName": "inst",
                "sku": {"name": "Standard"},
                "publicIPAllocationMethod": "Static",
                "publicIPAddressVersion": "IPv4",
                "dnsSettings": {"domainNameLabel": "inst-1234"},
            },
        )
        interface = self.make(
            f"{NETWORK}NetworkInterface",
            {
                **IN_GROUP,
                "networkInterfaceName": "inst",
                "ipConfigurations": [
                    {"name": "one", "subnet": {"id": subnet.id}, "publicIPAddress": {"id": address.id}}
                ],
                "networkSecurityGroup": {"id": firewall.id},
            },
        )
        disk = self.make(
            f"{COMPUTE}Disk",
            {
                **IN_GROUP,
                "diskName": "inst-data",
                "diskSizeGB": 32,
                "sku": {"name": "StandardSSD_LRS"},
                "creationData": {"createOption": "Empty"},
            },
        )
        self.make(f"{COMPUTE}VirtualMachine", {**IN_GROUP, **machine(interface.id, disk.id)})


def machine(interface: str, disk: str) -> dict[str, Any]:
    key = {"path": "/home/gridup/.ssh/authorized_keys", "keyData": KEY}
    return {
        "vmName": "inst",
        "hardwareProfile": {"vmSize": "Standard_B2s"},
        "securityProfile": {
            "securityType": "TrustedLaunch",
            "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
        },
        "osProfile": {
            "adminUsername": "gridup",
            "computerName": "inst",
            "customData": "I2Nsb3VkLWNvbmZpZwo=",
            "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
        },
        "storageProfile": {
            "imageReference": {
                "publisher": "Debian",
                "offer": "debian-13",
                "sku": "13-gen2",
                "version": "latest",
            },
            "osDisk": {"name": "inst-os", "createOption": "FromImage", "deleteOption": "Delete"},
            "dataDisks": [
                {"lun": 0, "createOption": "Attach", "deleteOption": "Detach", "managedDisk": {"id": disk}}
            ],
        },
        "networkProfile": {"networkInterfaces": [{"id": interface, "deleteOption": "Detach"}]},
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with Arm(tmp_path_factory.mktemp("arm")) as arm:
        yield arm


@pytest.fixture
def arm(server: Arm, monkeypatch: pytest.MonkeyPatch) -> Arm:
    server.reset()
    server.lasts = 0.05
    for name in list(os.environ):
        if name.startswith(("ARM_", "AZURE_")):
            monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def deployment(arm: Arm) -> Deployment:
    return Deployment()


def test_every_body_is_taken_and_every_thing_goes_again(arm: Arm, deployment: Deployment) -> None:
    deployment.whole()
    for thing in deployment.made:
        assert thing.state.get("provisioningState", "Succeeded") == "Succeeded"
    for thing in reversed(deployment.made):
        deployment.delete(thing.type, thing.id)
        assert deployment.read(thing.type, thing.id).id == ""
    assert not [call for call in arm.calls if call.status >= 400 and call.status != 404]


def test_a_refresh_of_what_nobody_touched_changes_no_input(deployment: Deployment) -> None:
    deployment.whole()
    for thing in deployment.made:
        read = deployment.read(thing.type, thing.id, thing.state, thing.inputs)
        assert plain(read.inputs) == thing.inputs, thing.type


def test_what_is_imported_need_not_be_replaced(deployment: Deployment) -> None:
    deployment.whole()
    for thing in deployment.made:
        read = deployment.read(thing.type, thing.id)
        answer = deployment.diff(thing.type, plain(read.inputs), thing.inputs, plain(read.properties))
        assert list(answer.replaces) == [], thing.type
        added = {path for path, change in answer.detailedDiff.items() if change.kind != change.DELETE}
        # Of what a machine was told no answer speaks.
        assert added <= {"osProfile.customData"}, thing.type


def test_a_rule_that_was_removed_by_hand_is_seen_and_put_back(arm: Arm, deployment: Deployment) -> None:
    deployment.make("azure-native:resources:ResourceGroup", IN_GROUP)
    thing = deployment.make(
        f"{NETWORK}NetworkSecurityGroup",
        {**IN_GROUP, "networkSecurityGroupName": "inst", "securityRules": [{**RULE, "name": "ssh"}]},
    )
    elsewhere = Deployment()
    elsewhere.delete(f"{NETWORK}SecurityRule", f"{thing.id}/securityRules/ssh")
    read = deployment.read(thing.type, thing.id, thing.state, thing.inputs)
    assert plain(read.inputs) == {**thing.inputs, "securityRules": []}
    deployment.change(thing)
    assert [rule["name"] for rule in thing.state["securityRules"]] == ["ssh"]


def test_a_change_of_the_network_keeps_its_subnets(arm: Arm, deployment: Deployment) -> None:
    deployment.whole()
    thing = next(thing for thing in deployment.made if thing.type.endswith("VirtualNetwork"))
    deployment.change(thing, tags={"stack": "other"})
    assert [subnet["name"] for subnet in thing.state["subnets"]] == ["nodes"]
    assert thing.state["tags"] == {"stack": "other"}


def test_a_machine_is_resized_and_what_it_was_told_is_never_read(deployment: Deployment) -> None:
    deployment.whole()
    thing = deployment.made[-1]
    assert "customData" not in thing.state["osProfile"]
    deployment.change(thing, hardwareProfile={"vmSize": "Standard_B4ms"})
    assert thing.state["hardwareProfile"] == {"vmSize": "Standard_B4ms"}
    with pytest.raises(Refused, match="PropertyChangeNotAllowed"):
        deployment.change(thing, osProfile={**thing.inputs["osProfile"], "customData": "b3RoZXI="})


def test_what_is_there_is_not_created_again(deployment: Deployment) -> None:
    deployment.whole()
    for thing in deployment.made:
        with pytest.raises(Refused, match="cannot create already existing resource"):
            deployment.create(thing.type, thing.inputs)


def test_what_arm_refuses_is_told_in_its_words(arm: Arm, deployment: Deployment) -> None:
    deployment.make("azure-native:resources:ResourceGroup", IN_GROUP)
    with pytest.raises(Refused, match=r'Status=400 Code="\w+" Message=".*Basic'):
        deployment.make(
            f"{NETWORK}PublicIPAddress",
            {**IN_GROUP, "publicIpAddressName": "inst", "sku": {"name": "Basic"}},
        )


def test_what_fails_in_the_end_is_told_and_kept(arm: Arm, deployment: Deployment) -> None:
    deployment.make("azure-native:resources:ResourceGroup", IN_GROUP)
    arm.fail("Microsoft.Network/virtualNetworks/write", "InternalServerError", "No luck.", late=True)
    network = {
        **IN_GROUP,
        "virtualNetworkName": "inst",
        "addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
    }
    with pytest.raises(Refused, match=r'Code="InternalServerError" Message="No luck\."'):
        deployment.make(f"{NETWORK}VirtualNetwork", network)
    assert deployment.context.metadata[0][0] == "grpc-status-details-bin"


def test_the_group_takes_all_along(arm: Arm, deployment: Deployment) -> None:
    deployment.whole()
    deployment.delete("azure-native:resources:ResourceGroup", GROUP)
    assert arm.world.things == {}


def test_the_certificate_is_checked(arm: Arm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name)
    with pytest.raises(Refused, match="CERTIFICATE_VERIFY_FAILED"):
        Deployment().make("azure-native:resources:ResourceGroup", IN_GROUP)
