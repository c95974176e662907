"""Machines: made, changed, stopped, started, asked, removed."""

from __future__ import annotations

import base64

import pytest

from support.arm import Arm
from support.arm.sites import CUSTOM_DATA, LOCATION, Site
from support.ssh_keys import ed25519, rsa, rsa4096
from support.workers import AZURE_NETWORK, public_address

pytestmark = pytest.mark.tier("deep", proves=("arm",))

VM = "Microsoft.Compute/virtualMachines"


def power(site: Site) -> list[str]:
    told = site.customer.get(site.path("virtualMachines", "vm"), query={"$expand": "instanceView"})
    return [one["code"] for one in told.body["properties"]["instanceView"]["statuses"]]


def act(site: Site, what: str) -> None:
    reply = site.customer.send("POST", f"{site.path('virtualMachines', 'vm')}/{what}")
    assert reply.status == 202
    assert site.customer.done(reply).body["status"] == "Succeeded"


def test_a_machine_is_what_was_asked_for(site: Site, arm: Arm) -> None:
    made = site.whole()["properties"]
    assert made["osProfile"]["computerName"] == "inst"
    assert made["storageProfile"]["osDisk"]["managedDisk"]["id"] == site.id("disks", "root")
    assert made["storageProfile"]["imageReference"]["exactVersion"]
    assert power(site) == ["ProvisioningState/succeeded", "PowerState/running"]
    (machine,) = arm.things().machines()
    assert (machine.custom_data, machine.user, machine.boots) == (CUSTOM_DATA, "gridup", 1)
    assert (machine.public, machine.private) == (public_address(AZURE_NETWORK, 0), "10.0.0.4")
    assert machine.disks == {0: site.id("disks", "data")}


def test_no_answer_has_a_secret(site: Site) -> None:
    """https://learn.microsoft.com/azure/virtual-machines/custom-data: it is not given back."""
    made = site.whole()
    sent = base64.b64encode(CUSTOM_DATA).decode()
    assert sent not in repr(made)
    assert sent not in repr(site.customer.get(site.path("virtualMachines", "vm")).body)


@pytest.mark.parametrize("line", [ed25519("a b: c #1"), rsa4096("a"), rsa(2048, "a")])
def test_keys_that_azure_takes(site: Site, line: str) -> None:
    keys = [{"path": "/home/gridup/.ssh/authorized_keys", "keyData": line}]
    made = site.whole(properties__osProfile__linuxConfiguration__ssh={"publicKeys": keys})
    assert made["properties"]["osProfile"]["linuxConfiguration"]["ssh"]["publicKeys"] == keys


def test_the_same_again_changes_nothing(site: Site, arm: Arm) -> None:
    site.whole()
    before = arm.things().machines()
    site.make("virtualMachines", "vm", site.machine_body("nic", "data"))
    assert arm.things().machines() == before


def test_a_change_may_leave_out_what_is_fixed(site: Site, arm: Arm) -> None:
    """As a client does that sends back what it read, where the custom data is missing."""
    site.whole()
    site.make("virtualMachines", "vm", site.machine_body("nic", "data", properties__osProfile=None))
    assert arm.things().machines()[0].custom_data == CUSTOM_DATA


def test_another_size_starts_it_anew(site: Site, arm: Arm) -> None:
    site.whole()
    size = {"hardwareProfile": {"vmSize": "Standard_D4s_v5"}}
    reply = site.customer.send("PATCH", site.path("virtualMachines", "vm"), {"properties": size})
    assert reply.status == 200
    site.customer.done(reply)
    (machine,) = arm.things().machines()
    assert (machine.size, machine.boots, machine.custom_data) == ("Standard_D4s_v5", 2, CUSTOM_DATA)


def test_stopped_and_started(site: Site, arm: Arm) -> None:
    site.whole()
    act(site, "powerOff")
    assert power(site)[1] == "PowerState/stopped"
    act(site, "deallocate")
    assert power(site)[1] == "PowerState/deallocated"
    disk = site.customer.get(site.path("disks", "data")).body
    assert (disk["properties"]["diskState"], disk["managedBy"]) == (
        "Reserved",
        site.id("virtualMachines", "vm"),
    )
    act(site, "start")
    assert power(site)[1] == "PowerState/running"
    act(site, "start")
    act(site, "restart")
    (machine,) = arm.things().machines()
    assert machine.boots == 3


def test_the_address_stays_over_a_stop(site: Site, arm: Arm) -> None:
    site.whole()
    act(site, "deallocate")
    act(site, "start")
    assert arm.things().machines()[0].public == public_address(AZURE_NETWORK, 0)


def test_what_it_wrote_to_its_console(site: Site, arm: Arm) -> None:
    site.whole()
    arm.things().console(site.id("virtualMachines", "vm"), b"cloud-init: done\n")
    reply = site.customer.send("POST", site.path("virtualMachines", "vm") + "/retrieveBootDiagnosticsData")
    assert reply.status == 200
    # The address is good without a token, and no other one is.
    url = reply.body["serialConsoleLogBlobUri"]
    assert site.customer.get(url, headers={"Authorization": ""}).body == b"cloud-init: done\n"
    assert site.customer.get(url + "x", headers={"Authorization": ""}).status == 404


def test_what_goes_with_it_and_what_stays(site: Site, arm: Arm) -> None:
    site.whole()
    site.customer.drop(site.path("virtualMachines", "vm"))
    left = {type_.split("/")[1]: len(ids) for type_, ids in arm.things().snapshot().items()}
    assert left.pop("disks") == 1
    assert {"networkInterfaces", "publicIPAddresses"} <= set(left)
    assert site.customer.get(site.path("disks", "data")).body["properties"]["diskState"] == "Unattached"


