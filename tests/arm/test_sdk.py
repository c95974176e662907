"""Microsoft's own clients find nothing amiss: they make all that a node on Azure needs, and remove it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient

from support.arm import SUBSCRIPTION, Arm
from support.arm.customer import Customer
from support.arm.sites import ADDRESS, DISK, LOCATION, NSG, VNET, Site
from support.workers import AZURE_NETWORK

pytestmark = pytest.mark.tier("deep", proves=("arm",))


class Credential:
    """One whose token is known already."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 3600)


@pytest.fixture
def how(arm: Arm, customer: Customer) -> dict[str, Any]:
    """What all of the clients are made with."""
    return {
        "credential": Credential(customer.token),
        "subscription_id": SUBSCRIPTION,
        "base_url": arm.url,
        "credential_scopes": [f"{arm.url}/.default"],
        "connection_verify": str(arm.ca_file),
        "polling_interval": 0.02,
        "retry_total": 0,
    }


def test_microsofts_clients_make_a_machine_and_remove_it(
    arm: Arm, customer: Customer, how: dict[str, Any]
) -> None:
    arm.lasts = 0.05
    with (
        ResourceManagementClient(**how) as groups,
        NetworkManagementClient(**how) as network,
        ComputeManagementClient(**how) as compute,
    ):
        groups.resource_groups.create_or_update("site", {"location": LOCATION})
        site = Site(customer)
        network.network_security_groups.begin_create_or_update("site", "nsg", NSG).result()
        vnet = network.virtual_networks.begin_create_or_update("site", "net", VNET).result()
        ip = network.public_ip_addresses.begin_create_or_update("site", "ip", ADDRESS).result()
        assert ip.ip_address.startswith(AZURE_NETWORK)
        body = site.interface_body(subnet={"id": vnet.subnets[0].id}, publicIPAddress={"id": ip.id})
        network.network_interfaces.begin_create_or_update("site", "nic", body).result()
        disk = compute.disks.begin_create_or_update("site", "data", DISK).result()
        assert disk.provisioning_state == "Succeeded"
        vm = compute.virtual_machines.begin_create_or_update(
            "site", "vm", site.machine_body("nic", "data")
        ).result()
        assert vm.provisioning_state == "Succeeded"
        compute.virtual_machines.begin_deallocate("site", "vm").result()
        view = compute.virtual_machines.instance_view("site", "vm")
        assert [one.code for one in view.statuses][1] == "PowerState/deallocated"
        assert {one.name for one in groups.resources.list()} >= {"vm", "nic", "ip", "net", "nsg", "root"}
        with pytest.raises(HttpResponseError) as refused:
            network.public_ip_addresses.begin_delete("site", "ip").result()
        assert refused.value.error.code == "PublicIPAddressCannotBeDeleted"
        compute.virtual_machines.begin_delete("site", "vm").result()
        groups.resource_groups.begin_delete("site").result()
    assert arm.things().snapshot() == {}
