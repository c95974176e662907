"""What Azure refuses is met by a deploy: the product's own program against the tests' own ARM, no engine.

Each of the emulator's refusals is in one of these tables: the subscription is such that a deploy of ours
meets it, and ends in one line that says what and what next, with nothing left that `destroy` would not see; a
first look finds it out; a person's words would lead to it, and are refused before any call; or no request of
ours can meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pulumi
import pytest

from gridup_infra.errors import CredentialsError, PreflightError, ResourceError, UsageError
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.azure import AzureTarget, client, naming
from gridup_infra.targets.base import StackRef
from support.arm import Arm, refusals
from support.arm.errors import Refusal
from support.azure_native import client as provider
from support.azure_node import NETWORK, REGION, Account
from support.azure_parts import Parts

pytestmark = pytest.mark.tier("gate")

RULES = {name: value for name, value in vars(refusals).items() if isinstance(value, Refusal)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(client, "pause", lambda *_: None)
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(provider, "LOOK_SECONDS", 0.002)
    monkeypatch.setattr(provider, "WAIT_SECONDS", 0.002)
    client.clear_caches()
    yield
    client.clear_caches()


class Refused(Parts):
    """A program's run that ends at what is refused.

    Attributes:
        said: as the engine tells it: the resource, and what its provider said.
    """

    said = ""

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        try:
            return super().new_resource(args)
        except Exception as error:
            self.said = self.said or f"{args.name}: {error}"
            raise


Prepare = Callable[[Arm, Account], object]


def spec(**how: Any) -> DeploySpec:
    asked = {"region": REGION, "allow_cidr": ("203.0.113.7/32",), "no_node": True, **how}
    return AzureTarget().resolve(DeploySpec("Inst", target="azure", **asked).with_new_id(), None)


def theirs(account: Account, prefix: str = "10.9.0.0/24", region: str = REGION) -> str:
    """The id of a subnet that was there."""
    account.customer.send("PUT", "resourceGroups/theirs", {"location": region})
    subnet = {"name": "machines", "properties": {"addressPrefix": prefix}}
    network = {"addressSpace": {"addressPrefixes": ["10.9.0.0/16"]}, "subnets": [subnet]}
    path = f"resourceGroups/theirs/providers/{NETWORK}/virtualNetworks/lab"
    made = account.customer.make(path, {"location": region, "properties": network})
    return f"{made['id']}/subnets/machines"


def full(account: Account) -> None:
    """No address of a /29 is left: Azure keeps five of its eight."""
    subnet = theirs(account, "10.9.0.0/29")
    for number in range(3):
        ip = {"name": "one", "properties": {"subnet": {"id": subnet}}}
        account.customer.make(
            f"resourceGroups/theirs/providers/{NETWORK}/networkInterfaces/nic{number}",
            {"location": REGION, "properties": {"ipConfigurations": [ip]}},
        )


def going(arm: Arm, account: Account) -> None:
    account.customer.send("PUT", "resourceGroups/existing", {"location": REGION})
    arm.lasts = 60
    account.customer.send("DELETE", "resourceGroups/existing")
    arm.lasts = 0.0


SUBNET = (
    "/subscriptions/5ab5c71b-0000-4000-8000-00000000a2e0/resourceGroups/theirs/providers/Microsoft.Network"
    "/virtualNetworks/lab/subnets/machines"
)


def nothing(_arm: Arm, _account: Account) -> None:
    pass


MET: list[tuple[str, Prepare, dict[str, Any], int, tuple[str, ...]]] = [
    (
        "NO_RIGHT",
        lambda arm, _: setattr(arm, "rights", ("*/read", "*/resourceGroups/write")),
        {},
        3,
        ("Microsoft.", "write", "docs/azure.md"),
    ),
    (
        "NO_LINKED_RIGHT",
        lambda arm, _: setattr(arm, "rights", ("*/read", "*/write")),
        {},
        3,
        ("join/action", "docs/azure.md"),
    ),
    (
        "UNREGISTERED",
        lambda arm, _: arm.subscription.providers.pop("Microsoft.Network"),
        {},
        4,
        ("az provider register",),
    ),
    ("BAD_LOCATION_OF_GROUP", nothing, {"region": "atlantis"}, 4, ("atlantis", "--region")),
    (
        "BAD_LOCATION",
        lambda _, account: theirs(account),
        {"region": "atlantis", "resource_group": "theirs"},
        4,
        ("atlantis", "--region"),
    ),
    ("NO_GROUP", nothing, {"resource_group": "theirs"}, 4, ("theirs", "--resource-group")),
    ("GROUP_GOES", going, {"resource_group": "existing"}, 4, ("existing", "again")),
    (
        "NO_REFERENCE",
        lambda _, account: theirs(account, region="eastus"),
        {"subnet_id": SUBNET},
        4,
        ("machines", "--subnet-id"),
    ),
    ("SUBNET_FULL", lambda _, account: full(account), {"subnet_id": SUBNET}, 4, ("machines", "--subnet-id")),
    (
        "IP_COUNT",
        lambda arm, _: arm.world.quotas.__setitem__((REGION, "PublicIPAddresses"), 0),
        {},
        4,
        ("--private", "Quotas"),
    ),
    ("BAD_SIZE", nothing, {"size": "Standard_Z99"}, 4, ("Standard_Z99", "--size")),
    (
        "NO_SIZE_HERE",
        lambda arm, _: arm.world.restricted.add((REGION, naming.DEFAULT_SIZE)),
        {},
        4,
        (naming.DEFAULT_SIZE, REGION, "--size", "--region"),
    ),
    ("QUOTA", lambda arm, _: arm.world.quotas.__setitem__((REGION, "cores"), 1), {}, 4, ("uota", "--size")),
    ("WRONG_GENERATION", nothing, {"size": "Standard_A1_v2"}, 4, ("--size",)),
    ("WRONG_ARCHITECTURE", nothing, {"size": "Standard_D2ps_v5"}, 4, ("--size",)),
]
"""The refusal, how it comes about, what is asked for, the exit code, and what the line says."""


@pytest.mark.parametrize(("name", "prepare", "how", "code", "words"), MET, ids=[row[0] for row in MET])
def test_a_deploy_that_is_refused_says_what_and_why_in_one_line_and_nothing_is_lost(
    azure: Arm, name: str, prepare: Prepare, how: dict[str, Any], code: int, words: tuple[str, ...]
) -> None:
    prepare(azure, Account(azure))
    account, wanted, target = Account(azure), spec(**how), AzureTarget()
    run = Refused()
    with pytest.raises(Exception):  # noqa: B017 - Pulumi's, of whatever kind
        run.deploy(wanted)
    assert RULES[name] in {call.refusal for call in azure.calls}
    where, _, rest = run.said.partition(": ")
    told = target.translate_error(ResourceError(f"{where}: {rest.splitlines()[0]}", "", ()), wanted)
    line = f"{told.message} {told.suggestion}"
    assert "\n" not in line
    assert told.suggestion
    assert all(word in line for word in words), line
    assert told.exit_code == code
    # What it has made is seen, and goes.
    azure.rights = None
    azure.subscription.providers["Microsoft.Network"] = "Registered"
    who = identity(wanted)
    seen = target.leftovers(who)
    there = [key for key in account.snapshot() if key not in account._before]
    assert bool(seen) == bool(there)
    target.delete_all(who)
    account.as_before()


def identity(wanted: DeploySpec) -> StackRef:
    facts = {"group": naming.group(wanted), "resource_group": wanted.resource_group}
    return StackRef(wanted.stack, wanted.stack_id, wanted.name, "azure", facts)


def set_state(arm: Arm, _account: Account) -> None:
    arm.subscription.state = "Disabled"


def fail(code: str) -> Prepare:
    return lambda arm, _: arm.fail("Microsoft.Resources/subscriptions/read", code, status=401)


LOOKED: list[tuple[str, Prepare, tuple[str, ...]]] = [
    ("READ_ONLY_SUBSCRIPTION", set_state, ("Disabled", "AZURE_SUBSCRIPTION_ID")),
    ("NO_TOKEN", fail("AuthenticationFailed"), ("AuthenticationFailed", "az login")),
    ("BAD_TOKEN", fail("InvalidAuthenticationToken"), ("InvalidAuthenticationToken", "az login")),
    ("OLD_TOKEN", fail("ExpiredAuthenticationToken"), ("expired", "Log in")),
]
"""Found out by the preflight's first look, which makes nothing: whom Azure does not let in."""


