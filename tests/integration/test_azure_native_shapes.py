"""From the SDK's inputs to ARM's bodies and back, and what differs between two, as the real one has it."""

from __future__ import annotations

import inspect

import pytest

from support.azure_native import kinds, make_shapes, shapes
from support.azure_native.differing import carried_over, differences
from support.azure_native.values import SECRET, SIGNATURE, UNKNOWN, UNKNOWN_TEXT, plain, struct
from support.small_arm import SUBSCRIPTION

pytestmark = pytest.mark.tier("deep", proves=("azure_native",))

NETWORK = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/inst/providers/Microsoft.Network"


def test_the_shapes_are_those_of_the_sdk_and_of_microsofts_models() -> None:
    pytest.importorskip("azure.mgmt.network")
    assert make_shapes.text() == make_shapes.SHAPES.read_text()


def test_each_place_in_a_path_is_an_input_of_the_sdk() -> None:
    from pulumi import _types
    from pulumi_azure_native import compute, network, resources

    modules = {"compute": compute, "network": network, "resources": resources}
    for kind in kinds.KINDS.values():
        module, _, name = kind.shape.partition(":")
        sdk = modules[module]
        arguments = getattr(sdk, f"{name}InitArgs", None) or getattr(sdk, f"{name}Args")
        assert set(kind.places) <= set(_types.input_type_types(arguments)), kind.token
        told = inspect.getsource(getattr(sdk, name))
        assert f"Uses Azure REST API version {kind.api_version}." in told, name


def test_what_the_sdk_has_flat_lies_under_properties_at_every_level() -> None:
    inputs = {
        "resourceGroupName": "inst",
        "networkInterfaceName": "inst",
        "location": "westeurope",
        "ipConfigurations": [{"name": "one", "primary": True, "subnet": {"id": "/s"}}],
        "networkSecurityGroup": {"id": "/g"},
        "azureApiVersion": "2024-05-01",
    }
    assert shapes.body("network:NetworkInterface", inputs) == {
        "location": "westeurope",
        "properties": {
            "ipConfigurations": [{"name": "one", "properties": {"primary": True, "subnet": {"id": "/s"}}}],
            "networkSecurityGroup": {"id": "/g"},
        },
    }
    machine = {
        "osProfile": {"adminUsername": "gridup", "customData": "AAAA"},
        "networkProfile": {"networkInterfaces": [{"id": "/n", "deleteOption": "Delete"}]},
        "zones": ["1"],
    }
    assert shapes.body("compute:VirtualMachine", machine) == {
        "properties": {
            "osProfile": {"adminUsername": "gridup", "customData": "AAAA"},
            "networkProfile": {"networkInterfaces": [{"id": "/n", "properties": {"deleteOption": "Delete"}}]},
        },
        "zones": ["1"],
    }


def test_an_answer_is_flat_again_and_what_only_answers_hold_is_no_input() -> None:
    answer = {
        "id": f"{NETWORK}/publicIPAddresses/inst",
        "name": "inst",
        "etag": "x",
        "sku": {"name": "Standard", "tier": "Regional"},
        "properties": {"ipAddress": "203.0.113.7", "provisioningState": "Succeeded", "neverHeardOf": 1},
    }
    known = shapes.outputs("network:PublicIPAddress", answer)
    assert known == {
        "id": answer["id"],
        "name": "inst",
        "etag": "x",
        "sku": {"name": "Standard", "tier": "Regional"},
        "ipAddress": "203.0.113.7",
        "provisioningState": "Succeeded",
    }
    assert shapes.inputs("network:PublicIPAddress", known) == {
        "sku": {"name": "Standard", "tier": "Regional"},
        "ipAddress": "203.0.113.7",
    }


def test_values_are_what_the_engine_means_by_them() -> None:
    secret = {SIGNATURE: SECRET, "value": "s"}
    said = plain(struct({"a": 10, "b": 0.5, "c": UNKNOWN_TEXT, "d": secret, "e": [None, True]}))
    assert said.pop("c") is UNKNOWN
    assert said == {"a": 10, "b": 0.5, "d": "s", "e": [None, True]}
    assert isinstance(said["a"], int)
    assert struct({"c": UNKNOWN}).fields["c"].string_value == UNKNOWN_TEXT


def test_differences_are_told_by_path_and_those_that_replace_are_marked() -> None:
    old = {"a": 1, "gone": 1, "sku": {"name": "Basic"}, "list": [{"x": 1}, 2], "location": "westeurope"}
    new = {"a": 2, "new": 1, "sku": {"name": "Standard"}, "list": [{"x": 2}], "location": "West Europe"}
    assert differences(old, new, {"sku", "new"}) == {
        "a": "UPDATE",
        "gone": "DELETE",
        "new": "ADD_REPLACE",
        "sku.name": "UPDATE_REPLACE",
        "list[0].x": "UPDATE",
        "list[1]": "DELETE",
    }
    assert differences({"location": "a"}, {"location": "b"}, {"location"}) == {"location": "UPDATE_REPLACE"}
    assert differences({"a": UNKNOWN_TEXT}, {"a": UNKNOWN}, ()) == {"a": "UPDATE"}
    assert differences(old, old, {"sku"}) == {}
    assert differences({"resourceGroupName": "Inst"}, {"resourceGroupName": "inst", "__made": True}, ()) == {}


def test_a_refresh_writes_only_what_has_changed_into_the_inputs() -> None:
    said = {"a": 1, "deep": {"x": 1}, "rules": [{"name": "one"}, {"name": "two"}]}
    old = {"a": 1, "b": "default", "deep": {"x": 1, "y": 2}, "rules": [{"name": "one"}, {"name": "two"}]}
    assert carried_over(said, old, old) == said
    new = {"b": "default", "c": 3, "deep": {"x": 5, "y": 2}, "rules": [{"name": "two"}]}
    assert carried_over(said, old, new) == {"c": 3, "deep": {"x": 5}, "rules": [{"name": "two"}]}
