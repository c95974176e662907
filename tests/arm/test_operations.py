"""What takes its time: accepted at once, asked after, done later.

https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import time

import pytest

from support.arm import Arm
from support.arm.customer import Customer
from support.arm.sites import ADDRESS, DISK, VNET, Site, changed

pytestmark = pytest.mark.tier("deep", proves=("arm",))


def test_a_creation_is_told_of_at_once_and_over_later(site: Site, arm: Arm) -> None:
    arm.lasts = 0.3
    reply = site.put("publicIPAddresses", "ip", ADDRESS)
    assert (reply.status, reply.body["properties"]["provisioningState"]) == (201, "Updating")
    assert reply.headers["Retry-After"] == "0"
    told = site.customer.get(reply.headers["Azure-AsyncOperation"])
    assert (told.status, told.body["status"]) == (200, "InProgress")
    assert site.customer.done(reply).body["status"] == "Succeeded"
    made = site.customer.get(site.path("publicIPAddresses", "ip"))
    assert made.body["properties"]["provisioningState"] == "Succeeded"


def test_a_change_answers_200(site: Site) -> None:
    site.address()
    assert site.put("publicIPAddresses", "ip", changed(ADDRESS, tags={"a": "b"})).status == 200


def test_a_disk_is_only_accepted(site: Site) -> None:
    """https://learn.microsoft.com/rest/api/compute/disks/create-or-update#response"""
    reply = site.put("disks", "data", DISK)
    assert reply.status == 202
    result = site.customer.get(reply.headers["Location"])
    assert result.status in (200, 204)


def test_a_removal_has_two_addresses_to_ask_at(site: Site, arm: Arm) -> None:
    site.address()
    arm.lasts = 0.3
    path = site.path("publicIPAddresses", "ip")
    reply = site.customer.send("DELETE", path)
    assert reply.status == 202
    waiting = site.customer.get(reply.headers["Location"])
    assert (waiting.status, "Location" in waiting.headers) == (202, True)
    assert site.customer.get(path).body["properties"]["provisioningState"] == "Deleting"
    time.sleep(0.35)
    assert site.customer.get(reply.headers["Location"]).status == 204
    assert site.customer.get(reply.headers["Azure-AsyncOperation"]).body["status"] == "Succeeded"
    assert site.customer.send("DELETE", path).status == 204


def test_a_group_takes_along_all_that_is_in_it(site: Site, arm: Arm) -> None:
    site.whole()
    arm.lasts = 0.2
    reply = site.customer.send("DELETE", "resourceGroups/site")
    assert reply.status == 202
    assert site.customer.get("resourceGroups/site").body["properties"]["provisioningState"] == "Deleting"
    assert site.customer.get(reply.headers["Location"]).status == 202
    assert site.customer.done(reply).status == 200
    assert arm.things().snapshot() == {}
    assert site.customer.send("DELETE", "resourceGroups/site").status == 404


def test_a_failed_creation_stays_as_failed(site: Site, arm: Arm) -> None:
    arm.fail("*/publicIPAddresses/write", "InternalServerError", "An error occurred.", late=True, count=1)
    reply = site.put("publicIPAddresses", "ip", ADDRESS)
    assert reply.status == 201
    told = site.customer.done(reply).body
    assert (told["status"], told["error"]["code"]) == ("Failed", "InternalServerError")
    path = site.path("publicIPAddresses", "ip")
    assert site.customer.get(path).body["properties"]["provisioningState"] == "Failed"
    # The next one mends it.
    assert site.make("publicIPAddresses", "ip", ADDRESS)["properties"]["provisioningState"] == "Succeeded"


def test_a_failed_removal_leaves_it(site: Site, arm: Arm) -> None:
    site.address()
    arm.fail("*/publicIPAddresses/delete", "InternalServerError", late=True, count=1)
    reply = site.customer.send("DELETE", site.path("publicIPAddresses", "ip"))
    assert site.customer.done(reply).body["status"] == "Failed"
    assert site.customer.get(reply.headers["Location"]).code == "InternalServerError"
    site.customer.drop(site.path("publicIPAddresses", "ip"))


def test_a_blocked_group_is_as_it_was(customer: Customer, arm: Arm) -> None:
    site, other = Site(customer), Site(customer, "other")
    site.vnet()
    other.make("networkInterfaces", "nic", site.interface_body())
    reply = customer.send("DELETE", "resourceGroups/site")
    assert customer.done(reply).code == "ResourceGroupDeletionBlocked"
    assert customer.get("resourceGroups/site").body["properties"]["provisioningState"] == "Succeeded"
    customer.drop("resourceGroups/other")
    customer.drop("resourceGroups/site")


@pytest.mark.parametrize("child", ["front", "back"])
def test_one_at_a_time_on_a_network_and_its_subnets(site: Site, arm: Arm, child: str) -> None:
    arm.lasts = 60
    site.put("virtualNetworks", "net", VNET)
    body = {"properties": {"addressPrefix": "10.0.7.0/24"}}
    reply = site.customer.send("PUT", f"{site.path('virtualNetworks', 'net')}/subnets/{child}", body)
    assert (reply.status, reply.code) == (429, "AnotherOperationInProgress")
    assert reply.headers["Retry-After"]


def test_many_at_a_time_on_others(site: Site, arm: Arm) -> None:
    arm.lasts = 60
    for name in ("one", "two"):
        assert site.put("virtualNetworks", name, VNET).status == 201


def test_a_client_is_told_how_long_to_wait(site: Site, arm: Arm) -> None:
    arm.retry_after = 3
    assert site.put("publicIPAddresses", "ip", ADDRESS).headers["Retry-After"] == "3"