@pytest.mark.parametrize(("name", "prepare", "words"), LOOKED, ids=[row[0] for row in LOOKED])
def test_who_is_not_let_in_hears_of_it_before_anything_is_made(
    azure: Arm, name: str, prepare: Prepare, words: tuple[str, ...]
) -> None:
    """Case G14."""
    prepare(azure, Account(azure))
    with pytest.raises(CredentialsError) as caught:
        AzureTarget().preflight(spec(), None)
    line = f"{caught.value.message} {caught.value.suggestion}"
    assert all(word in line for word in words), line
    assert caught.value.exit_code == 3
    assert {call.method for call in azure.calls if call.action != "token"} == {"GET"}


def test_a_subscription_that_is_not_there_is_told(azure: Arm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "00000000-0000-0000-0000-000000000000")
    with pytest.raises(CredentialsError, match="no Azure subscription 00000000") as caught:
        AzureTarget().preflight(spec(), None)
    assert caught.value.suggestion
    assert RULES["NO_SUBSCRIPTION"] in {call.refusal for call in azure.calls}


def again(**how: Any) -> DeploySpec:
    """A deploy of what is there, with something else asked for."""
    first = spec()
    return AzureTarget().resolve(replace(first, **how), first)


CAUGHT: list[tuple[tuple[str, ...], Callable[[], object], str]] = [
    (("BAD_GROUP_NAME",), lambda: spec(resource_group="ends."), "--resource-group"),
    (("DISK_NO_SIZE",), lambda: spec(disk_size=40000), "--disk-size"),
    (("DISK_SHRUNK",), lambda: again(disk_size=8), "--disk-size"),
    (("MOVED", "MOVED_GROUP"), lambda: again(region="eastus"), "--region"),
    (("NIC_MOVED", "SUBNET_PREFIX_IN_USE"), lambda: again(subnet_id=SUBNET), "--subnet-id"),
    (("RULE_ADDRESS",), lambda: spec(allow_cidr=("198.51.100.7/24",)), "--allow-cidr"),
]
"""What a person might ask for, by the refusals that it would meet."""


