"""Networks, rules, addresses, interfaces: what is filled in, what is kept, what goes."""

from __future__ import annotations

import pytest

from support.arm import Arm
from support.arm.sites import ADDRESS, LOCATION, NSG, RULE, VNET, Site, changed
from support.workers import AZURE_NETWORK

pytestmark = pytest.mark.tier("deep", proves=("arm",))

PAIR = [
    {"name": "front", "properties": {"addressPrefix": "10.0.0.0/24"}},
    {"name": "back", "properties": {"addressPrefix": "10.0.1.0/24"}},
]


def subnets(site: Site) -> list[str]:
    body = site.customer.get(site.path("virtualNetworks", "net")).body
    return [one["name"] for one in body["properties"]["subnets"]]


def test_a_networks_subnets_are_resources_too(site: Site) -> None:
    site.vnet(properties__subnets=PAIR)
    path = site.path("virtualNetworks", "net") + "/subnets"
    rows = site.customer.get(path).body["value"]
    assert [row["name"] for row in rows] == ["front", "back"]
    site.customer.make(f"{path}/more", {"properties": {"addressPrefix": "10.0.2.0/24"}})
    assert subnets(site) == ["front", "back", "more"]
    site.customer.drop(f"{path}/back")
    assert subnets(site) == ["front", "more"]


@pytest.mark.parametrize(("version", "left"), [("2023-02-01", []), ("2024-05-01", ["front"])])
def test_a_network_put_without_subnets(site: Site, version: str, left: list[str]) -> None:
    """Since 2023-09-01 they are left alone: Microsoft's network blog has the change."""
    site.vnet()
    site.put("virtualNetworks", "net", changed(VNET, properties__subnets=None), version=version)
    assert subnets(site) == left


def test_subnets_that_a_put_leaves_out_go(site: Site) -> None:
    site.vnet(properties__subnets=PAIR)
    site.vnet()
    assert subnets(site) == ["front"]


def test_rules_that_a_put_leaves_out_go(site: Site) -> None:
    site.nsg()
    path = site.path("networkSecurityGroups", "nsg")
    site.customer.make(f"{path}/securityRules/web", changed(RULE, properties__priority=200))
    assert len(site.customer.get(path).body["properties"]["securityRules"]) == 2
    site.nsg(properties__securityRules=None)
    told = site.customer.get(path).body["properties"]
    assert told["securityRules"] == []
    assert len(told["defaultSecurityRules"]) == 6


def test_rules_of_both_directions_may_share_a_priority(site: Site) -> None:
    out = changed(RULE, properties__direction="Outbound")
    site.nsg(properties__securityRules=[{"name": "in", **RULE}, {"name": "out", **out}])


@pytest.mark.parametrize("priority", [100, 4096])
def test_priorities_reach_from_100_to_4096(site: Site, priority: int) -> None:
    site.nsg(properties__securityRules=[{"name": "a", **changed(RULE, properties__priority=priority)}])


@pytest.mark.parametrize("source", ["*", "Internet", "198.51.100.0/24", "198.51.100.7", "2001:db8::/32"])
def test_sources_that_a_rule_takes(site: Site, source: str) -> None:
    site.nsg(
        properties__securityRules=[{"name": "a", **changed(RULE, properties__sourceAddressPrefix=source)}]
    )


def test_an_address_is_there_from_the_start(site: Site) -> None:
    """G18: a static one is allocated when it is made."""
    reply = site.put("publicIPAddresses", "ip", ADDRESS)
    assert reply.body["properties"]["ipAddress"].startswith(AZURE_NETWORK)
    assert reply.body["properties"]["dnsSettings"]["fqdn"] == f"inst-7f3a.{LOCATION}.cloudapp.azure.com"


def test_an_address_keeps_over_changes(site: Site) -> None:
    first = site.address()["properties"]["ipAddress"]
    assert site.address(tags={"a": "b"})["properties"]["ipAddress"] == first


def test_no_two_have_one_address(site: Site) -> None:
    made = [
        site.make("publicIPAddresses", f"ip{number}", changed(ADDRESS, properties__dnsSettings=None))
        for number in range(5)
    ]
    assert len({one["properties"]["ipAddress"] for one in made}) == 5


def test_a_label_is_free_again_when_its_address_is_gone(site: Site, arm: Arm) -> None:
    base = f"providers/Microsoft.Network/locations/{LOCATION}/CheckDnsNameAvailability"

    def free() -> bool:
        return bool(site.customer.get(base, query={"domainNameLabel": "inst-7f3a"}).body["available"])

    assert free()
    site.address()
    assert not free()
    site.customer.drop(site.path("publicIPAddresses", "ip"))
    assert free()


def test_a_label_may_be_taken_in_another_region(site: Site) -> None:
    site.address()
    site.make("publicIPAddresses", "other", changed(ADDRESS, location="eastus"))


def test_each_side_of_a_link_knows_the_other(site: Site) -> None:
    site.whole()
    nic = site.customer.get(site.path("networkInterfaces", "nic")).body
    ip = site.customer.get(site.path("publicIPAddresses", "ip")).body
    configuration = f"{site.id('networkInterfaces', 'nic')}/ipConfigurations/main"
    assert nic["properties"]["virtualMachine"]["id"] == site.id("virtualMachines", "vm")
    assert nic["properties"]["macAddress"].startswith("00-0D-3A-")
    assert ip["properties"]["ipConfiguration"]["id"] == configuration
    net = site.customer.get(site.path("virtualNetworks", "net")).body
    assert net["properties"]["subnets"][0]["properties"]["ipConfigurations"] == [{"id": configuration}]


def test_private_addresses_begin_after_azures_own(site: Site) -> None:
    site.vnet()
    one, two = site.interface("one"), site.interface("two")
    private = [
        nic["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"] for nic in (one, two)
    ]
    assert private == ["10.0.0.4", "10.0.0.5"]


def test_a_private_address_keeps_over_changes(site: Site) -> None:
    site.vnet()
    site.interface("one")
    site.interface("two")
    again = site.interface("two")
    assert again["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"] == "10.0.0.5"


def test_names_are_the_same_in_any_case(site: Site) -> None:
    site.address()
    upper = site.customer.get(site.path("publicIPAddresses", "IP").replace("site", "SITE"))
    assert upper.body["name"] == "ip"
    assert site.put("publicIPAddresses", "IP", ADDRESS).status == 200


def test_tags_change_by_themselves(site: Site) -> None:
    site.address(tags={"a": "1", "b": "2"})
    path = site.path("publicIPAddresses", "ip")
    reply = site.customer.send("PATCH", path, {"tags": {"a": "3"}})
    assert (reply.status, "Azure-AsyncOperation" in reply.headers) == (200, False)
    told = site.customer.get(path).body
    assert (told["tags"], told["sku"]["name"]) == ({"a": "3"}, "Standard")


def test_a_group_may_be_tagged_by_itself(site: Site) -> None:
    reply = site.customer.send("PATCH", "resourceGroups/site", {"tags": {"a": "1"}})
    assert (reply.status, reply.body["tags"]) == (200, {"a": "1"})


def test_etags(site: Site) -> None:
    first = site.nsg()["etag"]
    assert site.put("networkSecurityGroups", "nsg", NSG, headers={"If-Match": first}).status == 200
    assert site.put("networkSecurityGroups", "nsg", NSG, headers={"If-Match": first}).status == 412
    assert site.put("networkSecurityGroups", "new", NSG, headers={"If-None-Match": "*"}).status == 201
