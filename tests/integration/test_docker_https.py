"""A node in Docker that others reach: https by its own CA, as a node on this machine has it."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridup_infra.targets import fronting
from gridup_node.services import service
from support import attacks
from support.cli import Cli
from support.containers import Things, between_hidden, ids, stack_id
from support.local_node import client, settled
from support.own_ca import get
from support.rotated import check_replaced, opened
from support.workers import free_port

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node]


@pytest.fixture(scope="module")
def things(docker_host: str) -> Things:
    return Things(docker_host)


@pytest.fixture(scope="module")
def inst(module_docker_cli: Cli) -> Iterator[Cli]:
    """A node that listens on every address of the daemon's machine."""
    words = ("--cloud", "docker", "--bind", "0.0.0.0", "--port", str(free_port()))
    # The tests' daemon keeps no firewall, whatever that of this machine does.
    with between_hidden("ACCEPT"):
        with contextlib.ExitStack() as stack:
            # So that the node has another port: other workers' tests have Caddy at this one (test_https).
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", service("jupyter").port)))
            made = module_docker_cli.deploy("Inst", *words)
        assert "plain http" not in made.err
        yield module_docker_cli


@pytest.fixture
def ca(inst: Cli, tmp_path: Path) -> Path:
    path = tmp_path / "inst-ca.pem"
    path.write_text(inst("outputs", "Inst", "--ca").ok().out)
    return path


def test_attacks_at_its_front_door_fail(inst: Cli, ca: Path, things: Things) -> None:
    def processes() -> dict[str, int]:
        return {name: one["State"]["Pid"] for name, one in things.containers(stack_id(inst)).items()}

    target = attacks.Target.of(inst, processes, ca=str(ca), believed=False, connections=300)
    with attacks.scene(target) as scene:
        attacks.play(scene, *attacks.REQUESTS, *attacks.FLOODS, attacks.changed_frames_reach_nothing)


def test_a_notebook_runs_over_a_websocket_and_for_nobody_else(inst: Cli, runtime: Path, ca: Path) -> None:
    seen = client(inst, runtime, "run_notebook.py", trusted=ca)
    assert seen == {"result": "2", "nobody": 403, "another site": 403}


def urls(cli: Cli) -> dict[str, str]:
    seen = cli("check", "Inst", "--json", "--wait").ok().json[0]["endpoints"]
    told = {row["service"]: (row["state"], row["note"]) for row in seen}
    assert told.pop("jobs")[0] == "up"
    assert told == dict.fromkeys(("proxy", "ui", "api", "ssh", "jupyter"), ("up", ""))
    return {row["service"]: row["url"] for row in seen if row["service"] in told}


def test_every_endpoint_is_proven_over_https_and_nothing_speaks_plain_http(inst: Cli, ca: Path) -> None:
    found, address = urls(inst), inst("outputs", "Inst", "--json").ok().json["address"]
    assert all(found[name].startswith(f"https://{address}:") for name in ("ui", "api", "jupyter"))
    # At the machine's own address as well as by a name of its.
    assert address == fronting.outward_address(fronting.EVERY["0.0.0.0"])
    for host in (address, "localhost"):
        assert b"Gridup portal" in get(found["ui"].replace(address, host), ca), host
    assert set(json.loads(get(f"{found['jupyter']}/api", ca))) == {"version"}
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        get(found["ui"], None)
    for name in ("ui", "jupyter"):
        with pytest.raises(OSError, match="HTTP Error 400"):
            get(found[name].replace("https:", "http:"), None)


@pytest.mark.tier("deep")
def test_every_secret_is_replaced_its_ca_too(inst: Cli, tmp_path: Path) -> None:
    with opened(inst, tmp_path, keys=inst.home / "stacks/inst/keys", tls=True) as before:
        inst("rotate", "Inst", "--yes").ok()
        check_replaced(before)
    assert "Nothing changed" in inst("deploy", "--name", "Inst").ok().err


def test_what_no_network_can_hide_is_said(inst: Cli) -> None:
    """In a network that all nodes shared each would reach the others."""
    row = settled(inst)
    why = "the daemon keeps containers in one network not apart, so that none can hide it"
    assert f"api reaches 169.254.0.0/16: {why}" in row["notes"]
    assert (row["right"], row["problems"]) == (True, [])
    assert "Inst: proxy reaches 168.63.129.0/24" in inst("status").ok().out


def test_the_same_deploy_again_changes_nothing(inst: Cli, things: Things) -> None:
    before = ids(things, stack_id(inst))
    again = inst("deploy", "--name", "Inst").ok()
    assert "Nothing changed" in again.err
    assert "Warning" not in again.err
    assert ids(things, stack_id(inst)) == before


@pytest.mark.tier("deep")
def test_plain_http_is_there_for_the_asking_with_a_warning_and_https_again(inst: Cli, ca: Path) -> None:
    plain = inst("deploy", "--name", "Inst", "--plain-http").ok()
    assert 'Warning: "Inst" speaks plain http at 0.0.0.0' in plain.err
    assert b"Gridup portal" in get(urls(inst)["ui"], None)
    assert inst("outputs", "Inst", "--ca").code == 2
    back = inst("deploy", "--name", "Inst", "--no-plain-http").ok()
    assert "Warning" not in back.err
    assert inst("outputs", "Inst", "--ca").ok().out == ca.read_text()
    assert b"Gridup portal" in get(urls(inst)["ui"], ca)


@pytest.mark.tier("deep")
def test_the_ca_outlives_the_node_with_its_data(inst: Cli, ca: Path) -> None:
    inst("deploy", "--name", "Inst", "--keep-data").ok()
    inst("destroy", "Inst", "--yes").ok()
    words = ("--cloud", "docker", "--bind", "0.0.0.0", "--port", str(free_port()), "--no-keep-data")
    inst.deploy("Inst", *words, "--adopt")
    assert inst("outputs", "Inst", "--ca").ok().out == ca.read_text()
    assert b"Gridup portal" in get(urls(inst)["ui"], ca)
