"""Flag > environment > config.yaml > default, and none of the last three moves a node that is deployed."""

from __future__ import annotations

import json
import socket

import pytest
import typer

from gridup.app import COMMANDS, SAID, build
from gridup.engine_api import Report
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


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("deplyo: {port: 1}", 'there is no command "deplyo".', "Did you mean deploy?"),
        ("deploy: {prot: 9000}", 'deploy has no option "prot".', "Did you mean port?"),
        (
            "deploy: {yes: true}",
            "deploy has the key yes, on or true, which YAML reads as",
            "a yes is for the command line alone",
        ),
        (
            "off: {port: 1}",
            "the file has the key no, off or false, which YAML reads as",
            "A key is an option's name",
        ),
        ('deploy: {"yes": true}', "deploy: yes: only the command line says this", ""),
        ("deploy: {port: soon}", "deploy: port: 'soon' is not a valid int", ""),
        ("deploy: {keep-data: perhaps}", "deploy: keep_data: 'perhaps' is not a valid boolean", ""),
    ],
)
def test_a_mistake_in_the_file_is_named(inside: Inside, text: str, said: str, hint: str) -> None:
    (inside.home.root / "config.yaml").write_text(text)
    ended = inside("deploy", "--name", "Inst", "--no-wait")
    assert (ended.code, ended.out, inside.engine.calls) == (2, "", [])
    assert f"{inside.home.root / 'config.yaml'}: {said}" in ended.err and hint in ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_variable_chooses_a_node_or_agrees(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build([command]).commands[command]  # type: ignore[attr-defined]
    for one in made.params:
        context = typer.Context(made, info_name=command, auto_envvar_prefix=f"GRIDUP_{command.upper()}")
        monkeypatch.setenv(f"GRIDUP_{command}_{one.name}".upper(), "1")
        said = one.param_type_name == "argument" or one.name in SAID
        assert (one.resolve_envvar_value(context) is None) is (said or one.name == "help"), one.name


def test_a_destroy_is_not_confirmed_by_the_environment(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.lay("Inst")
    for name in ("GRIDUP_DESTROY_YES", "GRIDUP_LAND_FORCE", "GRIDUP_LAND_YES"):
        monkeypatch.setenv(name, "1")
    for command in ("destroy", "land"):
        assert inside(command, "Inst").code == 2
    monkeypatch.setenv("GRIDUP_STATUS_STACK", "other")
    monkeypatch.setenv("GRIDUP_STATUS_NAME", "Other")
    assert [row["name"] for row in inside("status", "--no-probe", "--json").ok().json] == ["Inst"]
    assert inside.engine.calls == []


def test_another_commands_section_is_in_nobodys_way(inside: Inside) -> None:
    (inside.home.root / "config.yaml").write_text("deploy: {prot: 9000}\n")
    inside("status").ok()


def test_an_option_is_named_as_on_the_command_line(inside: Inside) -> None:
    (inside.home.root / "config.yaml").write_text("deploy: {type: network, port: 9001}\n")
    inside("deploy", "--name", "Inst", "--no-wait").ok()
    found = inside("outputs", "Inst", "--json").ok().json
    assert (found["type"], found["ui_url"]) == ("network", "http://127.0.0.1:9001/login")


def test_a_preview_has_the_defaults_of_the_deploy_that_would_be(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        type(inside.engine), "preview", lambda _engine, spec, _reporter, *, new: seen.append(spec) or Report()
    )
    (inside.home.root / "config.yaml").write_text("deploy: {type: network, timeout: 9}\n")
    monkeypatch.setenv("GRIDUP_DEPLOY_ADMIN_EMAIL", "env@inst.example")
    inside("preview", "--name", "Inst").ok()
    assert (seen[0].node_type, seen[0].admin_email) == ("network", "env@inst.example")
