"""What the Azure target does by itself, against an ARM of our own and without an engine: looking before a
deploy, settling what was interrupted, removing what no state knows of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gridup_infra.errors import CredentialsError, GridupError, PreflightError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import NEW_DATA, DeploySpec
from gridup_infra.targets.azure import AzureTarget, cleanup, client, naming, preflight
from gridup_infra.targets.base import NodeStatus, StackRef
from gridup_infra.targets.dynamic import DRIFT
from gridup_infra.vm import node
from support.arm import SUBSCRIPTION, Arm
from support.azure_node import COMPUTE, NETWORK, OPEN, REGION, Account
from support.azure_parts import OURS, Parts

pytestmark = pytest.mark.tier("gate")

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H gridup"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(client, "pause", lambda *_: None)
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)
    client.clear_caches()
    yield
    client.clear_caches()


def spec(**how: Any) -> DeploySpec:
    asked = {"region": REGION, "allow_cidr": ("203.0.113.7/32",), **how}
    return AzureTarget().resolve(DeploySpec("Inst", target="azure", **asked).with_new_id(), None)


def identity(wanted: DeploySpec) -> StackRef:
    facts = {"group": naming.group(wanted), "resource_group": wanted.resource_group}
    return StackRef(wanted.stack, wanted.stack_id, wanted.name, "azure", facts)


def rule(name: str, priority: int) -> dict[str, Any]:
    """A rule that lets somebody in."""
    properties = {
        "priority": priority,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourceAddressPrefix": "198.51.100.9/32",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "22",
    }
    return {"name": name, "properties": properties}


class Made:
    """A node's things, made by raw requests as Pulumi's provider makes them."""

    def __init__(self, account: Account, wanted: DeploySpec) -> None:
        self.account, self.spec = account, wanted
        self.group, self.project = naming.group(wanted), naming.project(wanted)
        if not wanted.resource_group:
            body = {"location": REGION, "tags": self.tags("group")}
            account.customer.send("PUT", f"resourceGroups/{self.group}", body)

    def tags(self, name: str) -> dict[str, str]:
        return naming.tags(self.spec, name)

    def path(self, type_: str, name: str = "") -> str:
        return f"resourceGroups/{self.group}/providers/{type_}/{name or self.project}"

    def id(self, type_: str, name: str = "") -> str:
        return f"/subscriptions/{SUBSCRIPTION}/{self.path(type_, name)}"

    def urn(self, name: str) -> str:
        return self.tags(name)[naming.URN]

    @property
    def parts(self) -> dict[str, str]:
        """The subnet and the rule, which bear no tags: their ids by URN."""
        where = {"subnets": ("virtualNetworks", "node"), "securityRules": ("networkSecurityGroups", "staff")}
        return {
            naming.part_urn("inst", parts, name): f"{self.id(f'{NETWORK}/{whole}')}/{parts}/{name}"
            for parts, (whole, name) in where.items()
        }

    def make(self, name: str, type_: str, properties: dict[str, Any], called: str = "", **top: Any) -> None:
        body = {"location": REGION, "tags": self.tags(name), "properties": properties, **top}
        self.account.customer.make(self.path(type_, called), body)

    def disk(self) -> None:
        empty = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 64}
        self.make("disk", f"{COMPUTE}/disks", empty, naming.data_disk(self.spec))

    def network(self) -> None:
        self.make(
            "security-group", f"{NETWORK}/networkSecurityGroups", {"securityRules": [rule("staff", 100)]}
        )
        space = {"addressPrefixes": [naming.NETWORK]}
        subnet = {"name": "node", "properties": {"addressPrefix": naming.SUBNET}}
        self.make("network", f"{NETWORK}/virtualNetworks", {"addressSpace": space, "subnets": [subnet]})
        static = {"publicIPAllocationMethod": "Static"}
        self.make("address", f"{NETWORK}/publicIPAddresses", static, sku={"name": "Standard"})
        configuration = {
            "name": "node",
            "properties": {
                "subnet": {"id": f"{self.id(f'{NETWORK}/virtualNetworks')}/subnets/node"},
                "publicIPAddress": {"id": self.id(f"{NETWORK}/publicIPAddresses")},
            },
        }
        self.make("interface", f"{NETWORK}/networkInterfaces", {"ipConfigurations": [configuration]})

    def machine(self) -> None:
        ssh = {"publicKeys": [{"path": "/home/gridup/.ssh/authorized_keys", "keyData": KEY}]}
        disk = self.id(f"{COMPUTE}/disks", naming.data_disk(self.spec))
        self.make(
            "machine",
            f"{COMPUTE}/virtualMachines",
            {
                "hardwareProfile": {"vmSize": naming.DEFAULT_SIZE},
                "osProfile": {
                    "computerName": "inst",
                    "adminUsername": "gridup",
                    "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": ssh},
                },
                "storageProfile": {
                    "imageReference": naming.IMAGE,
                    "osDisk": {
                        "name": naming.root_disk(self.spec),
                        "createOption": "FromImage",
                        "deleteOption": "Delete",
                    },
                    "dataDisks": [{"lun": 0, "createOption": "Attach", "managedDisk": {"id": disk}}],
                },
                "networkProfile": {"networkInterfaces": [{"id": self.id(f"{NETWORK}/networkInterfaces")}]},
            },
        )

    def whole(self) -> Made:
        self.disk(), self.network(), self.machine()
        return self


@pytest.fixture(params=["", "existing"], ids=["own group", "existing group"])
def account(request: pytest.FixtureRequest, azure: Arm) -> Account:
    return Account(azure, request.param)


def test_all_of_a_stack_is_found_and_removed_and_nothing_else(account: Account) -> None:
    """Cases G20 and G23."""
    made = Made(account, spec(resource_group=account.group)).whole()
    target, who = AzureTarget(), identity(made.spec)
    left = target.leftovers(who)
    assert len(left) == 7 + (not account.group)
    other = StackRef("inst", "f" * 16, "Inst", "azure", who.facts)
    assert [line for line in target.leftovers(other) if "root" not in line] == []
    target.delete_all(who)
    account.as_before()
    assert target.leftovers(who) == ()


def test_a_group_of_somebody_elses_is_never_removed(azure: Arm) -> None:
    account, wanted = Account(azure), spec()
    account.customer.send("PUT", f"resourceGroups/{naming.group(wanted)}", {"location": REGION})
    before = account.snapshot()
    AzureTarget().delete_all(identity(wanted))
    assert account.snapshot() == before


def test_with_the_data_kept_only_its_disk_stays_and_is_nobodys(account: Account) -> None:
    made = Made(account, spec(resource_group=account.group, keep_data=True)).whole()
    who = identity(made.spec)
    with client.connected() as arm:
        props = {**who.facts, "stack_id": who.stack_id, "project": made.project}
        cleanup.delete_all(arm, props, keep_data=True)
    assert AzureTarget().leftovers(who) == ()
    disk = account.one(f"{COMPUTE}/disks")
    assert disk["name"] == f"{made.project}-data"
    assert disk["tags"] == {
        **made.tags("disk"),
        naming.STACK_ID: naming.NOBODY,
        naming.KEPT: who.stack_id,
    }


def test_what_was_made_before_it_was_broken_off_is_taken_over(account: Account) -> None:
    made = Made(account, spec(resource_group=account.group)).whole()
    ids = {row["tags"][naming.URN]: row["id"] for kind in (NETWORK, COMPUTE) for row in _all(account, kind)}
    ids |= made.parts
    known = dict(ids)
    pending = [made.urn("machine"), made.urn("address"), *made.parts, "urn:not-made"]
    known.update(dict.fromkeys(pending, ""))
    if not account.group:
        known[made.urn("group")] = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{made.group}"
    before = account.snapshot()
    found = AzureTarget().recover_interrupted(identity(made.spec), known)
    assert found == {urn: ids[urn] for urn in pending[:-1]}
    assert account.snapshot() == before


def _all(account: Account, namespace: str) -> list[dict[str, Any]]:
    kinds = [kind for kind in naming.TYPES.values() if not kind.startswith("resources")]
    paths = {
        f"{NETWORK}/virtualNetworks",
        f"{NETWORK}/networkSecurityGroups",
        f"{NETWORK}/publicIPAddresses",
        f"{NETWORK}/networkInterfaces",
        f"{COMPUTE}/disks",
        f"{COMPUTE}/virtualMachines",
    }
    assert len(kinds) == len(paths)
    rows = [row for path in paths if path.startswith(namespace) for row in account.things(path)]
    return [row for row in rows if not row["name"].endswith(naming.ROOT_SUFFIX)]


def test_what_the_state_cannot_know_is_removed_so_that_it_can_be_made(account: Account) -> None:
    """A provider that died in a create leaves nothing pending: its engine saw it fail."""
    made = Made(account, spec(resource_group=account.group)).whole()
    ids = {row["tags"][naming.URN]: row["id"] for kind in (NETWORK, COMPUTE) for row in _all(account, kind)}
    if not account.group:
        ids[made.urn("group")] = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{made.group}"
    ids |= made.parts
    [lost] = [urn for urn in made.parts if "SecurityRule" in urn]
    known = {urn: id_ for urn, id_ in ids.items() if urn not in (made.urn("machine"), lost)}
    assert AzureTarget().recover_interrupted(identity(made.spec), known) == {}
    assert account.rules() == set()
    assert account.things(f"{COMPUTE}/virtualMachines") == []
    assert [row["name"] for row in account.things(f"{COMPUTE}/disks")] == [f"{made.project}-data"]
    assert len(account.things(f"{NETWORK}/networkInterfaces")) == 1


def test_a_disk_that_the_state_lost_and_that_has_been_used_is_not_removed(azure: Arm) -> None:
    account = Account(azure)
    made = Made(account, spec()).whole()
    known = {made.urn("group"): "known", **made.parts}
    with pytest.raises(ResourceError, match="may hold the node's data"):
        AzureTarget().recover_interrupted(identity(made.spec), known)
    assert len(account.things(f"{COMPUTE}/disks")) == 2


def outputs(wanted: DeploySpec, machine: str) -> NodeOutputs:
    known = {"subscription": SUBSCRIPTION, "machine": machine}
    return node.node_outputs(wanted, "203.0.113.20", {}, naming.facts(wanted, known))


def test_it_is_stopped_for_good_and_started_and_tells_what_it_printed(azure: Arm) -> None:
    account = Account(azure)
    made = Made(account, spec()).whole()
    target = AzureTarget()
    there = outputs(made.spec, account.machine()["properties"]["vmId"])
    assert target.inspect(there).power in (NodeStatus.RUNNING, NodeStatus.DEGRADED)
    for _ in range(2):
        target.stop(there)
    assert account.power() == "deallocated"
    assert (target.inspect(there).power, target.inspect(there).notes) == (NodeStatus.STOPPED, ())
    # As `poweroff` within it leaves it.
    azure.things().power(account.machine()["id"], "stopped")
    seen = target.inspect(there)
    assert seen.power is NodeStatus.STOPPED
    assert seen.notes == ("stopped, still billed: `gridup stop Inst` deallocates it",)
    target.stop(there)
    assert account.power() == "deallocated"
    for _ in range(2):
        target.start(there)
    assert account.power() == "running"
    gone = outputs(made.spec, "another")
    assert target.inspect(gone).power is NodeStatus.MISSING


def refused(wanted: DeploySpec, error: type[GridupError] = PreflightError) -> str:
    with pytest.raises(error) as caught:
        preflight.check(wanted, None)
    assert caught.value.suggestion
    return f"{caught.value.message} {caught.value.suggestion}"


def test_a_preflight_with_nothing_in_the_way_makes_nothing(azure: Arm) -> None:
    account = Account(azure)
    preflight.check(spec(), None)
    account.as_before()
    assert {call.method for call in azure.calls if call.action != "token"} == {"GET"}


def test_an_unknown_region_or_size_is_refused_with_those_near_it(azure: Arm) -> None:
    """Case G21."""
    assert "westeurope" in refused(spec(region="westeuropa"))
    assert "Standard_D2s_v5" in refused(spec(size="Standard_D2s_v55"))
    assert "Arm64" in refused(spec(size="Standard_D2ps_v5"))
    assert "Standard_A1_v2" in refused(spec(size="Standard_A1_v2"))


def test_a_quota_that_would_be_exceeded_is_told_before(azure: Arm) -> None:
    """Case G21."""
    said = refused(spec(size="Standard_D64s_v5"))
    assert "needs 64" in said
    assert "--size" in said


def test_a_subscription_that_is_not_registered_is_told_how(azure: Arm) -> None:
    azure.subscription.providers["Microsoft.Compute"] = "NotRegistered"
    assert "az provider register --namespace Microsoft.Compute" in refused(spec())


def test_a_group_or_subnet_that_is_not_there_is_refused(azure: Arm) -> None:
    assert "theirs" in refused(spec(resource_group="theirs"))
    network = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/a/providers/{NETWORK}/virtualNetworks/b"
    assert "subnet" in refused(spec(subnet_id=f"{network}/subnets/c"))


def test_wrong_and_missing_credentials_and_missing_rights_are_told_apart(
    azure: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case G14."""
    azure.rights = ("Microsoft.Compute/*",)
    assert "Microsoft.Resources/subscriptions/read" in refused(spec(), CredentialsError)
    azure.rights = None
    azure.fail(f"{COMPUTE}/skus/read", "ExpiredAuthenticationToken", status=401)
    assert "expired" in refused(spec(), CredentialsError)
    azure.interference.clear()
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    client.clear_caches()
    assert "not accepted" in refused(spec(), CredentialsError)
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "ARM_CLIENT_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    client.clear_caches()
    assert "no Azure credentials" in refused(spec(), CredentialsError)
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "another")