@pytest.mark.parametrize(("names", "ask", "said"), CAUGHT, ids=[row[0][0] for row in CAUGHT])
def test_what_azure_would_refuse_whoever_asks_is_refused_before_any_call(
    azure: Arm, names: tuple[str, ...], ask: Callable[[], object], said: str
) -> None:
    assert set(names) <= set(RULES)
    with pytest.raises((UsageError, PreflightError), match=said):
        ask()
    assert azure.calls == []


def test_what_others_use_keeps_a_destroy_from_its_end_and_it_says_so(azure: Arm) -> None:
    """Case G17."""
    account, wanted = Account(azure), spec()
    Parts().deploy(wanted)
    subnet = f"{account.one(f'{NETWORK}/virtualNetworks')['id']}/subnets/node"
    account.customer.send("PUT", "resourceGroups/theirs", {"location": REGION})
    ip = {"name": "one", "properties": {"subnet": {"id": subnet}}}
    path = f"resourceGroups/theirs/providers/{NETWORK}/networkInterfaces/theirs"
    account.customer.make(path, {"location": REGION, "properties": {"ipConfigurations": [ip]}})
    with pytest.raises(ResourceError) as caught:
        AzureTarget().delete_all(identity(wanted))
    assert RULES["GROUP_STAYS"].code in caught.value.message
    assert caught.value.suggestion
    assert naming.group(wanted) in "\n".join(AzureTarget().leftovers(identity(wanted)))
    account.customer.drop(path)
    account.customer.send("DELETE", "resourceGroups/theirs")
    AzureTarget().delete_all(identity(wanted))
    account.as_before()


NEVER = {
    "its addresses, api-versions and bodies are fixed": (
        "NO_VERSION BAD_VERSION BAD_VERSION_OF_ARM NO_NAMESPACE NO_TYPE NO_METHOD BAD_JSON "
        "BAD_BODY_OF_NETWORK BAD_BODY_OF_COMPUTE NO_LOCATION NAME_MISMATCH BAD_FILTER CHANGED "
        "NO_OPERATION MISSING_PARAMETER"
    ),
    "names and tags are made by naming.py, whatever a node is called (test_azure_plan)": (
        "BAD_NAME TOO_MANY_TAGS LONG_TAG_NAME LONG_TAG_VALUE BAD_TAG_NAME SAME_TAGS DNS_LABEL "
        "DNS_RESERVED BAD_HOST_NAME BAD_ADMIN"
    ),
    "network, rules, address and interface are fixed (test_azure_plan)": (
        "BAD_CIDR BAD_PREFIX NO_PREFIX OVERLAPPING_SPACES SUBNET_OUTSIDE SUBNETS_OVERLAP SUBNET_SMALL "
        "SAME_NAMES RULE_PRIORITY RULES_CONFLICT RULE_PORTS RULE_PARAMETER BASIC_IP STANDARD_IP_STATIC "
        "IP_IDLE IP_CHANGED NIC_NO_IP NIC_NO_SUBNET NIC_ADDRESS_OUTSIDE NIC_ADDRESS_RESERVED "
        "NIC_ADDRESS_TAKEN"
    ),
    "the machine is entered by a key of ours alone, and what Azure can't change is never changed": (
        "BAD_PASSWORD BAD_KEY BAD_KEY_PATH NO_WAY_IN FIXED_PROPERTY NO_IMAGE NO_TRUSTED_LAUNCH "
        "SMALL_ROOT TOO_MANY_DISKS SAME_LUN NO_BOOT_DIAGNOSTICS BAD_CUSTOM_DATA"
    ),
    "looked for, or waited for and asked again (test_azure_parts, test_azure_broken_off)": (
        "NO_RESOURCE NO_CHILD NO_PARENT BUSY UNREADY_REFERENCE NIC_RESERVED SUBNET_IN_USE NSG_IN_USE "
        "IP_IN_USE NIC_IN_USE DISK_IN_USE"
    ),
    "each thing of a node has a name of its own, with the stack's id in it": (
        "DNS_TAKEN IP_TAKEN DISK_TAKEN DISK_EXISTS NIC_TAKEN"
    ),
}
"""What no request of the product's meets, and why."""


def test_each_refusal_of_the_emulator_is_accounted_for() -> None:
    met = {row[0] for row in MET} | {row[0] for row in LOOKED} | {"NO_SUBSCRIPTION", "GROUP_STAYS"}
    caught = {name for row in CAUGHT for name in row[0]}
    never = {name for names in NEVER.values() for name in names.split()}
    assert not never & (met | caught)
    assert met | caught | never == set(RULES)
