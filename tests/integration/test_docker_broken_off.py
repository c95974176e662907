"""Deploys to Docker that are interrupted. Nothing is orphaned on the daemon, and the next run goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import language_host
from support.cli import Cli
from support.containers import Foreign, Things, ids, stack_id, volume_of
from support.deep import all_but
from support.docker_node import ONE_OF_EACH, Made
from support.interrupts import Held, all_end, below, interrupt, kill_run, locks
from support.plain_pulumi import Plain

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node]

DEPLOY = ("deploy", "--name", "Inst", "--cloud", "docker", "--no-wait")

OWNER, IMAGE, NETWORK, VOLUME, CREATED, CONTAINER = (
    "OwnerProvider.create",
    "ImageProvider.create",
    "NetworkProvider.create",
    "VolumeProvider.create",
    "Container.created",  # the daemon has made it, and nobody has started it
    "ContainerProvider.create",
)
STOPPED = "Container.stopped"
"""In a replacement: the former container is renamed and stopped, the new one not yet started."""

CHAINS = {
    "at one moment after the other": (OWNER, IMAGE, CREATED, CONTAINER),
    # These are made at the same time as the image: a run after them would not come by there again.
    "at the network": (NETWORK,),
    "at the volume": (VOLUME,),
}


@pytest.fixture(scope="module")
def things(docker_host: str) -> Things:
    return Things(docker_host)


@pytest.fixture(scope="module", autouse=True)
def foreign(things: Things) -> Iterator[Foreign]:
    """Somebody else's things on the daemon, untouched by all that happens here."""
    made = Foreign(things)
    yield made
    assert made.untouched()
    made.remove()


@pytest.fixture
def made(things: Things) -> Made:
    return Made(things)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_host.install(tmp_path_factory.mktemp("language host"))


def killed_at(cli: Cli, moment: str, tmp_path: Path, *words: str, providers: bool) -> None:
    """A deploy that was killed at `moment`."""
    held = Held(moment, tmp_path)
    run = cli.start(*DEPLOY, *words, env=held.env)
    held.wait(run)
    left = kill_run(run, providers=providers)
    # A provider that outlives its engine would go on making what no state knows of.
    all_end(left)
    held.release()
    assert locks(cli.home)


@pytest.mark.parametrize("chain", all_but(["at one moment after the other"], CHAINS))
def test_a_deploy_after_a_kill_makes_one_of_everything(
    docker_cli: Cli, made: Made, tmp_path: Path, chain: str
) -> None:
    for number, moment in enumerate(CHAINS[chain]):
        # The engine of a later run starts a provider that it asks nothing, and that then does not know of us:
        # left alone it would outlive the engine, though it makes nothing.
        killed_at(docker_cli, moment, tmp_path, providers=number > 0)
        # Of nothing more than one, ever.
        assert made.count() <= ONE_OF_EACH, moment
    docker_cli(*DEPLOY).ok()
    made.one_of_everything(docker_cli)
    assert locks(docker_cli.home) == []
    assert "Nothing changed" in docker_cli(*DEPLOY).ok().err
    docker_cli("destroy", "Inst", "--yes").ok()
    made.nothing_left(docker_cli)


@pytest.mark.parametrize("moment", [OWNER, IMAGE, NETWORK, VOLUME, CREATED, CONTAINER])
def test_destroy_after_a_kill_leaves_nothing(
    docker_cli: Cli, made: Made, tmp_path: Path, moment: str
) -> None:
    killed_at(docker_cli, moment, tmp_path, providers=True)
    docker_cli("destroy", "Inst", "--yes").ok()
    made.nothing_left(docker_cli)


@pytest.mark.parametrize("moment", all_but([CREATED], [IMAGE, NETWORK, CREATED, CONTAINER]))
def test_plain_destroy_after_a_kill_leaves_nothing(
    docker_cli: Cli, made: Made, host: Path, tmp_path: Path, moment: str
) -> None:
    killed_at(docker_cli, moment, tmp_path, providers=False)
    Plain(docker_cli, host)("destroy", "-s", "inst", "--yes").ok()
    made.nothing_left(docker_cli)
    assert docker_cli("env", "Inst").code == 6


@pytest.mark.tier("deep")
def test_a_replacement_that_was_killed_is_settled_by_the_next_deploy(
    docker_cli: Cli, made: Made, tmp_path: Path
) -> None:
    things = made.things
    docker_cli(*DEPLOY).ok()
    own = stack_id(docker_cli)
    volume, before = volume_of(things, own), ids(things, own)
    port = front_door(things, own)
    for number, asked in enumerate((port, port + 1700)):
        killed_at(docker_cli, STOPPED, tmp_path, "--port", str(port + 1700), providers=bool(number))
        assert made.count()["container"] == len(before) + 1
        # Back to where it was, and on to where it was going.
        docker_cli(*DEPLOY, "--port", str(asked)).ok()
        made.one_of_everything(docker_cli)
        assert front_door(things, own) == asked
        docker_cli("check", "Inst", "--wait").ok()
    assert volume_of(things, own) == volume
    after = ids(things, own)
    assert {service for service in after if after[service] != before[service]} == {"api", "proxy"}
    assert "Nothing changed" in docker_cli(*DEPLOY).ok().err


def front_door(things: Things, own: str) -> int:
    """The port of the proxy, as the daemon has it."""
    bindings = things.containers(own)["proxy"]["HostConfig"]["PortBindings"]
    return int(bindings["8080/tcp"][0]["HostPort"])


def test_a_deploy_under_way_keeps_others_out_and_one_ctrl_c_ends_it_in_order(
    docker_cli: Cli, made: Made, tmp_path: Path
) -> None:
    held = Held(CONTAINER, tmp_path)
    run = docker_cli.start(*DEPLOY, env=held.env)
    held.wait(run)
    for words in (DEPLOY, ("destroy", "Inst", "--yes")):
        refused = docker_cli(*words)
        assert refused.code == 1, refused
        line = next(line for line in refused.err.splitlines() if line.startswith("Error: "))
        assert re.search(rf'"Inst" is busy: a deploy by process {run.pid} since \d\d:\d\d:\d\d\.', line), line
        assert "--wait-lock" in refused.err
    children = below(run.pid)
    interrupt(run)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "Traceback" not in err
    exists = re.search(r"Stopped\. What exists of \"Inst\": ([^.;]*)[.;]", err)
    assert exists, err
    assert {"owner", "image", "network", "volume"} <= set(exists[1].split(", "))
    assert "`gridup destroy Inst`" in err
    all_end(children)
    assert locks(docker_cli.home) == []
    assert docker_cli("status", "--no-probe", "--json").ok().json[0]["name"] == "Inst"
    docker_cli(*DEPLOY).ok()
    made.one_of_everything(docker_cli)
