"""Ports of local nodes: real sockets decide what is free, and no two nodes ever share one."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gridup_infra import room
from gridup_infra.errors import PreflightError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.processes import Result, run
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import ports
from gridup_infra.targets.local import LocalTarget, process_env, runtime
from gridup_infra.targets.ports import allocate, free, hold, reserved_by_others
from support.cli import Cli

LOOPBACK = "127.0.0.1"


@contextmanager
def listening(address: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind((address, port))
        server.listen()
        yield server.getsockname()[1]


def lay(nodes: Path, stack: str, **chosen: int) -> Path:
    """A node's folder, as far as the choice of ports reads it."""
    config = nodes / stack / "config"
    config.mkdir(parents=True)
    (config / "node.json").write_text(json.dumps({"name": stack.title(), "ports": chosen}))
    return nodes / stack


def test_the_default_is_taken_where_it_is_free() -> None:
    with listening() as port:
        pass
    assert allocate({"proxy": port}, {}, {}, LOOPBACK, {}) == {"proxy": port}


def test_the_next_free_one_is_taken_where_the_default_is_in_use() -> None:
    with listening() as port:
        chosen = allocate({"proxy": port}, {}, {}, LOOPBACK, {})["proxy"]
        assert port < chosen <= port + ports.TRIES
        assert free(LOOPBACK, chosen)


def test_a_wildcard_and_an_address_get_in_each_others_way() -> None:
    with listening("0.0.0.0") as port:
        assert not free(LOOPBACK, port)
    with listening() as port:
        assert not free("0.0.0.0", port)


def test_a_port_asked_for_that_is_in_use_is_refused_naming_who_has_it() -> None:
    with listening() as port, pytest.raises(ResourceError) as caught:
        allocate({"proxy": 8080}, {"proxy": port}, {}, LOOPBACK, {})
    assert f"Port {port} of 127.0.0.1 is in use by" in caught.value.message
    assert f"(process {os.getpid()})" in caught.value.message
    assert "--port" in caught.value.suggestion


def test_a_nodes_own_ports_stay_even_while_its_services_hold_them() -> None:
    with listening() as port:
        current = {"proxy": port, "jupyter": port + 1}
        assert allocate({"proxy": 8080, "jupyter": 8888}, {}, current, LOOPBACK, {}) == current
        assert allocate({"proxy": 8080}, {"proxy": port}, {"proxy": port}, LOOPBACK, {}) == {"proxy": port}


def test_a_changed_port_leaves_the_others_where_they_are() -> None:
    with listening() as asked:
        pass
    chosen = allocate({"proxy": 8080, "api": 1}, {"proxy": asked}, {"proxy": 7, "api": 9}, LOOPBACK, {})
    assert chosen == {"proxy": asked, "api": 9}


def test_two_services_never_get_the_same_port() -> None:
    with listening() as port:
        pass
    chosen = allocate({"a": port, "b": port, "c": port}, {"c": port}, {}, LOOPBACK, {})
    assert chosen["c"] == port
    assert len(set(chosen.values())) == 3


def test_a_port_that_another_service_of_the_node_has_is_refused_even_while_the_node_is_stopped() -> None:
    with listening() as port:
        pass
    with pytest.raises(ResourceError, match=f"Port {port} is this node's own for jupyter"):
        allocate(
            {"proxy": 8080, "jupyter": 8888}, {"proxy": port}, {"proxy": 7, "jupyter": port}, LOOPBACK, {}
        )


def test_what_a_stopped_node_keeps_is_given_to_nobody_else(tmp_path: Path) -> None:
    with listening() as port:
        pass
    mine = lay(tmp_path, "mine", proxy=port + 9)
    lay(tmp_path, "other", proxy=port, api=port + 1)
    (tmp_path / "broken" / "config").mkdir(parents=True)
    (tmp_path / "broken" / "config" / "node.json").write_text("{")
    kept = reserved_by_others(tmp_path, mine)
    assert set(kept) == {port, port + 1}
    assert allocate({"proxy": port}, {}, {}, LOOPBACK, kept)["proxy"] not in kept
    with pytest.raises(ResourceError, match=f'Port {port} is kept by the node "Other" of this machine'):
        allocate({"proxy": port}, {"proxy": port}, {}, LOOPBACK, kept)


