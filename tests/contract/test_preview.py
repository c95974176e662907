"""A preview shows what the deploy would change, and no more."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gridup_infra.spec import DeploySpec
from support.foreseeing import Outs, Stack
from support.state_format import ANSWERS, ASKED, CLOUD, KEY, SUBSCRIPTION

PORTS = ANSWERS["ports"]

TURNED = {"management-key": {"private_key": "y", "public_key": KEY.replace("AAAAIH", "AAAAIG")}}
"""What a stack whose secrets are replaced has instead."""


@dataclass(frozen=True)
class Case:
    """A change of a deployed node.

    Attributes:
        target: where it is.
        asked: what is asked for now.
        changed: the resources that a deploy changes for it.
        tells: what of these then tells something else.
    """

    target: str
    asked: dict[str, Any]
    changed: set[str]
    tells: dict[str, Outs] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.target}-{'-'.join(self.asked)}"


MOVED = {"network": {"ports": {**PORTS, "proxy": 9000}}}
ANOTHER = {"user-data": {"custom_data": "y"}, "machine": {"vmId": "y"}, "instance": {"instance": "i-2"}}

CASES = (
    Case("docker", {"port": 9000}, {"network", "api", "proxy"}, MOVED),
    Case("docker", {"keep_data": True}, {"owner", "volume"}),
    Case("docker", {"organization": "Inst"}, {"api"}),
    Case("aws", {"keep_data": True}, {"owner", "volume"}),
    Case("aws", {"size": "other"}, {"placement", "instance", "node"}),
    Case("aws", {"max_upload": 7}, {"node"}),
    Case(
        "aws",
        {"machine_revision": 1},
        {"placement", "instance", "attachment", "container-host", "node"},
        ANOTHER,
    ),
    Case("aws", {"rotated": "2026"}, {"management-key", "key-pair", "container-host", "node"}, TURNED),
    Case("azure", {"keep_data": True}, {"owner"}),
    Case("azure", {"size": "other"}, {"machine", "node"}),
    Case("azure", {"max_upload": 7}, {"node"}),
    Case(
        "azure",
        {"machine_revision": 1},
        {"user-data", "machine", "power-state", "container-host", "node"},
        ANOTHER,
    ),
    Case("ssh", {"keep_data": True}, {"owner"}),
    Case("ssh", {"max_upload": 7}, {"node"}),
    Case("ssh", {"key_from": ("203.0.113.0/24",)}, {"container-host", "node"}),
    Case("ssh", {"web_cidr": ("203.0.113.0/24",)}, {"node"}),
    Case("ssh", {"rotated": "2026"}, {"management-key", "owner", "container-host", "node"}, TURNED),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_preview_shows_what_the_deploy_changes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
    spec = DeploySpec(
        "Inst", target=case.target, stack_id="0123456789abcdef", **ASKED.get(case.target, CLOUD)
    )
    stack = Stack(case.tells)
    stack.run(spec)
    assert stack.run(spec) == set()
    wanted = replace(spec, **case.asked)
    shown = stack.run(wanted, preview=True)
    assert stack.run(wanted) == case.changed
    assert shown == case.changed


@pytest.mark.parametrize("target", ["ssh"])
def test_data_that_were_taken_over_are_the_nodes_own_by_a_change_of_what_holds_them(target: str) -> None:
    spec = DeploySpec("Inst", target=target, stack_id="0123456789abcdef", keep_data=True, **ASKED[target])
    stack = Stack()
    stack.run(replace(spec, adopted="2026", adopting=True))
    assert stack.run(replace(spec, adopted="2026")) == {"container-host"}
    assert stack.run(replace(spec, adopted="2026")) == set()


def test_where_the_stacks_key_lets_in_from_everywhere_again_that_is_a_change_too() -> None:
    spec = DeploySpec("Inst", target="ssh", stack_id="0123456789abcdef", **ASKED["ssh"])
    stack = Stack()
    stack.run(replace(spec, key_from=("203.0.113.0/24",)))
    assert stack.run(spec) == {"container-host", "node"}
