"""The spec: what a person asked for survives the stack's configuration, what is impossible is refused."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gridup_infra.errors import UsageError
from gridup_infra.node_facts import node_facts
from gridup_infra.outputs import NodeOutputs
from gridup_infra.requirements import Pin, lock_text
from gridup_infra.spec import PROJECT, DeploySpec
from gridup_node import facts, services

LOCK = lock_text(("humanize",), b"", [Pin("humanize", "4.9.0", "sys_platform == 'linux'", ("a" * 64,))])

POOLS: dict[str, list[Any]] = {
    "name": ["Inst", "123", "true", " a ", "a: b # c", "'\"\\a", "北京大学", "🧬 1"],
    "target": ["local", "docker"],
    "stack_id": ["", "0123456789abcdef"],
    "node_type": ["domain", "network"],
    "port": [0, 1, 8080, 65535],
    "bind": ["", "127.0.0.1", "0.0.0.0", "::1"],
    "scheme": ["", "http", "https"],
    "admin_email": ["admin@example.org", "a+b@c.d.example"],
    "tag": ["latest", "0.9.5"],
    "keep_data": [True, False],
    "region": ["", "eu-west-1"],
    "size": ["", "Standard_B2s"],
    "disk_size": [0, 64],
    "cpu_credits": ["", "standard", "unlimited"],
    "domain_name": ["", "node.example.org"],
    "allow_cidr": [(), ("10.0.0.0/8",), ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7")],
    "web_cidr": [(), ("0.0.0.0/0", "::/0")],
    "admin_ssh_keys": [(), ("ssh-ed25519 AAAA a",)],
    "reboot_at": ["", "00:00", "23:59"],
    "ssh_keys": [(), ("ssh-ed25519 AAAA a b: c #1", "ssh-rsa BBBB x\u2028y\x85z\x0bw")],
    "no_node": [True, False],
    "host": ["", "unix:///run/user/1000/docker.sock", "ssh://ada@inst.example"],
    "host_key": ["", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHEqQrwX"],
    "key_from": [(), ("203.0.113.0/24", "2001:db8::/32")],
    "base_image": ["", "registry.inst.example/python:3.11"],
    "image": ["", "registry.inst.example/node@sha256:" + "0" * 64],
    "subnet_id": ["", "subnet-0a1b2c3d"],
    "resource_group": ["", "theirs"],
    "private": [True, False],
    "max_upload": [0, 512],
    "guests": [True, False],
    "trusted_proxies": [(), ("192.0.2.0/24", "2001:db8::/32")],
    "host_names": [(), ("node.inst.example",)],
    "allow_egress": [True, False],
    "machine_revision": [0, 3],
    "rebuilt": ["", "2026-11-29T12:19:38.000001+00:00"],
    "rotated": ["", "2026-11-29T12:19:38.000001+00:00"],
    "rotating": [True, False],
    "adopted": ["", "new", "vol-0a1b2c3d", "/subscriptions/1/resourceGroups/a/providers/x/disks/y"],
    "adopting": [True, False],
    "organization": [None, "", "Institut für Zählen 🦉"],
    "packages": [(), ("humanize", 'tomli>=2,<3 ; python_version < "3.11"')],
    "packages_lock": ["", LOCK],
    "description": [None, "", "Cohorts of 2026: who may ask what?"],
}


def test_every_field_has_values_to_try() -> None:
    assert set(POOLS) == {field.name for field in fields(DeploySpec)}


@pytest.mark.parametrize("seed", range(60))
def test_a_spec_comes_back_from_its_configuration_as_it_was(seed: int) -> None:
    pick = random.Random(seed)
    spec = DeploySpec(**{key: pick.choice(values) for key, values in POOLS.items()})
    config = spec.to_config()
    assert all(isinstance(value, str) for value in config.values())
    assert set(config) <= set(DeploySpec.config_keys())
    assert DeploySpec.from_config(config) == spec
    assert DeploySpec.from_config({f"{PROJECT}:{key}": text for key, text in config.items()}) == spec


@pytest.mark.parametrize("key", [key for key in POOLS if key != "name"])
def test_each_field_alone_survives(key: str) -> None:
    for value in POOLS[key]:
        spec = replace(DeploySpec(name="Inst"), **{key: value})
        assert getattr(DeploySpec.from_config(spec.to_config()), key) == value


@pytest.mark.parametrize("text", [None, "", "Institut für Zählen"])
def test_what_is_said_to_be_nothing_reaches_the_node_as_that(tmp_path: Path, text: str | None) -> None:
    spec = DeploySpec(name="Inst", organization=text, description=text)
    told = node_facts(NodeOutputs(spec, "127.0.0.1", services.ports()), "0.9.5", "bundle")
    (tmp_path / "node.json").write_text(json.dumps(told))
    found = facts.load(tmp_path / "node.json")
    assert (found.organization, found.description) == (text, text)


def test_the_configuration_holds_only_what_was_asked_for_and_who_it_is() -> None:
    assert set(DeploySpec(name="Inst").to_config()) == {"name", "target", "stack-id"}
    assert DeploySpec(name="Inst", disk_size=64).to_config()["disk-size"] == "64"


@pytest.mark.parametrize("key", ["prot", "gridup:prot", "admin_email", "aws:region"])
def test_a_mistyped_key_is_refused_by_its_name(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        DeploySpec.from_config({"name": "Inst", key: "1"})
    assert key.removeprefix("gridup:") in caught.value.message
    assert "port" in caught.value.suggestion


def test_a_configuration_without_a_name_says_how_to_set_it() -> None:
    with pytest.raises(UsageError, match="no gridup:name") as caught:
        DeploySpec.from_config({"port": "80"})
    assert caught.value.suggestion.endswith("pulumi config set gridup:name Inst")


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("port", "eighty", "gridup:port is 'eighty'; it must be a whole number"),
        ("port", "-1", "whole number"),
        ("port", "", "whole number"),
        ("disk-size", "64.5", "whole number"),
        ("keep-data", "True", "gridup:keep-data is 'True'; it must be true or false"),
        ("no-node", "1", "true or false"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_key(key: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        DeploySpec.from_config({"name": "Inst", key: text})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "…", "letter or digit"),
        ("node_type", "gateway", "--type gateway: a node is a domain or a network"),
        ("port", 65536, "--port 65536: a port is a number from 1 to 65535"),
        ("port", -1, "--port -1"),
        ("bind", "localhost", "--bind 'localhost' is not an IP address"),
        ("scheme", "gopher", "A node speaks http or https, not 'gopher'"),
        ("bind", "127.0.0.1:80", "not an IP address"),
        ("admin_email", "admin", "--admin-email 'admin' is not an e-mail address"),
        ("admin_email", "a@b", "not an e-mail address"),
        ("admin_email", "a b@c.example", "not an e-mail address"),
        ("admin_email", "a@c.example\n", "not an e-mail address"),
        ("allow_cidr", ("10.0.0.0/33",), "--allow-cidr '10.0.0.0/33' is not a network"),
        ("allow_cidr", ("10.0.0.0/8", "10.0.0.1/8"), "--allow-cidr '10.0.0.1/8' .*host bits"),
        ("web_cidr", ("everyone",), "--web-cidr 'everyone' is not a network"),
        ("disk_size", -1, "--disk-size -1"),
        ("cpu_credits", "free", "standard or unlimited"),
        ("reboot_at", "24:00", "--reboot-at '24:00' is not an hour of the day"),
        ("reboot_at", "3:30", "not an hour of the day"),
        ("reboot_at", '03:30"; x "', "not an hour of the day"),
        ("reboot_at", "03:30\n", "not an hour of the day"),
    ],
)
def test_the_impossible_is_refused_by_the_flag_that_asked_for_it(
    field: str, value: object, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        replace(DeploySpec(name="Inst"), **{field: value})


def test_each_new_node_gets_a_mark_of_its_own() -> None:
    spec = DeploySpec(name="Inst")
    marked = {spec.with_new_id().stack_id for _ in range(50)}
    assert len(marked) == 50
    assert all(len(mark) == 16 for mark in marked)