def test_many_nodes_that_choose_in_turn_share_no_port(tmp_path: Path) -> None:
    with listening() as start:
        pass
    wanted = {"proxy": start, "api": start, "jupyter": start + 3}
    seen: list[int] = []
    for number in range(6):
        kept = reserved_by_others(tmp_path, tmp_path / "new")
        chosen = allocate(wanted, {}, {}, LOOPBACK, kept)
        lay(tmp_path, f"n{number}", **chosen)
        seen += chosen.values()
    assert len(set(seen)) == 18


def test_none_free_says_for_what() -> None:
    with (
        listening() as port,
        pytest.raises(ResourceError, match=f"No free port was found from {port} on for ui"),
    ):
        allocate({"ui": port}, {}, {}, LOOPBACK, dict.fromkeys(range(port + 1, 65536), "x"))


def test_ports_end_at_the_last_there_is() -> None:
    with listening(port=65535), pytest.raises(ResourceError, match="No free port was found from 65535"):
        allocate({"ui": 65535}, {}, {}, LOOPBACK, {})


def test_ipv6_has_ports_of_its_own() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    try:
        with listening("::1") as port:
            assert not free("::1", port)
            with pytest.raises(ResourceError, match=rf"Port {port} of \[::1\] is in use"):
                allocate({"proxy": 1}, {"proxy": port}, {}, "::1", {})
    except OSError as error:
        pytest.skip(f"no IPv6 loopback on this machine: {error}")
    assert free("::1", port)


def test_an_address_that_the_machine_lacks_is_named() -> None:
    with pytest.raises(ResourceError, match=r"This machine has no address 192\.0\.2\.77") as caught:
        free("192.0.2.77", 8080)
    assert "--bind" in caught.value.suggestion


def test_a_port_for_root_alone_is_not_said_to_be_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ResourceError, match=r"Port 80 of 127\.0\.0\.1 needs the rights of root"):
        allocate({"proxy": 8080}, {"proxy": 80}, {}, LOOPBACK, {})


def run_but_no_install(argv: Sequence[str], **options: Any) -> Result:
    assert "install" not in argv, "another Python than the one that was named is of no use"
    return run(argv, **options)


