"""What every target promises, whatever it runs on. A new one is tested by being in the registry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup.deploy_flow import REQUIRED_CAPABILITY, resolve
from gridup.ssh_keys import check_types
from gridup_infra import targets
from gridup_infra.errors import CredentialsError, GridupError, InvalidNameError, UsageError
from gridup_infra.openssh import Configured, Destination
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.aws import naming
from gridup_infra.targets.azure import naming as azure_naming
from gridup_infra.targets.base import Capability, NodeStatus, ReadSecret, StackRef, Target
from gridup_infra.targets.docker import naming as docker_naming
from gridup_infra.vm import keys, node
from gridup_node.containers import containers
from gridup_node.services import SERVICES
from support import ssh_keys
from support.arm import SUBSCRIPTION
from support.checkpoints import PORTS, outputs_for
from support.moto_rig import ACCOUNT
from support.ssh_rig import Machine

ASKED: dict[str, object] = {
    "port": 9001,
    "bind": "127.0.0.1",
    "scheme": "http",
    "keep_data": True,
    "region": "eu-west-1",
    "size": "large",
    "disk_size": 64,
    "cpu_credits": "unlimited",
    "allow_cidr": ("10.0.0.0/8",),
    "web_cidr": ("10.0.0.0/8",),
    "domain_name": "node.example.org",
    "ssh_keys": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H a",),
    "admin_ssh_keys": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H b",),
    "reboot_at": "03:30",
    "no_node": True,
    "subnet_id": "subnet-0a1b2c3d",
    "resource_group": "theirs",
    "private": True,
    "allow_egress": True,
    "image": "registry.example.org/node@sha256:" + "0" * 64,
    "machine_revision": 1,
    "host": "ada@203.0.113.9",
    "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX+uyY52PLpPQ4uZA9s1YZ+hqp0f9ra4Tu6M8H",
    "key_from": ("203.0.113.0/24",),
}
OWN: dict[str, dict[str, object]] = {
    "azure": {
        "region": "westeurope",
        "subnet_id": "/subscriptions/5ab5c71b-0000-4000-8000-00000000a2e0/resourceGroups/theirs"
        "/providers/Microsoft.Network/virtualNetworks/lab/subnets/machines",
    },
}
"""Where a target's own words for a part differ."""

ALWAYS: dict[str, dict[str, object]] = {"ssh": {"host": "machine", "host_names": ("lab.inst.example",)}}
"""What must be said of every node on a target."""

LENT: dict[str, ReadSecret] = {"ssh": lambda _stack, _export: keys.new_key()[0]}
"""For a target that can be asked nothing without the stack's own key: one that opens nothing."""

NAME = "My Lab_2"


PLACES: dict[str, tuple[str, str]] = {
    "docker": ("docker_host", "DOCKER_HOST"),
    "aws": ("aws_url", "AWS_ENDPOINT_URL"),
    "azure": ("azure_url", "AZURE_RESOURCE_MANAGER_URL"),
    "ssh": ("ssh_path", "PATH"),
}
"""What a target needs beside this machine: the fixture that has it, and the variable that names it."""

NOTHING_ON_AZURE = {"subscription": SUBSCRIPTION, "machine": "00000000-0000-0000-0000-000000000000"}
NOTHING = {"account": ACCOUNT, "instance": "i-0123456789abcdef0", "volume": "", "zone": "", "group": ""}

GONE: dict[str, Callable[[DeploySpec, Path], NodeOutputs]] = {
    "local": outputs_for,
    "docker": lambda spec, _folder: docker_naming.outputs(
        spec, PORTS, configs={part.service: "0" for part in containers({})}
    ),
    "aws": lambda spec, _folder: node.node_outputs(spec, "203.0.113.1", {}, naming.facts(spec, NOTHING)),
    "azure": lambda spec, _folder: node.node_outputs(
        spec, "203.0.113.1", {}, azure_naming.facts(spec, NOTHING_ON_AZURE)
    ),
    "ssh": lambda spec, _folder: behind_ssh(spec),
}
"""For each target a node as it would export it."""


