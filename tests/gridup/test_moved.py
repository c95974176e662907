"""Ports that were in use when a node was made: the person is told where it is instead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gridup.deploy_flow import moved
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import target
from gridup_node import services
from support.checkpoints import PORTS, outputs_for
from support.inside import Inside


@pytest.mark.parametrize("name", ["local", "docker"])
def test_each_is_named_with_the_one_that_was_taken(name: str) -> None:
    spec = DeploySpec("Inst", target=name, stack_id="0" * 16)
    usual = replace(outputs_for(spec), ports=services.ports())
    assert moved(usual, target(name)) == []
    other = replace(usual, ports={**usual.ports, "proxy": 8081, "jupyter": 8889, "api": 18081})
    assert moved(other, target(name)) == [
        "Port 8080 was in use: the node is at 8081.",
        "Port 8888 was in use: jupyter is at 8889.",
    ]
    # Who asked for a port, has it.
    asked = replace(other, spec=replace(spec, port=8081))
    assert moved(asked, target(name)) == ["Port 8888 was in use: jupyter is at 8889."]


@pytest.mark.parametrize("name", ["local", "docker"])
def test_https_is_looked_for_at_its_own_port_and_one_for_those_who_may_not_have_it(name: str) -> None:
    spec = DeploySpec("Inst", target=name, stack_id="0" * 16, scheme="https")
    for front in (443, 8443):
        there = replace(outputs_for(spec), ports={**services.ports(), "proxy": front}, tls=True)
        assert moved(there, target(name)) == []
    other = replace(there, ports={**there.ports, "proxy": 8444})
    assert moved(other, target(name)) == ["Port 8443 was in use: the node is at 8444."]


def test_a_node_that_had_another_port_before_is_told_of_too(inside: Inside) -> None:
    before = outputs_for(inside.spec("Inst"), inside.home.node("inst"))
    inside.lay_outputs(replace(before, ports={**before.ports, "proxy": 8081}))
    assert (
        f"Port 8081 was in use: the node is at {PORTS['proxy']}." in inside("deploy", "Inst", "--no-wait").err
    )
    assert "was in use" not in inside("deploy", "Inst", "--no-wait").err
    # Who asks for another has it.
    assert "was in use" not in inside("deploy", "Inst", "--no-wait", "--port", "9123").err


def test_where_nobody_chooses_ports_none_was_in_use() -> None:
    spec = DeploySpec("Inst", target="aws", stack_id="0" * 16)
    other = replace(outputs_for(spec), ports={**services.ports(), "proxy": 443})
    for before in (None, outputs_for(spec)):
        assert moved(other, target("aws"), before) == []