def test_all_that_is_to_goes_with_it(site: Site, arm: Arm) -> None:
    site.vnet()
    address = {"id": site.address()["id"], "properties": {"deleteOption": "Delete"}}
    site.interface(publicIPAddress=address)
    site.disk()
    body = site.machine_body("nic", "data")
    body["properties"]["networkProfile"]["networkInterfaces"][0]["properties"]["deleteOption"] = "Delete"
    body["properties"]["storageProfile"]["dataDisks"][0]["deleteOption"] = "Delete"
    site.make("virtualMachines", "vm", body)
    site.customer.drop(site.path("virtualMachines", "vm"))
    types = set(arm.things().snapshot())
    assert types == {
        "Microsoft.Resources/resourceGroups",
        "Microsoft.Network/virtualNetworks",
        "Microsoft.Network/virtualNetworks/subnets",
    }


def test_a_root_disk_that_nobody_asked_to_go_stays(site: Site) -> None:
    """G20: it is billed, and in the way of the next machine of that name."""
    site.whole(properties__storageProfile__osDisk__deleteOption=None)
    site.customer.drop(site.path("virtualMachines", "vm"))
    assert site.customer.get(site.path("disks", "root")).status == 200
    reply = site.put("virtualMachines", "vm", site.machine_body("nic", "data"))
    assert (reply.status, reply.code) == (409, "ConflictingUserInput")


def test_a_failed_creation_can_be_tried_again(site: Site, arm: Arm) -> None:
    arm.world.reserves = 60
    arm.fail("*/virtualMachines/write", "AllocationFailed", "No room.", late=True, count=1)
    site.vnet()
    site.interface()
    reply = site.put("virtualMachines", "vm", site.machine_body())
    assert site.customer.done(reply).body["status"] == "Failed"
    site.customer.drop(site.path("virtualMachines", "vm"))
    # Its interface is reserved for it, and for no other one.
    site.make("virtualMachines", "vm", site.machine_body())
    assert arm.things().machines()[0].power == "running"


def test_a_failed_machine_is_mended_by_the_next_put(site: Site, arm: Arm) -> None:
    arm.fail("*/virtualMachines/write", "AllocationFailed", "No room.", late=True, count=1)
    site.vnet()
    site.interface()
    site.customer.done(site.put("virtualMachines", "vm", site.machine_body()))
    assert arm.things().machines()[0].power == "starting"
    made = site.make("virtualMachines", "vm", site.machine_body())
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert (arm.things().machines()[0].power, arm.things().machines()[0].boots) == ("running", 1)


def test_a_replaced_machine_is_another_one(site: Site, arm: Arm) -> None:
    site.whole()
    (before,) = arm.things().machines()
    site.customer.drop(site.path("virtualMachines", "vm"))
    site.make("virtualMachines", "vm", site.machine_body("nic", "data"))
    (after,) = arm.things().machines()
    assert before.vm_id != after.vm_id
    assert before.disks == after.disks


def test_a_disk_that_no_machine_had_says_so(site: Site) -> None:
    """https://learn.microsoft.com/rest/api/compute/disks/get#disk"""
    assert "LastOwnershipUpdateTime" not in site.disk("new")["properties"]
    site.whole()
    assert "LastOwnershipUpdateTime" in site.customer.get(site.path("disks", "data")).body["properties"]
    site.customer.drop(site.path("virtualMachines", "vm"))
    left = site.customer.get(site.path("disks", "data")).body["properties"]
    assert (left["diskState"], bool(left["LastOwnershipUpdateTime"])) == ("Unattached", True)


def test_a_disk_grows_and_its_machine_knows(site: Site) -> None:
    site.whole()
    grown = site.disk(properties__diskSizeGB=64)
    assert grown["properties"]["diskSizeBytes"] == 64 << 30
    assert grown["managedBy"]


def test_quotas_count_what_is_there(site: Site) -> None:
    site.whole()
    rows = site.customer.get(f"providers/Microsoft.Compute/locations/{LOCATION}/usages").body["value"]
    used = {row["name"]["value"]: row["currentValue"] for row in rows}
    assert (used["cores"], used["standardDSv5Family"], used["virtualMachines"]) == (2, 2, 1)
    rows = site.customer.get(f"providers/Microsoft.Network/locations/{LOCATION}/usages").body["value"]
    assert {row["name"]["value"]: row["currentValue"] for row in rows}["PublicIPAddresses"] == 1


def test_sizes_say_what_they_are(site: Site, arm: Arm) -> None:
    arm.world.restricted.add((LOCATION, "Standard_B2s"))
    arm.world.missing.add((LOCATION, "Standard_B1s"))
    query = {"$filter": f"location eq '{LOCATION}'"}
    rows = site.customer.get("providers/Microsoft.Compute/skus", query=query).body["value"]
    sizes = {row["name"]: row for row in rows}
    assert "Standard_B1s" not in sizes
    assert sizes["Standard_B2s"]["restrictions"][0]["reasonCode"] == "NotAvailableForSubscription"
    told = {one["name"]: one["value"] for one in sizes["Standard_D2s_v5"]["capabilities"]}
    assert (told["vCPUs"], told["HyperVGenerations"]) == ("2", "V1,V2")


def test_images_can_be_looked_up(site: Site) -> None:
    base = f"providers/Microsoft.Compute/locations/{LOCATION}/publishers/Debian/artifacttypes/vmimage/offers"
    assert [row["name"] for row in site.customer.get(base).body] == ["debian-12", "debian-13"]
    found = site.customer.get(f"{base}/debian-13/skus/13-gen2/versions").body
    assert found[-1]["name"] == "0.20251006.2257"
