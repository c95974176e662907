"""Flag > environment > config.yaml > default, and none of the last three moves a node that is deployed."""

from __future__ import annotations

import json
import socket

import pytest

from gridup_infra.paths import ensure_private
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.local import LocalTarget
from support.checkpoints import write_checkpoint
from support.inside import Inside


def config_of(inside: Inside, name: str) -> DeploySpec:
    """What the engine was asked to make."""
    rows = inside("outputs", name, "--json").ok().json
    return DeploySpec(name=rows["name"], target=rows["target"], admin_email=rows["admin_email"])


def test_the_environment_is_a_new_nodes_default(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDUP_DEPLOY_ADMIN_EMAIL", "env@inst.example")
    inside("deploy", "--name", "Inst", "--no-wait").ok()
    assert config_of(inside, "Inst").admin_email == "env@inst.example"
    inside("deploy", "--name", "Hub", "--no-wait", "--admin-email", "flag@inst.example").ok()
    assert config_of(inside, "Hub").admin_email == "flag@inst.example"


def test_a_default_does_not_change_a_deployed_node(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside("deploy", "--name", "Inst", "--no-wait", "--admin-email", "first@inst.example").ok()
    monkeypatch.setenv("GRIDUP_CLOUD", "moon")
    monkeypatch.setenv("GRIDUP_DEPLOY_ADMIN_EMAIL", "env@inst.example")
    (inside.home.root / "config.yaml").write_text("deploy: {admin-email: file@inst.example}\n")
    inside("deploy", "--name", "Inst", "--no-wait").ok()
    assert config_of(inside, "Inst").admin_email == "first@inst.example"
    assert "The target 'moon' is unknown" in inside("deploy", "--name", "Other", "--no-wait").err


def test_a_damaged_stack_hides_no_other(inside: Inside) -> None:
    inside.lay("Inst")
    path = write_checkpoint(inside.state, "bad", None)
    path.write_text("{")
    rows = {row["stack"]: row for row in inside("status", "--json").ok().json}
    assert rows.keys() == {"bad", "inst"}
    assert "damaged" in rows["bad"]["problems"][0]


def test_the_port_of_a_broken_off_deploy_is_its_own(inside: Inside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as running:
        port = running.getsockname()[1]
        spec = DeploySpec(name="Inst", stack_id="a" * 16, port=port)
        config = ensure_private(inside.home.node("inst") / "config")
        (config / "node.json").write_text(json.dumps({"stack_id": spec.stack_id, "ports": {"proxy": port}}))
        LocalTarget().preflight(spec, None)