def test_another_subscription_than_the_nodes_is_refused(azure: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "11111111-0000-4000-8000-00000000a2e0")
    wanted = spec()
    with pytest.raises(CredentialsError, match=SUBSCRIPTION):
        preflight.check(wanted, outputs(wanted, "x"))


def test_a_throttled_call_is_made_again(azure: Arm) -> None:
    azure.fail("Microsoft.Resources/subscriptions/read", "TooManyRequests", status=429, count=2)
    preflight.check(spec(), None)


def test_a_right_that_only_tells_of_quotas_is_not_needed(azure: Arm) -> None:
    azure.fail(f"{NETWORK}/locations/usages/read", "AuthorizationFailed", status=403)
    azure.fail(f"{COMPUTE}/locations/usages/read", "AuthorizationFailed", status=403)
    preflight.check(spec(), None)


def test_what_the_program_declares_is_what_azure_takes_and_stays_as_it_is(account: Account) -> None:
    made = Parts()
    wanted = replace(spec(resource_group=account.group), no_node=True)
    there = made.deploy(wanted)
    account.one_of_everything()
    assert account.rules() == OPEN
    assert made.refresh() == {}
    target = AzureTarget()
    seen = target.inspect(there)
    assert (seen.power, seen.problems, seen.healthy) == (NodeStatus.RUNNING, (), True)
    group = account.one(f"{NETWORK}/networkSecurityGroups")
    account.customer.drop(f"{group['id']}/securityRules/staff")
    assert made.refresh() == {"rule-staff": ["gone"]}
    assert target.inspect(there).problems == tuple(
        f"the firewall's rule tcp {port} 203.0.113.7/32 is gone" for port in (22, 8888)
    )
    made.destroy()
    account.as_before()
    assert target.leftovers(identity(wanted)) == ()


