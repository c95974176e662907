"""What a node speaks at an address that the person chose: beyond the loopback https, unless told not to."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest

from gridup_infra import targets
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import fronting
from gridup_infra.targets import ports as choosing
from gridup_infra.targets.docker import naming
from gridup_infra.targets.local import node
from gridup_infra.targets.local.providers import NodeDirProvider, _plan
from gridup_node.render import render
from gridup_node.services import SERVICES, ports
from support.inside import Inside, inside

__all__ = ["inside"]

SPEC = DeploySpec(name="Inst", stack_id="0123456789abcdef")
BEYOND = ["0.0.0.0", "192.0.2.7", "::", "2001:db8::7"]
OLD = replace(SPEC, bind="0.0.0.0")
"""As a Gridup that knew no https has left it."""


def scheme(previous: DeploySpec | None = None, **asked: Any) -> str:
    """Of a node on this machine."""
    return targets.target("local").resolve(replace(previous or SPEC, **asked), previous).scheme


@pytest.mark.parametrize("bind", BEYOND)
def test_beyond_the_loopback_it_is_https_unless_plain_http_is_asked_for(bind: str) -> None:
    assert scheme(bind=bind) == "https"
    assert scheme(bind=bind, scheme="http") == "http"
    # It is remembered.
    assert scheme(replace(SPEC, bind=bind, scheme="http")) == "http"
    assert scheme(replace(SPEC, bind=bind, scheme="https")) == "https"


@pytest.mark.parametrize("bind", ["", "127.0.0.1", "127.0.0.2", "::1"])
def test_on_the_loopback_nothing_changes(bind: str) -> None:
    assert scheme(bind=bind) == ""
    assert fronting.warnings(replace(SPEC, bind=bind or "127.0.0.1")) == ()


def test_one_that_is_moved_there_gets_https() -> None:
    assert scheme(replace(SPEC, bind="127.0.0.1"), bind="0.0.0.0") == "https"


def test_one_that_was_there_before_stays_plain_until_it_is_asked_for_and_is_warned_of() -> None:
    local = targets.target("local")
    assert scheme(OLD) == ""
    assert scheme(OLD, bind="192.0.2.7") == ""
    (line,) = local.warnings(OLD, None)
    assert 'Inst" speaks plain http at 0.0.0.0' in line
    assert "--no-plain-http gives it https" in line
    assert scheme(OLD, scheme="https") == "https"
    (line,) = local.warnings(replace(OLD, scheme="http"), None)
    assert "--no-plain-http" not in line
    assert local.warnings(replace(OLD, scheme="https"), None) == ()


@pytest.mark.parametrize("bind", BEYOND)
def test_in_docker_it_is_the_same(bind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///x")
    docker = targets.target("docker")
    wanted = replace(SPEC, target="docker", bind=bind)
    assert docker.resolve(wanted, None).scheme == "https"
    assert docker.warnings(docker.resolve(wanted, None), None) == ()
    plain = docker.resolve(replace(wanted, scheme="http"), None)
    assert plain.scheme == "http"
    assert len(docker.warnings(plain, None)) == 1
    # One that is there already goes on.
    old = replace(plain, scheme="")
    assert docker.resolve(old, old) == old
    assert "--no-plain-http gives it https" in docker.warnings(old, None)[0]


def test_the_certificate_is_for_the_names_that_the_person_gave_as_well() -> None:
    spec = replace(SPEC, bind="192.0.2.7", scheme="https", host_names=("node.inst.example",))
    made = fronting.tls(spec, "192.0.2.7", ["host-1", "localhost"])
    assert made is not None
    assert (made.name, made.more) == ("192.0.2.7", ("host-1", "localhost", "node.inst.example"))
    assert fronting.tls(replace(spec, scheme="http"), "192.0.2.7", []) is None


def test_addresses_that_come_and_go_with_dockers_networks_are_no_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows(address: str) -> list[Any]:
        return [SimpleNamespace(address=address), SimpleNamespace(address="02:42:ac:11:00:02")]

    found = {"eth0": rows("192.0.2.7"), "docker0": rows("172.17.0.1"), "br-0123456789ab": rows("172.18.0.1")}
    monkeypatch.setattr("psutil.net_if_addrs", lambda: found)
    spec = replace(SPEC, bind="0.0.0.0", scheme="https")
    every = fronting.names_of(spec)
    assert {"192.0.2.7", "172.17.0.1", "172.18.0.1", "localhost"} <= set(every)
    assert set(every) - set(fronting.names_of(spec, but=fronting.BRIDGES)) == {"172.17.0.1", "172.18.0.1"}


OUTWARD = {"192.0.2.1": "198.51.100.4", "2001:db8::1": "2001:db8::4"}
SHOWN = [
    ("0.0.0.0", OUTWARD, "198.51.100.4"),
    ("0.0.0.0", {}, "127.0.0.1"),
    ("::", OUTWARD, "2001:db8::4"),
    ("::", {}, "::1"),
    ("192.0.2.7", OUTWARD, "192.0.2.7"),
    ("127.0.0.1", OUTWARD, "127.0.0.1"),
]
"""What a node listens on, the machine's addresses on its way out, and what people are told."""


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("bind", "has", "shown"), SHOWN)
def test_the_address_that_is_shown_is_one_that_colleagues_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind: str, has: dict[str, str], shown: str, scheme: str
) -> None:
    monkeypatch.setattr(fronting, "outward_address", lambda elsewhere: has.get(elsewhere, ""))
    spec = replace(SPEC, bind=bind, scheme=scheme, host="unix:///x")
    docker = naming.outputs(replace(spec, target="docker"), ports())
    asked = {
        "folder": str(tmp_path),
        "spec": spec.to_config(),
        "bin": "/b",
        "bundle": "b",
        "syft_version": "1",
    }
    plan = _plan(NodeDirProvider().check({}, asked).inputs)
    local = node.node_outputs(plan, TestLaid.PORTS)
    host = f"[{shown}]" if ":" in shown else shown
    for made in (local, docker):
        assert made.address == shown
        assert made.endpoints()["ui"].url.startswith(f"{scheme}://{host}:")
    assert node.make_context(plan, TestLaid.PORTS).facts["endpoints"]["ui"] == local.endpoints()["ui"].url
    assert (plan.tls.name if plan.tls else shown) == shown