class TestPreflight:
    """What stands in the way is said before anything is made."""

    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "home"))

    def test_a_port_in_use_names_its_holder(self) -> None:
        with listening() as port, pytest.raises(PreflightError) as caught:
            LocalTarget().preflight(DeploySpec(name="Inst", port=port), None)
        assert f"(process {os.getpid()})" in caught.value.message

    def test_a_port_that_a_node_keeps_names_that_node(self, tmp_path: Path) -> None:
        with listening() as port:
            lay(tmp_path / "home" / "nodes", "other", proxy=port)
            with pytest.raises(
                PreflightError, match=f'Port {port} is kept by the node "Other" of this machine'
            ):
                LocalTarget().preflight(DeploySpec(name="Inst", port=port), None)

    def test_a_node_that_moves_to_another_address_is_not_in_its_own_way(self) -> None:
        had = DeploySpec(name="Inst", stack_id="0123456789abcdef", bind="0.0.0.0")
        program = (
            "import socket; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True)"
        )
        argv = [sys.executable, "-c", f"{program}; input()"]
        for stack_id, refused in ((had.stack_id, False), ("another", True)):
            environment = {**os.environ, process_env.STACK_ID: stack_id}
            with subprocess.Popen(
                argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as server:
                assert server.stdout is not None
                port = int(server.stdout.readline())
                now = NodeOutputs(replace(had, port=port), "127.0.0.1", {"proxy": port})
                moved = replace(now.spec, bind=LOOPBACK)
                with pytest.raises(PreflightError, match="in use") if refused else nullcontext():
                    LocalTarget().preflight(moved, now)
                server.communicate("\n")

    def test_an_address_that_the_machine_lacks(self) -> None:
        with pytest.raises(PreflightError, match="no address"):
            LocalTarget().preflight(DeploySpec(name="Inst", bind="192.0.2.77"), None)

    @pytest.mark.parametrize(
        ("built", "python", "one_disk", "needed"),
        [
            (True, True, True, ["the node"]),
            (False, True, True, ["the node's Python environment", "the node"]),
            (False, True, False, ["the node's Python environment", "uv's cache", "the node"]),
            (False, False, True, ["the node's Python environment", "Python 3.12", "the node"]),
        ],
    )
    def test_what_a_deploy_really_writes(
        self,
        monkeypatch: pytest.MonkeyPatch,
        built: bool,
        python: bool,
        one_disk: bool,
        needed: list[str],
    ) -> None:
        monkeypatch.setattr(room, "disk", lambda folder: one_disk or "runtimes" in folder.parts)
        monkeypatch.setattr(runtime, "load", lambda _path: built or None)
        if not python:
            monkeypatch.setenv("GRIDUP_NODE_PYTHON", "/nowhere/python3.12")
        assert [need.what for need in LocalTarget().needs(DeploySpec(name="Inst"))] == needed

    def test_packages_that_were_not_found_yet_take_another_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        monkeypatch.setattr(runtime, "load", asked.append)
        for spec in (DeploySpec(name="Inst"), DeploySpec(name="Inst", packages=("humanize",))):
            LocalTarget().needs(spec)
        assert len(set(asked)) == 2

    def test_a_python_for_nodes_is_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRIDUP_NODE_PYTHON", "/nowhere/python3.12")
        monkeypatch.setattr(runtime, "run", run_but_no_install)
        with pytest.raises(ResourceError, match="A node needs Python"):
            LocalTarget().preflight(DeploySpec(name="Inst"), None)

    def test_it_is_fetched_once_nothing_that_costs_nothing_is_in_the_way(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtime, "find_python", lambda: pytest.fail("it may take minutes"))
        with listening() as port, pytest.raises(PreflightError, match="in use"):
            LocalTarget().preflight(DeploySpec(name="Inst", port=port), None)

    def test_nothing_in_the_way_makes_nothing(self, tmp_path: Path) -> None:
        LocalTarget().preflight(DeploySpec(name="Inst"), None)
        assert not (tmp_path / "home").exists()


def test_an_inner_port_is_free_on_the_loopback_whatever_the_node_is_bound_to() -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        # On the bound address it is free, but that is not where an inner service listens.
        chosen = allocate({"api": port, "ui": port}, {}, {}, "127.0.0.2", {}, inner=["api"])
    assert chosen["api"] != port
    assert chosen["ui"] == port


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is kept elsewhere")
def test_the_last_connections_of_a_node_that_has_ended_keep_its_port_from_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that the server's side closed first stay for a minute (TIME_WAIT)."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)) as person:
            server.accept()[0].close()
            assert person.recv(1) == b""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind((LOOPBACK, port))
    held: list[socket.socket] = []
    monkeypatch.setattr(ports, "_held", held)
    with ExitStack() as stack:
        assert hold(LOOPBACK, port)
        for kept in held:
            stack.enter_context(kept)
        assert not hold(LOOPBACK, port)


CHOOSER = """
import json, sys
from gridup_infra.targets.ports import allocate, hold
wanted = {"proxy": int(sys.argv[1]), "jupyter": int(sys.argv[1]) + 5}
print(json.dumps(allocate(wanted, {}, {}, "127.0.0.1", {}, hold=hold)), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets two sockets have one address")
def test_those_who_choose_at_once_in_other_homes_get_others_until_they_listen(tmp_path: Path) -> None:
    with listening() as first:
        pass
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", CHOOSER, str(first)],
                    env=Cli(tmp_path).env(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(6)
        ]
        chosen = [port for run in runs for port in json.loads(run.stdout.readline()).values()]  # type: ignore[union-attr]
        assert len(set(chosen)) == len(chosen)
        for port in chosen:
            # Each node's own program listens there while the port is kept for it, as servers do.
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
            assert not hold("127.0.0.1", port)