def behind_ssh(spec: DeploySpec) -> NodeOutputs:
    """A node on the machine that the person's ~/.ssh/config knows by that name."""
    found = Configured.of(Destination.read(spec.host))
    facts = {"host": spec.host, node.MACHINE: "0123456789abcdef"}
    return node.node_outputs(spec, found.address, {}, facts, found.port)


@pytest.fixture(scope="module")
def ssh_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """This very machine, by ssh; nothing on it bears a mark of the tests'."""
    if os.geteuid() != 0:
        pytest.skip("only root may look at a machine as the target ssh does")
    with Machine(tmp_path_factory.mktemp("ssh")) as machine:
        yield machine


@pytest.fixture
def ssh_path(ssh_machine: Machine) -> str:
    return ssh_machine.path


NEED_MORE = ("docker", "ssh")
"""Targets that can't be tried on an ordinary user's machine: they need a daemon, or root."""


def param(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.tier("gate")] * (name in NEED_MORE))


@pytest.fixture(params=map(param, targets.names()))
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Target]:
    if request.param in PLACES:
        fixture, variable = PLACES[request.param]
        monkeypatch.setenv(variable, request.getfixturevalue(fixture))
    monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "a home"))
    yield targets.target(request.param, LENT.get(request.param))


@pytest.fixture
def spec(target: Target) -> DeploySpec:
    always: dict[str, Any] = ALWAYS.get(target.name, {})
    return target.resolve(DeploySpec(name=NAME, target=target.name, **always).with_new_id(), None)


@pytest.fixture
def gone(spec: DeploySpec, tmp_path: Path) -> NodeOutputs:
    """A node that was deployed once, and of which nothing is left."""
    return GONE[spec.target](spec, tmp_path / "a home" / "nodes" / spec.stack)


def identity(spec: DeploySpec) -> StackRef:
    return StackRef(spec.stack, spec.stack_id, spec.name, spec.target, {"host": spec.host})


def test_every_part_of_a_spec_that_needs_a_capability_has_a_value_to_try() -> None:
    assert set(ASKED) == set(REQUIRED_CAPABILITY)
    no_part = {Capability.POWER, Capability.BOOT_LOG, Capability.CLOSED}
    assert set(REQUIRED_CAPABILITY.values()) | no_part == set(Capability)


def test_it_says_what_it_is_and_can(target: Target) -> None:
    assert target.name in targets.names()
    assert target.title.strip() == target.title != ""
    assert target.capabilities <= set(Capability)


def test_power_is_claimed_only_with_both_of_its_words(target: Target) -> None:
    has = type(target).start is not Target.start and type(target).stop is not Target.stop
    assert (Capability.POWER in target.capabilities) == has


def test_the_defaults_are_filled_in_and_stay_as_they_are(target: Target, spec: DeploySpec) -> None:
    assert (spec.name, spec.target, len(spec.stack_id)) == (NAME, target.name, 16)
    assert target.resolve(spec, spec) == spec
    if Capability.SCHEME in target.capabilities:
        assert spec.bind, "where there is a choice of addresses, one is made"


@pytest.mark.parametrize("part", REQUIRED_CAPABILITY)
def test_what_it_lacks_is_refused_by_the_flag_and_what_it_has_is_taken(target: Target, part: str) -> None:
    value = {**ASKED, **OWN.get(target.name, {})}[part]
    asked = {"target": target.name, **ALWAYS.get(target.name, {}), part: value}
    if REQUIRED_CAPABILITY[part] in target.capabilities:
        made, _ = resolve(asked, {}, NAME, None, {})
        assert getattr(made, part) == value
    else:
        with pytest.raises(UsageError, match="has no --"):
            resolve(asked, {}, NAME, None, {})


def test_a_cloud_takes_the_keys_that_all_of_its_machines_take(target: Target, tmp_path: Path) -> None:
    """Case G24."""
    if Capability.CLOSED not in target.capabilities:
        return
    for key in (ssh_keys.ed25519("a"), ssh_keys.rsa4096("a")):
        check_types(target, [key])
    with pytest.raises(UsageError, match="ecdsa-sha2-nistp256"):
        check_types(target, [ssh_keys.ecdsa("a")])


