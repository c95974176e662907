"""The role in docs/azure.md is enough for a node's whole life, and has no action that no part of it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.azure import AzureTarget, client, preflight
from gridup_infra.targets.base import StackRef
from support.arm import Arm
from support.azure_node import NETWORK, REGION, Account
from support.azure_parts import OURS, Parts

pytestmark = pytest.mark.tier("gate")

REAL = {
    "microsoft.network/locations/operationresults/read",
    "microsoft.compute/disks/begingetaccess/action",
}
"""What the tests' own Azure does not ask for. The second: to copy a disk is to read it, a right on what is
linked. The first: where a client may ask after the removal of a network's thing, as both addresses are told:
https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations. Ours and the tests'
provider ask at the other one; of Pulumi's it is not known."""

DOCS = Path(__file__).parents[2] / "docs" / "azure.md"


def role() -> list[str]:
    block = re.search(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert block
    actions: list[str] = json.loads(block[1])["Actions"]
    return actions


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)
    client.clear_caches()
    yield
    client.clear_caches()


def _a_rule_by_hand(made: Parts) -> None:
    """One more is seen, and removed."""
    _, id_, _, state = made.made["exclusive-rules"]
    _, _, inputs, _ = made.made["rule-web"]
    more = {**inputs, "securityRuleName": "more", "priority": 300}
    made.caller.create("azure-native:network:SecurityRule", more)
    seen = OURS["ExclusiveRules"].read(id_, state)
    OURS["ExclusiveRules"].update(id_, seen.outs, state)


def a_life(account: Account, subnet: str = "", **how: Any) -> None:
    asked = {"region": REGION, "allow_cidr": ("203.0.113.7/32",), "no_node": True, **how}
    target = AzureTarget()
    wanted = target.resolve(DeploySpec("Inst", target="azure", subnet_id=subnet, **asked).with_new_id(), None)
    target.preflight(wanted, None)
    if kept := target.retained(wanted):
        wanted = replace(wanted, adopted=kept.id)
    made = Parts()
    there: NodeOutputs = made.deploy(wanted)
    assert target.inspect(there).healthy
    assert made.refresh() == {}
    _a_rule_by_hand(made)
    target.stop(there)
    target.start(there)
    target.boot_log(there)
    preflight.check(replace(wanted, size="Standard_D4s_v5"), there)
    who = StackRef(wanted.stack, wanted.stack_id, wanted.name, "azure", dict(there.facts))
    known = {f"urn:pulumi:inst::gridup::{typ}::{name}": id_ for name, (typ, id_, *_) in made.made.items()}
    assert target.recover_interrupted(who, known) == {}
    if wanted.keep_data:
        for name in [name for name in made.made if name != "owner"]:
            del made.made[name]
    made.destroy()
    assert target.leftovers(who) == ()


def test_the_role_in_the_docs_is_enough_and_no_more(azure: Arm) -> None:
    account = Account(azure, "existing")
    customer = account.customer
    network = {
        "addressSpace": {"addressPrefixes": ["10.1.0.0/16"]},
        "subnets": [{"name": "machines", "properties": {"addressPrefix": "10.1.0.0/24"}}],
    }
    path = f"resourceGroups/existing/providers/{NETWORK}/virtualNetworks/lab"
    made = customer.make(path, {"location": REGION, "properties": network})
    subnet = f"{made['id']}/subnets/machines"
    before = account.snapshot()
    azure.calls.clear()
    azure.rights = tuple(role())
    a_life(account, keep_data=True)
    a_life(account)
    assert account.snapshot() == before
    a_life(account, subnet, resource_group="existing", private=True)
    taken = {
        action.lower() for call in azure.calls if call.action not in ("", "token") for action in call.actions
    }
    given = {action.lower() for action in role()}
    assert sorted(given - taken - REAL) == [], "no part of a node's life takes these"
    assert sorted(taken - given) == []
