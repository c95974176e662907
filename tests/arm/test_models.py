"""Microsoft's models, walked: what a body may have."""

from __future__ import annotations

import pytest

from support.arm import models

pytestmark = pytest.mark.tier("deep", proves=("arm",))

NIC, VM, RULE = models.network.NetworkInterface, models.compute.VirtualMachine, models.network.SecurityRule


@pytest.mark.parametrize(
    ("model", "body", "path"),
    [
        (NIC, {"colour": 1}, "colour"),
        (
            NIC,
            {"properties": {"ipConfigurations": [{"properties": {"ip": "x"}}]}},
            "properties.ipConfigurations[0].properties.ip",
        ),
        (NIC, {"properties": {"macAddress": "x"}}, "properties.macAddress"),
        (NIC, {"properties": {"ipConfigurations": {}}}, "properties.ipConfigurations"),
        (NIC, {"properties": {"enableIPForwarding": "true"}}, "properties.enableIPForwarding"),
        (NIC, {"tags": {"a": 1}}, "tags.a"),
        (VM, {}, "location"),
        (VM, {"location": "x", "id": "/y"}, "id"),
        (
            VM,
            {"location": "x", "properties": {"osProfile": {"adminUsername": 5}}},
            "properties.osProfile.adminUsername",
        ),
        (
            VM,
            {
                "location": "x",
                "properties": {"storageProfile": {"dataDisks": [{"lun": "0", "createOption": "Attach"}]}},
            },
            "properties.storageProfile.dataDisks[0].lun",
        ),
        (
            VM,
            {
                "location": "x",
                "properties": {"storageProfile": {"dataDisks": [{"lun": True, "createOption": "Attach"}]}},
            },
            "properties.storageProfile.dataDisks[0].lun",
        ),
        (
            RULE,
            {"properties": {"protocol": "Tcp", "access": "Maybe", "priority": 100, "direction": "Inbound"}},
            "properties.access",
        ),
    ],
)
def test_what_is_wrong_is_found_where_it_is(model: type, body: dict, path: str) -> None:
    with pytest.raises(models.Wrong) as wrong:
        models.check(body, model)
    assert wrong.value.path == path
    assert path in wrong.value.message


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (NIC, {}),
        (
            NIC,
            {"location": None, "properties": {"ipConfigurations": [{"properties": {"subnet": {"id": "x"}}}]}},
        ),
        (VM, {"location": "x", "properties": {"hardwareProfile": {"vmSize": "Standard_New"}}}),
        (
            RULE,
            {"properties": {"protocol": "tcp", "access": "allow", "priority": 100, "direction": "INBOUND"}},
        ),
    ],
)
def test_what_is_right_passes(model: type, body: dict) -> None:
    models.check(body, model)


@pytest.mark.parametrize("package", [models.network, models.compute, models.resources])
def test_all_models_can_be_read(package: object) -> None:
    """A field that can't be would let anything pass."""
    known = [one for one in vars(package).values() if isinstance(one, type) and hasattr(one, "_deserialize")]
    assert len(known) > 20
    for model in known:
        for name, field in models.fields(model).items():
            left = str(field.type)
            assert "ForwardRef" not in left and "'_models" not in left, (model, name)