def test_a_syft_version_that_is_not_shipped_is_refused(target: Target, spec: DeploySpec) -> None:
    with pytest.raises(UsageError, match=r"--tag 0\.0\.1"):
        target.resolve(replace(spec, tag="0.0.1"), None)


def test_it_tells_what_will_exist_and_what_a_destroy_keeps(target: Target, spec: DeploySpec) -> None:
    for made in (target.makes(spec), target.retained_on_destroy(replace(spec, keep_data=True))):
        assert made
        assert all(line.strip() and "\n" not in line for line in made)
    assert target.data(spec) in target.makes(spec)
    assert target.data(spec) in target.removes(spec)
    # What is kept is not said to be removed as well.
    assert target.data(spec) not in target.removes(replace(spec, keep_data=True))
    if Capability.KEEP_DATA in target.capabilities:
        assert len(target.retained_on_destroy(replace(spec, keep_data=True))) > len(
            target.retained_on_destroy(spec)
        )


def test_data_that_it_can_keep_are_found_by_the_next_node(target: Target, spec: DeploySpec) -> None:
    """So that they are announced and asked about; what this comes to is each target's own to show."""
    if Capability.KEEP_DATA not in target.capabilities:
        return
    assert type(target).retained is not Target.retained
    with contextlib.suppress(CredentialsError):  # On a cloud nobody is logged in to here.
        assert target.retained(spec) is None


def test_it_names_what_will_exist(target: Target, spec: DeploySpec) -> None:
    """By what people find it there: its own name, or that of the machine that it is on."""
    told = " ".join(target.makes(spec))
    assert any(name in told for name in (spec.stack, spec.host) if name)


def test_looking_and_telling_make_nothing(
    target: Target, spec: DeploySpec, gone: NodeOutputs, tmp_path: Path
) -> None:
    (
        target.makes(spec),
        target.retained_on_destroy(spec),
        target.inspect(gone),
        target.leftovers(identity(spec)),
    )
    assert list(tmp_path.iterdir()) == []


def test_a_node_of_which_nothing_is_left_is_gone(target: Target, gone: NodeOutputs) -> None:
    seen = target.inspect(gone)
    assert seen.power is NodeStatus.MISSING
    assert seen.problems
    assert not seen.healthy


def test_the_way_into_a_node_that_is_gone_is_an_error_that_says_so(target: Target, gone: NodeOutputs) -> None:
    access = target.access(gone)
    with pytest.raises(GridupError):
        access.run(["true"], timeout=20)
    # Whose logs are only to be had through that way says the same of them.
    with contextlib.suppress(GridupError):
        assert list(access.logs([SERVICES[0].name], lines=10, follow=False)) == []


def test_stopping_or_starting_a_node_that_is_gone_is_no_crash(target: Target, gone: NodeOutputs) -> None:
    if Capability.POWER in target.capabilities:
        for act in (target.stop, target.start):
            with pytest.raises(GridupError):
                act(gone)


def test_of_nothing_there_is_nothing_left_and_sweeping_it_is_quiet(target: Target, spec: DeploySpec) -> None:
    assert target.leftovers(identity(spec)) == ()
    for _ in range(2):
        target.delete_all(identity(spec))
    assert target.leftovers(identity(spec)) == ()


def test_a_preflight_with_nothing_in_the_way_is_quiet_and_makes_nothing(
    target: Target, spec: DeploySpec, tmp_path: Path
) -> None:
    try:
        target.preflight(spec, None)
    except GridupError as error:
        # On a cloud nobody is logged in to here; that must be said, with what to do.
        assert error.suggestion
    assert list(tmp_path.iterdir()) == []


def test_a_second_name_of_the_same_stack_is_refused_naming_the_first(
    target: Target, spec: DeploySpec
) -> None:
    from gridup.state import Record

    record = Record(spec.stack, outputs_for(spec), identity(spec), ("owner",), ())
    with pytest.raises(
        InvalidNameError, match='"my lab 2" and the deployed "My Lab_2" would share the stack my-lab-2'
    ):
        resolve({}, {}, "my lab 2", record, {})
