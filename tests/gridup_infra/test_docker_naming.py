"""What a Docker node is called, and what is known of one that an earlier version has laid. No daemon."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gridup_infra.outputs import NodeOutputs
from gridup_infra.requirements import Pin, lock_text
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.docker import container_lifecycle, images, naming
from gridup_node.containers import containers

SPEC = DeploySpec(
    name="Inst", target="docker", stack_id="0123456789abcdef", bind="127.0.0.1", host="unix:///x"
)
LOCK = lock_text(("humanize",), b"", [Pin("humanize", "4.9.0", "", ("a" * 64,))])
PROJECT = "gridup-inst-01234567"
MACHINE = {"MemTotal": 8 << 30, "MemoryLimit": True}
"""As `docker info` tells of it; jupyter may take half of it."""
PORTS = {"proxy": 8080, "jupyter": 8888, "ssh": 2222}
CONFIGS = {part.service: "c" for part in containers({})}


def deployed(*, egress: bool = False, earlier: bool = False) -> NodeOutputs:
    made = naming.outputs(replace(SPEC, allow_egress=egress), PORTS, configs=CONFIGS)
    if earlier:
        made = replace(
            made,
            facts={
                key: text for key, text in made.facts.items() if key not in (naming.NETWORKS, naming.SHARES)
            },
        )
    return made


def container(*networks: str) -> dict[str, Any]:
    """One as the daemon describes it."""
    return {
        "Config": {"Labels": {"org.gridup.stack-id": SPEC.stack_id, "org.gridup.config": "c"}},
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}, "Memory": 4 << 30},
        "NetworkSettings": {"Networks": dict.fromkeys(networks)},
        "State": {"Paused": False, "Running": True, "Restarting": False, "ExitCode": 0},
    }


def test_people_connect_to_these_ports_and_the_front_door_has_jupyters() -> None:
    assert set(naming.published()) == {"proxy", "jupyter", "ssh"}
    laid = {props["service"]: props for props in naming.laid(deployed())}
    assert (laid["proxy"]["published"], laid["proxy"]["fronts"]) == (8080, {"jupyter": 8888})
    assert (laid["jupyter"]["published"], laid["jupyter"]["fronts"]) == (0, {})
    assert laid["ssh"]["published"] == 2222


def test_a_node_is_looked_at_as_it_was_laid() -> None:
    laid = {props["service"]: props for props in naming.laid(deployed(egress=True))}
    assert laid["jupyter"]["networks"] == [f"{PROJECT}-out", f"{PROJECT}-jupyter"]
    assert (
        container_lifecycle.drift(container(f"{PROJECT}-out", f"{PROJECT}-jupyter"), laid["jupyter"], MACHINE)
        == []
    )
    assert container_lifecycle.drift(container(f"{PROJECT}-out"), laid["jupyter"], MACHINE) == [
        "jupyter: the container was taken off the node's network"
    ]
    assert naming.laid_networks(deployed()) == sorted(naming.networks(PROJECT))


@pytest.mark.parametrize("service", sorted(CONFIGS))
def test_one_that_an_earlier_version_has_laid_is_right_with_its_one_network(service: str) -> None:
    outputs = deployed(earlier=True)
    assert naming.laid_networks(outputs) == [PROJECT]
    (props,) = (row for row in naming.laid(outputs) if row["service"] == service)
    assert container_lifecycle.drift(container(PROJECT), props, MACHINE) == []
    # And as its state has it.
    told = {**naming.common(SPEC), "service": service, "network": PROJECT, "config": "c"}
    assert container_lifecycle.drift(container(PROJECT), told, MACHINE) == []


def test_its_networks_are_known_from_any_machine() -> None:
    facts = NodeOutputs.from_exports(deployed().exports())
    assert facts and json.loads(facts.facts[naming.NETWORKS])["api"] == [PROJECT]


def test_with_https_the_front_door_is_published_at_its_port_of_https_and_told_of_its_names() -> None:
    spec = replace(SPEC, bind="192.0.2.7", scheme="https")
    parts = {part.service: part for part in containers({})}
    inner = {name: naming.inner_port(part, spec) for name, part in parts.items()}
    assert inner == {name: part.port for name, part in parts.items()} | {"proxy": 8443}
    assert {name for name, part in parts.items() if naming.ca_file(part, spec)} == {"proxy"}
    assert naming.inner_port(parts["proxy"], SPEC) == 8080 and naming.ca_file(parts["proxy"], SPEC) == {}
    known = naming.known(spec, PORTS, "0.9.5", "b", ["host-1"])
    assert known["tls"] == {"name": "192.0.2.7", "more": ("host-1",)}
    assert known["endpoints"]["ui"] == "https://192.0.2.7:8080/login"
    assert known["host_names"] == ["host-1"]
    assert "tls" not in naming.known(SPEC, PORTS, "0.9.5", "b")
    made = naming.outputs(spec, PORTS, ca="PEM")
    assert (made.tls, made.ca) == (True, "PEM")


def test_packages_of_a_data_owners_make_an_image_of_their_own() -> None:
    added = replace(SPEC, packages=("humanize",), packages_lock=LOCK)
    bare, other = naming.image_of(SPEC), naming.image_of(added)
    assert (bare.get("packages"), other["packages"]) == (None, LOCK)
    assert bare["shared"] != other["shared"] and bare["image"] != other["image"]
    # What is built is what it is called by.
    shared, files = images.reference(other["version"], other["base_image"], "", other["packages"])
    assert (shared, files["packages.txt"]) == (other["shared"], LOCK.encode())
    told = naming.known(added, PORTS, other["version"], "b")
    assert told["packages"] == ["humanize"]
    assert "packages" not in naming.known(SPEC, PORTS, other["version"], "b")


def test_limits_that_are_not_the_share_of_the_machine_any_more_are_seen() -> None:
    (props,) = (row for row in naming.laid(deployed()) if row["service"] == "jupyter")
    made = container(f"{PROJECT}-jupyter")
    assert container_lifecycle.drift(made, props, MACHINE) == []
    seen = ["jupyter: the container's limits were changed"]
    assert container_lifecycle.drift(made, props, {**MACHINE, "MemTotal": 16 << 30}) == seen
    assert container_lifecycle.drift(made, props, {**MACHINE, "MemTotal": (8 << 30) - (1 << 20)}) == []
    made["HostConfig"]["Memory"] = 0
    assert container_lifecycle.drift(made, props, MACHINE) == seen
