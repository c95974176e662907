"""What in a state is not Gridup's: every provider and plugin that the engine would run."""

from __future__ import annotations

import base64
import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pulumi.dynamic.dynamic import serialize_provider

from gridup.foreign import foreign, is_older
from gridup_infra import targets
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.local.providers import OwnerProvider
from support.checkpoints import deployment
from support.state_format import FILE

SPEC = DeploySpec(name="Inst", stack_id="0123456789abcdef")

PROMISED: dict[str, dict[str, Any]] = json.loads(FILE.read_text())["targets"]

ROWS = [
    (target, name, row["type"], row.get("provider", ""))
    for target, rows in PROMISED.items()
    for name, row in rows.items()
]

OURS = serialize_provider(OwnerProvider())


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def state(**of_node: Any) -> dict[str, Any]:
    made = deployment(SPEC)
    for row in made["resources"]:
        if "inputs" in row:
            row["inputs"]["__provider"] = OURS
        if row["urn"].endswith("::node"):
            row.update(of_node)
    return made


def test_a_state_of_ours_has_nothing_foreign_and_an_empty_one_neither() -> None:
    assert foreign(state()) == []
    assert foreign({}) == []
    assert foreign({"resources": None, "pending_operations": None, "snippets": None}) == []


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(("target", "name", "kind", "provider"), ROWS)
def test_each_resource_of_each_target_is_ours_whichever_python_wrote_it(
    target: str, name: str, kind: str, provider: str, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    del target, name
    properties = {}
    if provider:
        monkeypatch.setattr(pickle, "DEFAULT_PROTOCOL", protocol)
        module, _, called = provider.rpartition(".")
        written = serialize_provider(getattr(importlib.import_module(module), called)())
        assert base64.b64decode(written)[1] == protocol
        properties = {"__provider": written}
    assert foreign(state(type=kind, inputs=properties, outputs=properties)) == []


class _Other(OwnerProvider):
    pass


SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "gASV",
        OURS + "\n",
        " " + OURS,
        OURS[:-1],
        "é",
        encoded(base64.b64decode(OURS) + b"."),
        encoded(b"cos\nsystem\n(S'true'\ntR."),
        # It names one of ours, and then another thing.
        encoded(base64.b64decode(OURS)[:-1] + b"0cos\nsystem\n(S'true'\ntR."),
        # As by an older protocol: the same class, but none of our programs writes it so.
        encoded(pickle.dumps(OwnerProvider(), protocol=2)),
        # The base of all, and one of our classes that is in no module of a target's.
        encoded(pickle.dumps(importlib.import_module("gridup_infra.targets.dynamic").Provider(), protocol=4)),
        encoded(pickle.dumps(_Other(), protocol=4)),
        SECRET,
        [OURS],
        None,
        1,
    ],
)
@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_a_provider_that_is_not_ours_byte_for_byte_is_named(value: Any, where: str) -> None:
    assert foreign(state(**{where: {"__provider": value}})) == ["the provider of node"]


@pytest.mark.parametrize("module", ["targets.docker.resources", "vm.resources"])
def test_a_state_of_an_older_layout_is_told_apart_from_a_changed_one(module: str) -> None:
    raw = base64.b64decode(OURS).replace(b"targets.local.providers", module.encode())
    made = state(inputs={"__provider": encoded(raw)})
    assert foreign(made) == ["the provider of node"]
    assert is_older(made)
    (row,) = [row for row in made["resources"] if row["urn"].endswith("::node")]
    assert is_older({"pending_operations": [{"type": "creating", "resource": row}]})
    assert not is_older(state()) and not is_older(state(inputs={"__provider": "gASV"})) and not is_older({})


def test_nothing_is_unpickled_by_looking(tmp_path: Path) -> None:
    left = tmp_path / "it ran"
    raw = f"cos\nsystem\n(S'touch {left}'\ntR.".encode() + b"gridup_infra.targets.local.providers"
    assert foreign(state(inputs={"__provider": encoded(raw)}))
    assert not left.exists()


def test_an_operation_that_was_broken_off_counts() -> None:
    made = state()
    resource = {**made["resources"][-1], "inputs": {"__provider": "gASV"}}
    made["pending_operations"] = [{"type": "creating", "resource": resource}]
    assert foreign(made) == ["the provider of services"]
    made["pending_operations"] = [
        {"type": "creating", "resource": made["resources"][-1], "Resource": resource}
    ]
    assert foreign(made) == ["the key 'Resource'"]


@pytest.mark.parametrize(
    "kind", ["command:local:Command", "pulumi:providers:command", "pulumi-nodejs:dynamic:Resource", "", ":"]
)
def test_a_resource_of_another_package_is_named(kind: str) -> None:
    assert foreign(state(type=kind)) == [f"the type {kind} of node"]


def test_a_provider_of_ours_under_another_type_is_looked_at_all_the_same() -> None:
    """A resource of any type may name the dynamic provider as its own."""
    found = foreign(state(type="azure-native:network:Subnet", inputs={"__provider": "gASV"}))
    assert found == ["the provider of node"]


@pytest.mark.parametrize("key", ["pluginDownloadURL", "pluginChecksums", "parameterization"])
@pytest.mark.parametrize("where", ["inputs", "outputs"])
@pytest.mark.parametrize("inner", [True, False])
def test_a_plugin_from_elsewhere_is_named(key: str, where: str, inner: bool) -> None:
    given: dict[str, Any] = {key: "https://elsewhere.example"}
    properties = {"__internal": given} if inner else given
    made = state(type="pulumi:providers:azure-native", inputs={}, outputs={})
    made["resources"][-2 if made["resources"][-2]["urn"].endswith("::node") else -1][where] = properties
    assert foreign(made) == [f"the {key} of node"]


def test_what_the_engine_would_run_beside_resources_is_named() -> None:
    made = {**state(), "snippets": [{"id": "x"}], "extensions": {"a": {}}}
    assert foreign(made) == ["the part 'snippets'", "the part 'extensions'"]
    assert foreign(state(extensionRef="a", type="azure-native:x:Y")) == [
        "the type azure-native:x:Y of node",
    ]


@pytest.mark.parametrize("key", ["Inputs", "OUTPUTS", "Type", "ſnippets"])
def test_a_key_in_another_case_which_the_engine_would_read_is_named(key: str) -> None:
    made = state(**{key: {}})
    if key == "ſnippets":
        made = {**state(), key: [1]}
    (found,) = foreign(made)
    assert repr(key) in found


@pytest.mark.parametrize("target", targets.names())
def test_a_target_names_the_modules_of_its_providers_and_no_other(target: str) -> None:
    rows = [row for row in PROMISED[target].values() if "provider" in row]
    assert {row["provider"].rpartition(".")[0] for row in rows} == set(targets.target(target).providers)
