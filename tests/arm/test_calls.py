"""What a test can do to calls, and read of them afterwards."""

from __future__ import annotations

import threading

import pytest
import requests

from support.arm import Arm
from support.arm.customer import Customer
from support.arm.sites import ADDRESS, LOCATION, VNET, Site

pytestmark = pytest.mark.tier("deep", proves=("arm",))

NETWORK = "Microsoft.Network"


def test_a_call_is_named_by_the_right_that_it_takes(site: Site, arm: Arm) -> None:
    site.whole()
    site.customer.get("resources")
    site.customer.send("POST", site.path("virtualMachines", "vm") + "/deallocate")
    site.customer.get(site.path("virtualMachines", "vm") + "/instanceView")
    counted = arm.actions()
    for action in (
        "Microsoft.Resources/subscriptions/resourceGroups/write",
        "Microsoft.Resources/subscriptions/resources/read",
        f"{NETWORK}/publicIPAddresses/write",
        f"{NETWORK}/locations/operations/read",
        "Microsoft.Compute/virtualMachines/deallocate/action",
        "Microsoft.Compute/virtualMachines/instanceView/read",
    ):
        assert counted[action], action
    nic = next(call for call in arm.calls if call.action == f"{NETWORK}/networkInterfaces/write")
    assert set(nic.actions[1:]) == {
        f"{NETWORK}/virtualNetworks/subnets/join/action",
        f"{NETWORK}/publicIPAddresses/join/action",
    }
    vm = next(call for call in arm.calls if call.action == "Microsoft.Compute/virtualMachines/write")
    assert f"{NETWORK}/networkInterfaces/join/action" in vm.actions
    assert vm.body["properties"]["osProfile"]["adminUsername"] == "gridup"


def test_with_the_rights_that_were_recorded_it_works_again(site: Site, arm: Arm) -> None:
    site.whole()
    taken = {action for call in arm.calls for action in call.actions}
    arm.reset()
    arm.rights = tuple(taken)
    with Customer(arm) as customer:
        Site(customer).whole()


@pytest.mark.parametrize(
    "missing", [f"{NETWORK}/networkInterfaces/write", f"{NETWORK}/publicIPAddresses/join/action"]
)
def test_without_one_of_them_it_does_not(site: Site, arm: Arm, missing: str) -> None:
    site.whole()
    taken = {action for call in arm.calls for action in call.actions}
    arm.reset()
    arm.rights = tuple(taken - {missing})
    with Customer(arm) as customer, pytest.raises(AssertionError, match="AuthorizationFailed"):
        Site(customer).whole()


def test_a_call_fails_as_often_as_it_should(site: Site, arm: Arm) -> None:
    fault = arm.fail("*/publicIPAddresses/write", "RetryableError", "Try again.", status=429, count=2)
    statuses = [site.put("publicIPAddresses", "ip", ADDRESS).status for _ in range(3)]
    assert (statuses, fault.met) == ([429, 429, 201], 2)
    assert [call.code for call in arm.calls[-3:]] == ["RetryableError", "RetryableError", ""]


def test_only_the_one_that_is_meant_fails(site: Site, arm: Arm) -> None:
    arm.fail(
        "*/virtualNetworks/write", "Conflict", status=409, when=lambda path, _body: path.endswith("/bad")
    )
    assert site.put("virtualNetworks", "good", VNET).status == 201
    assert site.put("virtualNetworks", "bad", VNET).status == 409


def test_a_held_call_is_accepted_and_nobody_is_told(site: Site, arm: Arm) -> None:
    held = arm.hold(f"{NETWORK}/publicIPAddresses/write")
    ended: list[str] = []

    def ask() -> None:
        try:
            site.put("publicIPAddresses", "ip", ADDRESS)
        except requests.RequestException as error:
            ended.append(type(error).__name__)

    thread = threading.Thread(target=ask)
    thread.start()
    held.wait(seconds=10)
    with Customer(arm) as other:
        assert other.get(site.path("publicIPAddresses", "ip")).status == 200
    assert not ended
    held.drop()
    thread.join(10)
    assert ended == ["ConnectionError"]
    call = next(call for call in arm.calls if call.action == f"{NETWORK}/publicIPAddresses/write")
    assert call.status == 0
    # Only the first is held.
    assert site.put("publicIPAddresses", "ip", ADDRESS).status == 200


def test_calls_take_longer_and_overlap(customer: Customer, arm: Arm) -> None:
    arm.delay = 0.2

    def ask() -> None:
        with Customer(arm) as other:
            other.get("resourceGroups")

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    calls = [call for call in arm.calls if call.action.endswith("resourceGroups/read")]
    assert len(calls) == 5
    assert all(call.ended - call.began >= 0.2 for call in calls)
    assert max(call.began for call in calls) < min(call.ended for call in calls)


def test_an_environment_is_whole(arm: Arm) -> None:
    told = arm.environment
    assert told["AZURE_RESOURCE_MANAGER_URL"] == told["AZURE_AUTHORITY_HOST"] == arm.url
    assert told["GRIDUP_TEST_ARM_ENDPOINT"] == arm.url
    bundle = arm.bundle.read_bytes()
    assert bundle.endswith(arm.ca_file.read_bytes())


def test_things_are_seen_past_the_api(site: Site, arm: Arm) -> None:
    site.whole(tags={"stack": "a"})
    before = len(arm.calls)
    things = arm.things()
    assert things.count("stack") == {"Microsoft.Compute/virtualMachines": 1, "Microsoft.Compute/disks": 1}
    assert things.one("Microsoft.Network/publicIPAddresses")["location"] == LOCATION
    assert len(things.snapshot()["Microsoft.Compute/disks"]) == 2
    things.remove(things.one("Microsoft.Compute/virtualMachines")["id"])
    assert len(arm.calls) == before
    assert site.customer.get(site.path("virtualMachines", "vm")).status == 404
    assert site.customer.get(site.path("disks", "root")).status == 404
