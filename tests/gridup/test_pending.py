"""Creates that were interrupted: what they have made is put into the state as they would have put it."""

from __future__ import annotations

from typing import Any

from gridup.pending import import_pending, reset_inputs

URN = "urn:pulumi:inst::gridup::azure-native:network:PublicIPAddress::address"
OTHER = "urn:pulumi:inst::gridup::azure-native:network:VirtualNetwork::network"
INPUTS = {"publicIpAddressName": "gridup-inst", "sku": {"name": "Standard"}}


def deployment() -> dict[str, Any]:
    def creating(urn: str) -> dict[str, Any]:
        return {
            "type": "creating",
            "resource": {"urn": urn, "custom": True, "inputs": INPUTS, "provider": "p"},
        }

    updating = {"type": "updating", "resource": {"urn": URN, "id": "/x"}}
    return {
        "resources": [{"urn": "urn:stack"}, {"urn": "urn:group", "id": "/g", "inputs": {"a": 1}}],
        "pending_operations": [creating(URN), creating(OTHER), updating],
    }


def test_what_exists_stands_after_what_it_depends_on_and_is_pending_no_more() -> None:
    state = deployment()
    assert import_pending(state, {URN: "/address"}) == {URN: INPUTS}
    assert [row["urn"] for row in state["resources"]] == ["urn:stack", "urn:group", URN]
    assert state["resources"][-1] == {
        "urn": URN,
        "custom": True,
        "provider": "p",
        "inputs": INPUTS,
        "outputs": INPUTS,
        "id": "/address",
    }
    assert [(row["type"], row["resource"]["urn"]) for row in state["pending_operations"]] == [
        ("creating", OTHER),
        ("updating", URN),
    ]


def test_a_clouds_defaults_do_not_become_what_was_asked_for() -> None:
    state = deployment()
    asked = import_pending(state, {URN: "/address"})
    state["resources"][-1]["inputs"] = {**INPUTS, "idleTimeoutInMinutes": 4}
    state["resources"][-1]["outputs"] = {**INPUTS, "ipAddress": "203.0.113.20"}
    reset_inputs(state, asked)
    assert state["resources"][-1]["inputs"] == INPUTS
    assert state["resources"][-1]["outputs"]["ipAddress"] == "203.0.113.20"
    assert state["resources"][1]["inputs"] == {"a": 1}


def test_with_nothing_pending_nothing_is_done() -> None:
    state: dict[str, Any] = {"resources": []}
    assert import_pending(state, {URN: "/address"}) == {}
    assert state == {"resources": [], "pending_operations": []}