def test_a_rule_that_was_added_by_hand_is_seen_and_removed(azure: Arm) -> None:
    account, made = Account(azure), Parts()
    there = made.deploy(replace(spec(), no_node=True))
    group = account.one(f"{NETWORK}/networkSecurityGroups")
    account.customer.make(f"{group['id']}/securityRules/theirs", rule("theirs", 300))
    assert AzureTarget().inspect(there).problems == ("the firewall also lets in tcp 22 198.51.100.9/32",)
    # Nothing of Azure's own has changed: only ExclusiveRules sees it.
    assert made.refresh() == {}
    _, id_, _, state = made.made["exclusive-rules"]
    firewall = OURS["ExclusiveRules"]
    seen = firewall.read(id_, state)
    assert firewall.diff(id_, seen.outs, state).changes
    firewall.update(id_, seen.outs, state)
    assert account.rules() == OPEN
    assert not firewall.diff(id_, firewall.read(id_, state).outs, state).changes
    account.customer.drop(account.machine()["id"])
    account.customer.drop(account.one(f"{NETWORK}/networkInterfaces")["id"])
    account.customer.drop(group["id"])
    assert not firewall.read(id_, state).id


def test_in_a_network_that_is_shared_its_other_machines_are_kept_out(azure: Arm) -> None:
    account = Account(azure, "theirs")
    network = f"resourceGroups/theirs/providers/{NETWORK}/virtualNetworks/lab"
    space = {"addressSpace": {"addressPrefixes": ["10.9.0.0/16"]}}
    subnets = {"subnets": [{"name": "machines", "properties": {"addressPrefix": "10.9.0.0/24"}}]}
    account.customer.make(network, {"location": REGION, "properties": {**space, **subnets}})
    subnet = f"/subscriptions/{SUBSCRIPTION}/{network}/subnets/machines"
    made = Parts()
    there = made.deploy(replace(spec(subnet_id=subnet, private=True), no_node=True))
    assert made.refresh() == {}
    assert AzureTarget().inspect(there).problems == ()
    group = account.one(f"{NETWORK}/networkSecurityGroups")
    account.customer.drop(f"{group['id']}/securityRules/neighbours")
    rule = {"direction": "Outbound", "access": "Deny", "priority": 200, "protocol": "*"}
    ends = {
        f"{end}{what}": "*" for end in ("source", "destination") for what in ("PortRange", "AddressPrefix")
    }
    account.customer.make(f"{_below(group['id'])}/securityRules/quiet", {"properties": {**rule, **ends}})
    assert made.refresh() == {"rule-neighbours": ["gone"]}
    assert AzureTarget().inspect(there).problems == (
        "the firewall's rule that keeps the rest of the virtual network out is gone",
        "the firewall has a rule quiet for what is let out",
    )
    made.destroy()