def test_the_account_of_a_local_node_is_the_one_that_runs_gridup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case G46: su, sudo and cron leave other names in the environment, or none."""
    asked = {
        "folder": str(tmp_path),
        "spec": SPEC.to_config(),
        "bin": "/b",
        "bundle": "b",
        "syft_version": "1",
    }
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "nobody-else")
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert NodeDirProvider().check({}, asked).inputs["user"] == me
    # A container under any id.
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert NodeDirProvider().check({}, asked).inputs["user"] == "54321"


def test_the_address_on_the_way_out_is_this_machines() -> None:
    own = {row.address for rows in psutil.net_if_addrs().values() for row in rows}
    assert {fronting.outward_address(elsewhere) for elsewhere in fronting.EVERY.values()} <= {"", *own}


class TestCommands:
    """The same by `gridup`."""

    HOW = ("--no-preflight", "--no-wait")

    def test_plain_http_is_warned_of_at_each_deploy_and_preview(self, inside: Inside) -> None:
        ended = inside("deploy", "Inst", "--bind", "0.0.0.0", "--plain-http", *self.HOW).ok()
        assert ended.err.startswith('Warning: "Inst" speaks plain http at 0.0.0.0')
        for words in (
            ("deploy", "Inst", *self.HOW),
            ("preview", "Inst"),
            ("-q", "deploy", "Inst", *self.HOW),
        ):
            assert "Warning" in inside(*words).ok().err
        assert "Warning" not in inside("deploy", "Inst", "--no-plain-http", *self.HOW).ok().err
        assert "Warning" not in inside("preview", "Inst").ok().err

    def test_a_cloud_has_no_plain_http(self, inside: Inside) -> None:
        ended = inside("deploy", "Inst", "--cloud", "aws", "--plain-http", *self.HOW)
        assert ended.code == 2
        assert "has no --plain-http" in ended.err


class TestLaid:
    """The folder of a node on this machine."""

    PORTS: ClassVar[dict[str, int]] = {**ports(), "jupyter-behind": 18888}

    def plan(self, tmp_path: Path, **changes: Any) -> node.Plan:
        spec = replace(SPEC, **changes)
        names = tuple(fronting.names_of(spec))
        return node.Plan(tmp_path, spec, "/b", "b1", {"sshd": "/usr/sbin/sshd"}, "ada", "0.9.5", names)

    def test_its_certificates_are_for_all_that_it_may_be_called(self, tmp_path: Path) -> None:
        everywhere = self.plan(tmp_path, bind="0.0.0.0", scheme="https")
        assert {"localhost", "127.0.0.1"} <= set(everywhere.names)
        assert not [name for name in everywhere.names if ":" in name]
        assert everywhere.tls is not None
        assert everywhere.tls.name == "127.0.0.1"
        here = self.plan(tmp_path, bind="192.0.2.7", scheme="https")
        assert here.tls is not None
        assert here.tls.name == "192.0.2.7"
        assert "127.0.0.1" not in here.names
        assert fronting.names_of(replace(SPEC, bind="0.0.0.0")) == []

    def test_its_front_door_is_where_syfts_client_looks_if_that_may_be(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def chosen(plan: node.Plan, shut: set[int], current: dict[str, int] | None = None) -> dict[str, int]:
            monkeypatch.setattr(choosing, "free", lambda _address, port, _look=None: port not in shut)
            monkeypatch.setattr(choosing, "hold", lambda _address, _port: True)
            return node._choose_ports(plan, current or {}, SERVICES)

        plan = self.plan(tmp_path / "inst", bind="192.0.2.7", scheme="https")
        assert chosen(plan, set())["proxy"] == 443
        assert chosen(plan, {443})["proxy"] == 8443
        assert chosen(plan, set(), {"proxy": 8080})["proxy"] == 8080
        assert chosen(self.plan(tmp_path / "inst", bind="192.0.2.7"), set())["proxy"] == 8080
        found = chosen(plan, set())
        assert (found["jupyter"], found["jupyter-behind"]) == (8888, 18888)

    def test_what_it_exports_is_what_a_client_needs(self, tmp_path: Path) -> None:
        plan = self.plan(tmp_path, bind="192.0.2.7", scheme="https")
        made = node.node_outputs(plan, self.PORTS, ca="PEM")
        assert (made.tls, made.ca) == (True, "PEM")
        assert made.endpoints()["jupyter"].url == "https://192.0.2.7:8888"
        assert NodeOutputs.from_exports(made.exports()) == made
        context = node.make_context(plan, self.PORTS)
        assert context.ports["jupyter"] == 18888
        assert context.facts["ports"] == self.PORTS
        assert "https://192.0.2.7:8888" in render(context)["Caddyfile"]

    def test_a_plain_one_is_as_it_was(self, tmp_path: Path) -> None:
        plan = self.plan(tmp_path, bind="0.0.0.0")
        made = node.node_outputs(plan, ports())
        assert (made.tls, made.ca, "names" in made.facts) == (False, "", False)
        context = node.make_context(plan, ports())
        assert (context.tls, context.fronted, context.ports) == (None, {}, ports())

    def test_a_ca_that_is_never_made_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(node, "CA_SECONDS", 0)
        with pytest.raises(Exception, match="has made no certificate"):
            node.ca_of(tmp_path)
        path = tmp_path / node.CA_FILE
        path.parent.mkdir(parents=True)
        path.write_text("-----BEGIN CERTIFICATE-----\nhalf")
        with pytest.raises(Exception, match="has made no certificate"):
            node.ca_of(tmp_path)
        path.write_text(f"-----BEGIN CERTIFICATE-----\nA\n{node.CERTIFICATE_END}")
        assert node.ca_of(tmp_path) == path.read_text()
