"""A node's host on Azure: the real engine and command line against an ARM of our own."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from support.arm import Arm
from support.azure_node import CLOUD, COMPUTE, DEPLOY, NETWORK, OPEN, REGION, STAFF, Account, deploy
from support.cache import shared_home
from support.cli import Cli
from support.deep import deep

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine]


@pytest.fixture(params=["", deep("existing")], ids=["own group", "existing group"])
def account(request: pytest.FixtureRequest, arm: Arm) -> Account:
    return Account(arm, request.param)


RULE = {
    "direction": "Inbound",
    "access": "Allow",
    "protocol": "Tcp",
    "sourcePortRange": "*",
    "destinationAddressPrefix": "*",
    "destinationPortRange": "22",
}


def words(account: Account) -> tuple[str, ...]:
    return (*DEPLOY, *(("--resource-group", account.group) if account.group else ()))


def test_the_life_of_a_host(azure_cli: Cli, account: Account) -> None:
    cli, arm = azure_cli, account.arm
    arm.world.dns_suffix = "cloudapp.stack.example"
    made = cli(*words(account), "--json").ok()
    account.one_of_everything()
    assert account.rules() == OPEN
    machine, disk, address = account.machine(), account.data_disk(), account.address()
    label = account.one(f"{NETWORK}/publicIPAddresses")["properties"]["dnsSettings"]["fqdn"]
    assert made.json["address"] == label
    assert label.endswith(".westeurope.cloudapp.stack.example")
    with arm.world.lock:
        told = arm.world.get(machine["id"]).hidden["customData"]  # type: ignore[union-attr]
    assert base64.b64decode(told).startswith(b"#cloud-config\n")

    # Nothing has changed, and all of them say so.
    assert cli("preview", "--name", "Inst", "--no-node", "--json").ok().json["changes"] == []
    calls = len(arm.calls)
    assert "Nothing changed" in cli(*words(account)).ok().err
    assert not [call for call in arm.calls[calls:] if call.action != "token" and call.method != "GET"]
    assert cli("refresh", "Inst", "--json").ok().json == {"name": "Inst", "changes": [], "problems": []}

    # A rule that was removed by hand is seen, and put back.
    group = account.one(f"{NETWORK}/networkSecurityGroups")
    account.customer.drop(f"{group['id']}/securityRules/staff")
    theirs = {**RULE, "priority": 300, "sourceAddressPrefix": "198.51.100.9/32"}
    account.customer.make(f"{group['id']}/securityRules/theirs", {"properties": theirs})
    seen = cli("status", "Inst", "--no-probe", "--json").ok().json[0]
    assert (seen["state"], seen["problems"]) == (
        "degraded",
        [
            f"the firewall's rule tcp 22 {STAFF} is gone",
            "the firewall also lets in tcp 22 198.51.100.9/32",
            f"the firewall's rule tcp 8888 {STAFF} is gone",
        ],
    )
    refreshed = cli("refresh", "Inst", "--json").ok().json
    assert sorted(row["resource"] for row in refreshed["changes"]) == ["exclusive-rules", "rule-staff"]
    changed = json.loads(cli(*words(account), "--json").ok().out)["changes"]
    assert sorted(row["resource"] for row in changed) == ["exclusive-rules", "rule-staff"]
    assert account.rules() == OPEN

    # Who is let in, the disk and the size are changed in place.
    cli(
        "deploy", "--name", "Inst", *CLOUD, "--allow-cidr", "10.0.0.0/8", "--web-cidr", "198.51.100.0/24"
    ).ok()
    assert account.rules() == {
        *((port, "10.0.0.0/8") for port in (22, 8888)),
        *((port, "198.51.100.0/24") for port in (80, 443)),
    }
    cli("deploy", "--name", "Inst", *CLOUD, "--size", "Standard_D4s_v5", "--disk-size", "80").ok()
    account.one_of_everything()
    after = account.machine()["properties"]
    assert (after["vmId"], after["hardwareProfile"]["vmSize"]) == (
        machine["properties"]["vmId"],
        "Standard_D4s_v5",
    )
    grown = account.data_disk()
    assert grown["properties"]["uniqueId"] == disk["properties"]["uniqueId"]
    assert grown["properties"]["diskSizeGB"] == 80
    assert "Nothing changed" in cli("deploy", "--name", "Inst", *CLOUD).ok().err

    # Stopped and started; the address stays. A deploy starts it too.
    cli("stop", "Inst").ok()
    assert account.power() == "deallocated"
    assert cli("status", "Inst", "--no-probe", "--json").ok().json[0]["state"] == "stopped"
    assert cli("start", "Inst", "--timeout", "1").code == 9
    account.one_of_everything()
    cli("stop", "Inst").ok()
    cli("deploy", "--name", "Inst", *CLOUD).ok()
    account.one_of_everything()
    assert account.address() == address

    # Another machine on the same disk.
    replaced = cli("deploy", "--name", "Inst", *CLOUD, "--new-machine").ok()
    assert "data disk stays" in replaced.err
    account.one_of_everything()
    assert account.machine()["properties"]["vmId"] != machine["properties"]["vmId"]
    assert account.data_disk()["properties"]["uniqueId"] == disk["properties"]["uniqueId"]

    ended = cli("destroy", "Inst", "--yes").ok()
    assert '"Inst" is destroyed' in ended.out
    account.as_before()
    # And at once again.
    cli(*words(account)).ok()
    account.one_of_everything()


def test_a_private_host_in_the_subnet_of_others(azure_cli: Cli, arm: Arm) -> None:
    """And a destroy that Azure refuses (case G17)."""
    cli, customer = azure_cli, Account(arm).customer
    customer.send("PUT", "resourceGroups/theirs", {"location": REGION})
    lab = customer.make(
        f"resourceGroups/theirs/providers/{NETWORK}/virtualNetworks/lab",
        {
            "location": REGION,
            "properties": {
                "addressSpace": {"addressPrefixes": ["10.9.0.0/16"]},
                "subnets": [{"name": "machines", "properties": {"addressPrefix": "10.9.0.0/24"}}],
            },
        },
    )
    account = Account(arm)
    within = ("--private", "--subnet-id", f"{lab['id']}/subnets/machines")
    made = cli(*DEPLOY, *within, "--json").ok().json
    assert made["address"] == "10.9.0.4"
    assert account.things(f"{NETWORK}/publicIPAddresses") == []
    assert account.things(f"{NETWORK}/virtualNetworks") == []
    [row] = account.one(f"{NETWORK}/networkInterfaces")["properties"]["ipConfigurations"]
    assert row["properties"]["subnet"]["id"] == f"{lab['id']}/subnets/machines"
    assert account.rules() == OPEN
    assert cli("preview", "--name", "Inst", "--no-node", "--json").ok().json["changes"] == []

    # The group's removal fails: that is no success, and what is left is told.
    refused = arm.fail("Microsoft.Resources/subscriptions/resourceGroups/delete", "ScopeLocked", status=409)
    ended = cli("destroy", "Inst", "--yes")
    assert (ended.code, "Traceback" in ended.err) == (4, False)
    assert "is destroyed" not in ended.out
    assert "ScopeLocked" in ended.err
    assert account.machine()["name"] in ended.err, ended.err
    arm.interference.faults.remove(refused)
    cli("destroy", "Inst", "--yes").ok()
    account.as_before()


def test_what_was_removed_elsewhere_is_gone_and_made_anew(azure_cli: Cli, account: Account) -> None:
    """Case G37."""
    cli = azure_cli
    cli(*words(account)).ok()
    disk = account.data_disk()
    account.customer.drop(account.machine()["id"])
    seen = cli("status", "Inst", "--no-probe", "--json").ok().json[0]
    assert seen["state"] == "missing"
    cli(*words(account)).ok()
    account.one_of_everything()
    assert account.data_disk()["properties"]["uniqueId"] == disk["properties"]["uniqueId"]
    account.customer.drop(account.machine()["id"])
    cli("destroy", "Inst", "--yes").ok()
    account.as_before()


def test_a_disk_that_is_kept_is_taken_over_by_the_next_of_that_name(azure_cli: Cli, account: Account) -> None:
    cli = azure_cli
    cli(*words(account), "--keep-data", "--disk-size", "100").ok()
    kept = account.data_disk()
    ended = cli("destroy", "Inst", "--yes", "--json").ok()
    assert ended.json["kept"]
    assert account.things(f"{COMPUTE}/virtualMachines") == []
    [left] = account.things(f"{COMPUTE}/disks")
    assert left["id"] == kept["id"]
    assert left["tags"]["gridup:stack-id"] == "kept"
    refused = cli(*words(account))
    assert refused.code == 2
    assert kept["name"] in refused.err and "--adopt" in refused.err
    assert [one["id"] for one in account.things(f"{COMPUTE}/disks")] == [kept["id"]]
    cli(*words(account), "--adopt").ok()
    disks = {one["id"]: one["properties"] for one in account.things(f"{COMPUTE}/disks")}
    # It goes once a node has been healthy with the copy, which none is here.
    assert kept["id"] in disks
    [copy] = [one for one in disks.values() if one["creationData"].get("sourceResourceId")]
    assert copy["creationData"]["sourceResourceId"].lower() == kept["id"].lower()
    assert copy["diskSizeGB"] == 100
    # The copy grows when its source is gone: nothing of that is sent again.
    account.customer.drop(kept["id"])
    calls = len(account.arm.calls)
    changed = cli(*words(account), "--disk-size", "200", "--json").ok().json["changes"]
    assert [row["resource"] for row in changed] == ["disk-size"]
    sent = [call for call in account.arm.calls[calls:] if call.action == f"{COMPUTE}/disks/write"]
    assert [(call.method, call.body) for call in sent] == [("PATCH", {"properties": {"diskSizeGB": 200}})]
    assert account.data_disk()["properties"]["diskSizeGB"] == 200
    # A refresh takes note of the size, once; to the node it is no change.
    noted = cli("refresh", "Inst", "--json").ok().json["changes"]
    assert noted == [{"resource": "disk", "operation": "update", "changed": ["diskSizeGB"]}]
    assert cli("refresh", "Inst", "--json").ok().json["changes"] == []
    assert "Nothing changed" in cli(*words(account)).ok().err
    # Who opened it to others has changed that alone, and so does the next deploy.
    disk = account.data_disk()["id"]
    opened = {"properties": {"networkAccessPolicy": "AllowAll"}}
    account.customer.done(account.customer.send("PATCH", disk, opened))
    seen = cli("refresh", "Inst", "--json").ok().json["changes"]
    assert {row["resource"] for row in seen} == {"disk", "disk-size"}
    cli(*words(account)).ok()
    shut = account.data_disk()["properties"]
    assert (shut["networkAccessPolicy"], shut["diskSizeGB"]) == ("DenyAll", 200)
    cli("destroy", "Inst", "--yes").ok()
    left = account.things(f"{COMPUTE}/disks")
    assert len(left) == 1
    for one in left:
        account.customer.drop(one["id"])


def test_a_size_that_is_sold_out_is_told_in_one_line_and_all_of_it_goes(azure_cli: Cli, arm: Arm) -> None:
    """Case G21."""
    account = Account(arm)
    arm.fail(
        "Microsoft.Compute/virtualMachines/write",
        "SkuNotAvailable",
        "The requested VM size for resource is currently not available in location 'westeurope'.",
        status=409,
    )
    ended = azure_cli(*DEPLOY)
    assert ended.code == 4
    assert "Traceback" not in ended.err
    for word in ("Standard_D2s_v5", "westeurope", "--size", "--region", "SkuNotAvailable"):
        assert word in ended.err, ended.err
    azure_cli("destroy", "Inst", "--yes").ok()
    account.as_before()


def test_nothing_is_made_without_credentials(azure_cli: Cli, arm: Arm) -> None:
    """Case G14."""
    account = Account(arm)
    ended = azure_cli(*DEPLOY, env={"AZURE_CLIENT_SECRET": "wrong"})
    assert (ended.code, "Traceback" in ended.err) == (3, False)
    account.as_before()
    assert azure_cli("status", "--json").ok().json == []


@pytest.mark.tier("deep")
def test_two_colleagues_nodes_of_one_name_do_not_touch_each_other(
    azure_cli: Cli, arm: Arm, tmp_path: Path, cache: Path
) -> None:
    colleague = Cli(shared_home(tmp_path / "colleague", cache), dict(azure_cli.environment))
    deploy(colleague)
    theirs = Account(arm)
    deploy(azure_cli)
    azure_cli("destroy", "Inst", "--yes").ok()
    theirs.as_before()
    colleague("destroy", "Inst", "--yes").ok()