def _below(id_: str) -> str:
    """A thing's path within its subscription."""
    return id_.partition(f"/subscriptions/{SUBSCRIPTION}/")[2]


def test_what_was_made_before_a_deploy_was_broken_off_is_known(azure: Arm) -> None:
    account, made = Account(azure), Parts()
    wanted = replace(spec(), no_node=True)
    there = made.deploy(wanted)
    stack = wanted.stack
    states = {
        naming.azure_urn(stack, naming.TYPES[name], name): {**state, "id": id_}
        for name, (_, id_, _, state) in made.made.items()
        if name in naming.TYPES
    }
    target = AzureTarget()
    found = target.partial_outputs(identity(wanted), replace(wanted, no_node=False), states)
    assert found is not None
    assert {key: found.facts[key] for key in found.facts} == {
        key: value for key, value in there.facts.items() if value and key != "people"
    }
    assert found.address == there.address == there.facts["dns_name"]
    assert target.place(found) == target.place(there)
    assert target.place(found)["public_ip"] == there.facts["ip"]
    target.stop(found)
    assert account.power() == "deallocated"
    assert target.partial_outputs(identity(wanted), wanted, {}) is None
    made.destroy()


def test_what_azure_changes_by_itself_is_no_change(azure: Arm) -> None:
    """Subnet and security group become other versions of themselves by what begins to use them."""
    account, made = Account(azure), Parts()
    made.deploy(replace(spec(), no_node=True))
    before = [account.one(f"{NETWORK}/{kind}") for kind in ("virtualNetworks", "networkSecurityGroups")]
    account.customer.drop(account.machine()["id"])
    account.customer.drop(account.one(f"{NETWORK}/networkInterfaces")["id"])
    after = [account.one(f"{NETWORK}/{kind}") for kind in ("virtualNetworks", "networkSecurityGroups")]
    for parts, old, new in zip(("subnets", "securityRules"), before, after, strict=True):
        assert old["properties"][parts][0]["etag"] != new["properties"][parts][0]["etag"]
    assert made.refresh() == {"machine": ["gone"], "interface": ["gone"]}


