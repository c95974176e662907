"""The real engine and the real SDK, with the Azure tests' provider between them and a handful of ARM."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import automation as auto

from support import azure_native
from support.declaring import loops_closed
from support.small_arm import SUBSCRIPTION, SmallArm

pytestmark = [pytest.mark.tier("deep", proves=("azure_native",)), pytest.mark.engine]

GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/inst"
NETWORK = f"{GROUP}/providers/Microsoft.Network"


@dataclass
class Wanted:
    """What the program declares; a test changes it between two runs.

    Attributes:
        imported: an id, for the address.
    """

    tags: dict[str, str] = field(default_factory=lambda: {"stack": "inst"})
    sku: str = "Standard"
    size: str = "Standard_B2s"
    imported: str | None = None
    extra: bool = False

    def program(self) -> None:
        import pulumi_azure_native as azure

        provider = azure.Provider("azure", subscription_id=SUBSCRIPTION)
        opts = pulumi.ResourceOptions(provider=provider)
        group = azure.resources.ResourceGroup(
            "group", resource_group_name="inst", location="westeurope", tags=self.tags, opts=opts
        )
        network = azure.network.VirtualNetwork(
            "network",
            virtual_network_name="inst",
            resource_group_name=group.name,
            address_space={"address_prefixes": ["10.0.0.0/16"]},
            opts=opts,
        )
        subnet = azure.network.Subnet(
            "subnet",
            subnet_name="nodes",
            virtual_network_name=network.name,
            resource_group_name=group.name,
            address_prefix="10.0.0.0/24",
            opts=opts,
        )
        address = azure.network.PublicIPAddress(
            "address",
            public_ip_address_name="inst",
            resource_group_name=group.name,
            sku={"name": self.sku},
            public_ip_allocation_method="Static",
            tags=self.tags,
            opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(import_=self.imported)),
        )
        interface = azure.network.NetworkInterface(
            "interface",
            network_interface_name="inst",
            resource_group_name=group.name,
            ip_configurations=[
                {"name": "one", "subnet": {"id": subnet.id}, "public_ip_address": {"id": address.id}}
            ],
            opts=opts,
        )
        machine = azure.compute.VirtualMachine(
            "machine",
            vm_name="inst",
            resource_group_name=group.name,
            hardware_profile={"vm_size": self.size},
            network_profile={"network_interfaces": [{"id": interface.id, "delete_option": "Delete"}]},
            os_profile={
                "admin_username": "gridup",
                "computer_name": "inst",
                "custom_data": pulumi.Output.secret("aHVudGVyMg=="),
            },
            opts=opts,
        )
        if self.extra:
            azure.compute.Disk(
                "disk",
                resource_group_name=group.name,
                creation_data={"create_option": "Empty"},
                disk_size_gb=32,
                opts=opts,
            )
        pulumi.export("machine", machine.id)
        pulumi.export("address", address.ip_address)


@dataclass
class Deployed:
    stack: auto.Stack
    state: Path

    def up(self) -> dict[str, int]:
        return dict(self.stack.up(color="never").summary.resource_changes or {})

    def preview(self) -> dict[str, int]:
        return {str(kind): n for kind, n in self.stack.preview().change_summary.items()}

    def checkpoint(self) -> str:
        (file,) = self.state.glob(".pulumi/stacks/gridup/*.json")
        return file.read_text()

    def resource(self, name: str) -> dict[str, Any]:
        rows = json.loads(self.checkpoint())["checkpoint"]["latest"]["resources"]
        return next(row for row in rows if row["urn"].endswith(f"::{name}"))


@pytest.fixture
def arm() -> Iterator[SmallArm]:
    with SmallArm() as arm:
        yield arm


@pytest.fixture
def wanted() -> Wanted:
    return Wanted()


@pytest.fixture
def deployed(
    arm: SmallArm, engine: Path, tmp_path: Path, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployed]:
    for name in ("bin", "state", "work"):
        (tmp_path / name).mkdir()
    azure_native.install(tmp_path / "bin")
    environment = {
        **arm.environment,
        "PATH": os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]),
        "PULUMI_CONFIG_PASSPHRASE": "of the tests",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "SSL_CERT_FILE": "",
    }
    stack = auto.create_or_select_stack(
        "inst",
        project_name="gridup",
        program=wanted.program,
        opts=auto.LocalWorkspaceOptions(
            work_dir=str(tmp_path / "work"),
            pulumi_home=str(tmp_path / "home"),
            pulumi_command=auto.PulumiCommand(str(engine)),
            env_vars=environment,
            project_settings=auto.ProjectSettings(
                "gridup", "python", backend=auto.ProjectBackend(f"file://{tmp_path / 'state'}")
            ),
        ),
    )
    with loops_closed(monkeypatch):
        yield Deployed(stack, tmp_path / "state")


def test_a_deploy_says_what_arm_takes_and_a_second_one_changes_nothing(
    deployed: Deployed, arm: SmallArm
) -> None:
    assert deployed.preview() == {"create": 8}
    assert arm.made("PUT") == []
    assert deployed.up() == {"create": 8}
    assert arm.sent("/virtualMachines/inst") == {
        "location": "westeurope",
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_B2s"},
            "networkProfile": {
                "networkInterfaces": [
                    {
                        "id": f"{NETWORK}/networkInterfaces/inst",
                        "properties": {"deleteOption": "Delete"},
                    }
                ]
            },
            "osProfile": {"adminUsername": "gridup", "computerName": "inst", "customData": "aHVudGVyMg=="},
        },
    }
    assert deployed.preview() == {"same": 8}
    assert deployed.up() == {"same": 8}
    puts = len(arm.made("PUT"))
    deployed.stack.refresh(color="never")
    assert deployed.preview() == {"same": 8}
    assert len(arm.made("PUT")) == puts
    deployed.stack.destroy(color="never")
    assert arm.things == {}


def test_what_is_secret_among_the_inputs_is_encrypted(deployed: Deployed) -> None:
    deployed.up()
    assert "gridup" in deployed.checkpoint()
    assert "aHVudGVyMg" not in deployed.checkpoint()


def test_what_was_changed_by_hand_is_seen_and_put_back(
    deployed: Deployed, arm: SmallArm, wanted: Wanted
) -> None:
    deployed.up()
    arm.things[f"{NETWORK}/publicIPAddresses/inst".lower()]["tags"] = {"stack": "other"}
    deployed.stack.refresh(color="never")
    assert deployed.preview() == {"same": 7, "update": 1}
    deployed.up()
    assert arm.things[f"{NETWORK}/publicIPAddresses/inst".lower()]["tags"] == {"stack": "inst"}
    del arm.things[f"{GROUP}/providers/Microsoft.Compute/virtualMachines/inst".lower()]
    deployed.stack.refresh(color="never")
    assert deployed.up() == {"same": 7, "create": 1}


def test_a_change_is_made_in_place_or_replaces(deployed: Deployed, arm: SmallArm, wanted: Wanted) -> None:
    deployed.up()
    wanted.size = "Standard_B4ms"
    assert deployed.up() == {"same": 7, "update": 1}
    assert arm.sent("/virtualMachines/inst")["properties"]["hardwareProfile"] == {"vmSize": "Standard_B4ms"}
    wanted.sku = "Basic"
    deployed.up()
    address = f"{NETWORK}/publicIPAddresses/inst"
    assert [method for method, path, _, _ in arm.calls if path == address and method != "GET"] == [
        "PUT",
        "DELETE",
        "PUT",
    ]


def test_a_name_that_is_not_given_is_made_up_once(deployed: Deployed, arm: SmallArm, wanted: Wanted) -> None:
    wanted.extra = True
    deployed.up()
    id_ = deployed.resource("disk")["id"]
    assert id_.rpartition("/")[2].startswith("disk")
    assert deployed.preview() == {"same": 9}


def test_what_is_there_is_refused_and_can_be_imported(
    deployed: Deployed, arm: SmallArm, wanted: Wanted
) -> None:
    id_ = f"{NETWORK}/publicIPAddresses/inst"
    arm.things[id_.lower()] = {
        "id": id_,
        "name": "inst",
        "location": "westeurope",
        "tags": wanted.tags,
        "sku": {"name": "Standard"},
        "properties": {"publicIPAllocationMethod": "Static", "provisioningState": "Succeeded", "ipTags": []},
    }
    with pytest.raises(auto.CommandError, match="cannot create already existing resource"):
        deployed.up()
    wanted.imported = id_
    assert deployed.up()["import"] == 1
    wanted.imported = None
    assert deployed.preview() == {"same": 8}


def test_what_was_half_made_is_in_the_state_and_is_mended(deployed: Deployed, arm: SmallArm) -> None:
    arm.style, arm.fails = "operation", ("AllocationFailed", "No room.")
    with pytest.raises(auto.CommandError, match="No room"):
        deployed.up()
    assert deployed.resource("group")["initErrors"] == [
        'Status=200 Code="AllocationFailed" Message="No room."'
    ]
    arm.style, arm.fails = "at once", None
    deployed.up()
    assert "initErrors" not in deployed.resource("group")
    assert deployed.preview() == {"same": 8}
