"""A real node on a real daemon behind a real sshd, by the real command line."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from urllib3.exceptions import ProtocolError

from gridup_infra.errors import ResourceError
from gridup_infra.targets.docker.client import connected
from gridup_infra.targets.docker.tunnel import tunnel_to
from gridup_node.image import BASE_IMAGE
from support.cli import Cli
from support.containers import Things, stack_id
from support.deep import deep
from support.interrupts import Held, all_end, kill_run
from support.local_node import eventually, problems, settled
from support.ssh_rig import ELSEWHERE, Machine

pytestmark = [
    pytest.mark.tier("gate"),
    pytest.mark.engine,
    pytest.mark.node,
    # Docker's SDK leaves the socket of an attempt that fails to the collector, and here they fail on purpose.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture
def machine(tmp_path: Path, docker_host: str) -> Iterator[Machine]:
    """The machine that the daemon is on, behind ssh; no tunnel is left to it."""
    with Machine(tmp_path / "machine") as made:
        yield made
        # Now, and not in the middle of somebody else's test.
        gc.collect()
        assert made.nothing_runs()


@pytest.fixture
def far(cli: Cli, machine: Machine, docker_host: str) -> Iterator[Cli]:
    """A command line whose DOCKER_HOST is that machine; nothing of its nodes is left on the daemon."""
    path = urlsplit(docker_host).path
    cli.environment |= {"PATH": machine.path, "DOCKER_HOST": f"ssh://machine{path}"}
    yield cli
    # The daemon is reached by this way also where a test failed.
    cli.destroy_all()


def test_the_whole_life_of_a_node(far: Cli, machine: Machine, docker_host: str) -> None:
    far("deploy", "--name", "Tunnel", "--cloud", "docker").ok()
    assert machine.nothing_runs()
    identity = stack_id(far, "tunnel")
    row = settled(far, "Tunnel")
    assert row["problems"] == []
    far("check", "Tunnel", "--wait").ok()
    assert "gridup" in far("ssh", "Tunnel", "--", "id", "-un").ok().out
    assert "Jupyter Server" in far("logs", "Tunnel", "jupyter", "--lines", "100").ok().out
    assert far("outputs", "Tunnel", "--show-secrets", "--json").ok().json["admin_password"]
    assert "Nothing changed" in far("deploy", "--name", "Tunnel").ok().err

    # What the commands before have started has ended.
    assert machine.nothing_runs()
    following = far.start("logs", "Tunnel", "jupyter", "-f", "--lines", "5")
    assert following.stdout is not None and following.stdout.readline()
    (ssh,) = machine.clients()
    ssh.kill()
    following.communicate(timeout=30)
    assert problems(far, "Tunnel") == []

    # Found again whatever DOCKER_HOST is by then.
    far.environment.pop("DOCKER_HOST")
    far("stop", "Tunnel").ok()
    far("start", "Tunnel").ok()
    far("destroy", "Tunnel", "--yes").ok()
    assert Things(docker_host).marked(identity) == []


@pytest.mark.tier("deep")
def test_a_machine_elsewhere_and_a_tunnel_that_breaks_in_the_middle(
    far: Cli, machine: Machine, docker_host: str, tmp_path: Path
) -> None:
    far.environment["DOCKER_HOST"] = far.environment["DOCKER_HOST"].replace("machine", "elsewhere")
    deploy = ("deploy", "--name", "Tunnel Two", "--cloud", "docker")
    refused = far(*deploy)
    assert refused.code == 1
    assert "is elsewhere: its 127.0.0.1 can't be reached from here" in refused.err

    held = Held("NetworkProvider.create", tmp_path)
    run = far.start(*deploy, "--bind", ELSEWHERE, "--plain-http", env=held.env)
    held.wait(run)
    things, identity = Things(docker_host), stack_id(far, "tunnel-two")
    # What is under way when it breaks fails, as the test below shows: here nothing is.
    eventually(lambda: "image" in [what for what, _ in things.marked(identity)], 300)
    time.sleep(2)
    clients = machine.clients()
    assert clients
    for ssh in clients:
        ssh.kill()
    held.release()
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, (out, err)
    outputs = far("outputs", "Tunnel Two", "--json").ok().json
    assert outputs["ui_url"].startswith(f"http://{ELSEWHERE}:") or outputs["ui_url"].endswith(ELSEWHERE)
    far("check", "Tunnel Two", "--wait").ok()
    assert "uid=" in far("ssh", "Tunnel Two", "--", "id").ok().out
    far("destroy", "Tunnel Two", "--yes").ok()


@pytest.mark.parametrize("providers", [deep(False), True])
def test_a_killed_deploy_leaves_no_ssh_and_the_next_run_goes_on(
    far: Cli, machine: Machine, docker_host: str, tmp_path: Path, providers: bool
) -> None:
    held = Held("VolumeProvider.create", tmp_path)
    run = far.start("deploy", "--name", "Tunnel", "--cloud", "docker", "--no-wait", env=held.env)
    held.wait(run)
    assert machine.clients() and machine.guards()
    all_end(kill_run(run, providers=providers))
    assert machine.nothing_runs()
    identity = stack_id(far, "tunnel")
    things = Things(docker_host)
    assert things.marked(identity)
    far("destroy", "Tunnel", "--yes").ok()
    assert things.marked(identity) == []


def test_all_calls_of_a_process_go_through_one_tunnel(
    machine: Machine, docker_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine.path)
    host = f"ssh://machine{urlsplit(docker_host).path}"

    def daemon(_: int) -> str:
        with connected(host) as client:
            return str(client.info()["ID"])

    try:
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(daemon, range(24)))) == 1
        (ssh,) = machine.clients()
        ssh.kill()
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(daemon, range(24)))) == 1
        assert len(machine.clients()) == 1
    finally:
        tunnel_to(host).close()


def test_a_call_that_the_tunnel_breaks_under_is_one_error_and_the_next_call_works(
    machine: Machine, docker_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", machine.path)
    host = f"ssh://machine{urlsplit(docker_host).path}"
    with closing(Things(docker_host).client()) as direct:
        sleeper = direct.containers.run(
            BASE_IMAGE, ["sleep", "300"], detach=True, init=True, network_mode="none"
        )
        try:
            with pytest.raises(ResourceError, match="broke off") as caught, connected(host) as client:
                (ssh,) = machine.clients()
                threading.Timer(1, ssh.kill).start()
                client.api.wait(sleeper.id)
            assert "same command again" in caught.value.suggestion
            with connected(host) as client:
                assert client.api.inspect_container(sleeper.id)["State"]["Running"]
            # So the SDK ends a build that breaks off.
            with pytest.raises(ResourceError, match="broke off"), connected(host):
                raise ProtocolError("Connection broken")
        finally:
            tunnel_to(host).close()
            sleeper.remove(force=True)


def test_doctor_tells_of_the_daemon_and_of_the_way_to_it(far: Cli, machine: Machine) -> None:
    def docker() -> dict[str, object]:
        rows: list[dict[str, object]] = far("doctor", "--json").json
        return next(row for row in rows if row["name"] == "Docker")

    assert docker()["ok"] is True
    machine.stop()
    assert "Connection refused" in str(docker())
