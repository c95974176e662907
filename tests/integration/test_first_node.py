"""A newcomer's first node: deployed on this machine, entered with the real client, checked, destroyed."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from gridup_infra.outputs import BUILT, PACKAGES, NodeOutputs
from support.cli import Cli
from support.local_node import client, facts, listening

pytestmark = [pytest.mark.engine, pytest.mark.node, pytest.mark.usefixtures("own_ports")]


def test_a_node_is_deployed_entered_checked_and_destroyed(cli: Cli, runtime: Path) -> None:
    ended = cli.deploy("Inst")
    for row in ("host", "UI", "api", "jupyter"):
        assert any(row in line and "✅" in line for line in ended.out.splitlines()), ended.out
    shown = cli("outputs", "Inst", "--show-secrets", "--json").ok().json
    assert client(cli, runtime, "sign_in.py", tries=[shown["admin_password"], "changethis"]) == [True, False]
    assert cli("status", "Inst", "--json").ok().json[0]["updates"] == [], "neither old nor vulnerable"
    told = json.loads((cli.home / "state/.pulumi/stacks/gridup/inst.json").read_text())
    deployed = NodeOutputs.from_exports(told["checkpoint"]["latest"]["resources"][0]["outputs"])
    assert deployed and datetime.fromisoformat(deployed.facts[BUILT])
    assert "syft==0.9.5" in deployed.facts[PACKAGES].split()
    endpoints = cli("check", "Inst", "--json", "--wait").ok().json[0]["endpoints"]
    assert {row["service"] for row in endpoints if row["state"] == "up"} >= {"proxy", "ui", "api", "jupyter"}
    jobs = next(row for row in endpoints if row["service"] == "jobs")
    # What there is on this machine to keep code in.
    assert jobs["state"] == "up" and jobs["note"].endswith("rlimits"), jobs
    ports = facts(cli)["ports"]
    # As plain Pulumi leaves them that is killed while it writes; our own engine writes none.
    assert list(cli.home.rglob("*.attrs")) == []
    for name in ("meta.yaml", "stacks/gridup/inst.json", "stacks/gridup/inst.json.bak"):
        (cli.home / f"state/.pulumi/{name}.attrs").touch()
    (cli.home / "stacks/inst/Pulumi.inst.yaml").write_text("config: {")
    cli("destroy", "Inst", "--yes").ok()
    assert not [port for port in ports.values() if listening(port)]
    assert not cli.node().exists()
    assert cli("status", "--json").ok().json == []
