"""Subscriptions, providers, regions, and listings of what there is."""

from __future__ import annotations

import pytest

from support.arm import PRINCIPAL, SUBSCRIPTION, Arm
from support.arm.customer import Customer
from support.arm.sites import DISK, LOCATION, Site
from support.arm.world import Subscription

pytestmark = pytest.mark.tier("deep", proves=("arm",))


def names(customer: Customer, path: str, **query: str) -> list[str]:
    return [row["name"] for row in customer.get(path, query=query).body["value"]]


def test_the_subscription(customer: Customer) -> None:
    (row,) = customer.get("/subscriptions", version="2022-12-01").body["value"]
    assert (row["subscriptionId"], row["tenantId"], row["state"]) == (
        SUBSCRIPTION,
        PRINCIPAL.tenant,
        "Enabled",
    )
    assert customer.get("").body == row


def test_another_subscription(customer: Customer, arm: Arm) -> None:
    other = "07be54b5-0000-4000-8000-00000000a2e0"
    arm.world.subscriptions[other] = Subscription(other, PRINCIPAL.tenant)
    rows = customer.get("/subscriptions", version="2022-12-01").body["value"]
    assert [row["subscriptionId"] for row in rows] == [SUBSCRIPTION, other]
    group = f"/subscriptions/{other}/resourceGroups/theirs"
    assert customer.send("PUT", group, {"location": LOCATION}).status == 201
    assert names(customer, "resourceGroups") == []
    path = f"{group}/providers/Microsoft.Compute/disks/data"
    assert customer.send("PUT", path, DISK).code == "MissingSubscriptionRegistration"


def test_regions(customer: Customer) -> None:
    rows = {row["name"]: row["displayName"] for row in customer.get("locations").body["value"]}
    assert rows["westeurope"] == "West Europe"


def test_a_region_may_be_written_as_it_is_shown(site: Site) -> None:
    made = site.vnet(location="West Europe")
    assert made["location"] == "westeurope"


def test_a_provider_is_registered(customer: Customer, arm: Arm) -> None:
    arm.subscription.providers.pop("Microsoft.Compute")
    path = "providers/Microsoft.Compute"
    assert customer.get(path).body["registrationState"] == "NotRegistered"
    arm.lasts = 0.05
    assert customer.send("POST", f"{path}/register").body["registrationState"] == "Registering"
    for _ in range(100):
        if customer.get(path).body["registrationState"] == "Registered":
            break
    else:
        pytest.fail("it never was")
    types = {row["resourceType"] for row in customer.get(path).body["resourceTypes"]}
    assert {"virtualMachines", "disks"} <= types


def test_all_resources_of_a_subscription_and_of_a_group(customer: Customer) -> None:
    site, other = Site(customer), Site(customer, "other")
    site.vnet(tags={"gridup-stack": "s1"})
    other.nsg(tags={"gridup-stack": "s2"})
    other.disk()
    assert sorted(names(customer, "resources")) == ["data", "net", "nsg"]
    assert names(customer, "resourceGroups/site/resources") == ["net"]
    assert names(customer, "resources", **{"$filter": "tagName eq 'gridup-stack'"}) == ["net", "nsg"]
    one = "tagName eq 'gridup-stack' and tagValue eq 's2'"
    assert names(customer, "resources", **{"$filter": one}) == ["nsg"]
    disks = "resourceType eq 'Microsoft.Compute/disks'"
    assert names(customer, "resources", **{"$filter": disks}) == ["data"]
    (row,) = customer.get("resourceGroups/site/resources").body["value"]
    assert set(row) == {"id", "name", "type", "location", "tags"}


def test_groups_by_tag(customer: Customer) -> None:
    customer.make("resourceGroups/a", {"location": LOCATION, "tags": {"owner": "me"}})
    customer.make("resourceGroups/b", {"location": LOCATION})
    assert names(customer, "resourceGroups") == ["a", "b"]
    mine = {"$filter": "tagName eq 'owner' and tagValue eq 'me'"}
    assert names(customer, "resourceGroups", **mine) == ["a"]


def test_a_group_is_there_or_not(customer: Customer) -> None:
    assert customer.send("HEAD", "resourceGroups/a").status == 404
    customer.make("resourceGroups/a", {"location": LOCATION})
    assert customer.send("HEAD", "resourceGroups/a").status == 204


@pytest.mark.parametrize("name", ["a", "Zürich", "my.lab_2(b)-c", "g" * 90])
def test_a_group_may_be_called(customer: Customer, arm: Arm, name: str) -> None:
    customer.make(f"resourceGroups/{name}", {"location": LOCATION})
    assert names(customer, "resourceGroups") == [name]
    site = Site(customer, name)
    for number in range(3):
        site.disk(f"d{number}")
    arm.page = 2
    first = customer.get(f"resourceGroups/{name}/resources")
    assert len(customer.get(first.body["nextLink"]).body["value"]) == 1
    customer.drop(f"resourceGroups/{name}")


def test_those_of_a_type(customer: Customer) -> None:
    site, other = Site(customer), Site(customer, "other")
    site.disk("one")
    other.disk("two")
    version = "2024-03-02"
    rows = customer.get("providers/Microsoft.Compute/disks", version=version).body["value"]
    assert [row["name"] for row in rows] == ["one", "two"]
    assert rows[0]["properties"]["diskSizeGB"] == 32
    assert names(customer, site.path("disks")) == ["one"]


def test_a_listing_comes_in_pages(site: Site, arm: Arm) -> None:
    for number in range(5):
        site.disk(f"d{number}")
    arm.page = 2
    found: list[str] = []
    reply = site.customer.get("resources", query={"$filter": "location eq 'westeurope'"})
    while True:
        found += [row["name"] for row in reply.body["value"]]
        if "nextLink" not in reply.body:
            break
        reply = site.customer.get(reply.body["nextLink"])
    assert found == [f"d{number}" for number in range(5)]