def test_nothing_is_left_of_what_no_state_knows(account: Account) -> None:
    """As with plain `pulumi destroy` after a kill in mid-create: Owner's delete sees to it."""
    made = Parts()
    made.deploy(replace(spec(resource_group=account.group), no_node=True))
    for name in [name for name in made.made if name != "owner"]:
        del made.made[name]
    made.destroy()
    account.as_before()


def test_a_kept_disk_is_taken_over_and_the_first_one_goes(account: Account) -> None:
    first = Parts()
    had = {"admin_email": "ada@inst.example", "node_type": "network", "keep_data": True, "disk_size": 100}
    first.deploy(replace(spec(resource_group=account.group, **had), no_node=True))
    kept = account.data_disk()
    for name in [name for name in first.made if name != "owner"]:
        del first.made[name]
    first.destroy()
    wanted = replace(spec(resource_group=account.group), no_node=True)
    found = AzureTarget().retained(wanted)
    assert found is not None
    assert (found.id, found.size) == (kept["id"], 100 * 1024**3)
    assert (found.admin_email, found.node_type) == ("ada@inst.example", "network")
    assert kept["name"] in found.what
    for chosen in ("", NEW_DATA):
        third = Parts()
        third.deploy(replace(wanted, adopted=chosen))
        third.destroy()
        assert account.data_disk()["id"] == kept["id"], "it was not chosen"
    begun = Parts()
    begun.deploy(replace(wanted, adopted=kept["id"], adopting=True))
    disks = [one["id"] for one in account.things(f"{COMPUTE}/disks")]
    assert kept["id"] in disks, "the node has not been healthy yet"
    OURS["RetainedDiskCleanup"].update(
        "", {}, {**begun.made["retained-disk-cleanup"][2], "source": kept["id"]}
    )
    assert kept["id"] not in [one["id"] for one in account.things(f"{COMPUTE}/disks")]
    second = begun
    account.one_of_everything()
    taken = account.data_disk()["properties"]
    assert taken["creationData"]["sourceResourceId"].lower() == kept["id"].lower()
    assert taken["diskSizeGB"] == 100
    # It grows and is shut again with no word of its source, which is gone.
    grown = OURS["DiskSize"]
    _, id_, inputs, state = begun.made["disk-size"]
    assert grown.read(id_, state).outs[DRIFT] == []
    open_ = {"properties": {"networkAccessPolicy": "AllowAll"}}
    reply = account.customer.send("PATCH", account.data_disk()["id"], open_)
    account.customer.done(reply)
    assert grown.read(id_, state).outs[DRIFT]
    assert grown.diff(id_, state, {**inputs, "size": 200}).changes
    calls = len(account.arm.calls)
    after = grown.update(id_, state, {**inputs, "size": 200}).outs
    bodies = [call.body for call in account.arm.calls[calls:] if call.method == "PATCH"]
    assert bodies == [{"properties": {"networkAccessPolicy": "DenyAll", "diskSizeGB": 200}}]
    assert account.data_disk()["properties"]["diskSizeGB"] == 200
    # One that was grown by hand is left so.
    assert grown.read(id_, {**after, "size": 150}).outs[DRIFT] == []
    second.destroy()
    account.as_before()


def test_a_group_that_the_state_lost_is_removed_only_while_it_holds_nothing(azure: Arm) -> None:
    account, wanted = Account(azure), spec()
    made = Made(account, wanted)
    assert AzureTarget().recover_interrupted(identity(wanted), {}) == {}
    account.as_before()
    made = Made(account, wanted).whole()
    known = {made.urn(name): "known" for name in naming.TYPES if name != "group"}
    with pytest.raises(ResourceError, match="holds the node"):
        AzureTarget().recover_interrupted(identity(wanted), known)
    assert len(account.things(f"{COMPUTE}/disks")) == 2


def test_a_pending_group_is_taken_over(azure: Arm) -> None:
    account, wanted = Account(azure), spec()
    made = Made(account, wanted)
    found = AzureTarget().recover_interrupted(identity(wanted), {made.urn("group"): ""})
    assert found == {made.urn("group"): f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{made.group}"}
