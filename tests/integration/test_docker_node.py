"""A real node of containers on a real Docker daemon, from launch to destroy, as its owner lives with it."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from gridup_infra.targets import docker as own_docker
from gridup_infra.targets.docker import nowhere
from gridup_infra.targets.docker.naming import networks as networks_of
from gridup_node.confines import LOG_LIMITS, limits
from gridup_node.containers import VOLUME_PATH
from gridup_node.image import BASE_IMAGE
from gridup_node.image import HERE as IMAGE
from gridup_node.services import folders
from gridup_node.services import service as table_row
from support import audits, cis_docker, language_host
from support.argvs import Argvs
from support.cli import Cli
from support.containers import (
    SERVICES,
    STACK_ID,
    URN,
    Foreign,
    Things,
    another_version,
    between_hidden,
    ids,
    stack_id,
    volume_of,
)
from support.deep import all_but
from support.docker_rig import Daemon
from support.local_node import HER, HERS, client, eventually, listening, mode, problems, settled
from support.plain_pulumi import Plain
from support.rotated import check_replaced, opened
from support.syft_client import SCRIPTS
from support.system import attempt, must
from support.workers import free_port

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node]

DOCKERFILE = IMAGE / "Dockerfile"

DEAF = ("--no-wait",)
"""Where only the containers matter, not that they answer."""

BOOM = """
if __name__ == "__main__":
    import sys

    sys.stderr.write("boom\\n")
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def things(docker_host: str) -> Things:
    return Things(docker_host)


@pytest.fixture(scope="module")
def foreign(things: Things) -> Iterator[Foreign]:
    """Somebody else's things on the daemon, untouched by all that happens here."""
    made = Foreign(things)
    yield made
    assert made.untouched()
    made.remove()


@pytest.fixture(scope="module")
def firewall() -> Iterator[bool]:
    """What a daemon that keeps the firewall does for a network whose containers are to be kept apart; whether
    it can be done here."""
    with between_hidden("DROP") as seen:
        yield seen


@pytest.fixture(scope="module")
def inst(module_docker_cli: Cli, foreign: Foreign, firewall: bool) -> Cli:
    """One node that the tests below share; each leaves it right. It is launched as the tutorial does."""
    words = ["Inst", "to", f"docker:{free_port()}", "--tag=latest", "--tail=false"]
    ended = module_docker_cli("launch", *words).ok()
    for row in ("host", "UI", "api", "ssh", "jupyter"):
        assert any(row in line and "✅" in line for line in ended.out.splitlines()), ended.out
    return module_docker_cli


@pytest.fixture
def own(docker_cli: Cli, things: Things) -> Iterator[Cli]:
    """For a test with a node of its own: afterwards the daemon has nothing of it."""
    before = {labels[STACK_ID] for _, labels in things.marked()}
    yield docker_cli
    docker_cli.destroy_all()
    left = [(what, labels) for what, labels in things.marked() if labels[STACK_ID] not in before]
    assert left == []


def name_prefix(cli: Cli) -> str:
    return f"gridup-inst-{stack_id(cli)[:8]}"


def ports_of(cli: Cli, name: str = "Inst") -> set[str]:
    """Of all its addresses; those of the UI and the api are one."""
    found = cli("outputs", name, "--json").ok().json
    urls = [value for key, value in found.items() if key.endswith(("_url", "_address"))]
    return {re.search(r":(\d+)(/|$)", url)[1] for url in urls}


def port_of(cli: Cli, name: str = "Inst") -> int:
    url = cli("outputs", name, "--json").ok().json["ui_url"]
    return int(re.search(r":(\d+)/", url)[1])


def test_the_same_deploy_again_changes_nothing(inst: Cli, things: Things) -> None:
    before = ids(things, stack_id(inst))
    assert sorted(before) == sorted(SERVICES)
    again = inst("deploy", "--name", "Inst").ok()
    assert "Nothing changed" in again.err
    assert ids(things, stack_id(inst)) == before
    assert inst("preview", "--name", "Inst").ok().out == "No change.\n"


def test_all_that_was_made_bears_the_stack_and_its_resource(inst: Cli, things: Things) -> None:
    made = things.marked(stack_id(inst))
    networks = ["network"] * len(networks_of(name_prefix(inst)))
    assert sorted(what for what, _ in made) == ["container"] * len(SERVICES) + ["image", *networks, "volume"]
    state = json.loads((inst.home / "state" / ".pulumi" / "stacks" / "gridup" / "inst.json").read_text())
    urns = {row["urn"] for row in state["checkpoint"]["latest"]["resources"]}
    assert {labels[URN] for _, labels in made} <= urns
    assert len({labels[URN] for _, labels in made}) == len(SERVICES) + 3


def test_only_what_people_connect_to_is_published_and_on_the_loopback_alone(
    inst: Cli, things: Things
) -> None:
    # Jupyter's port is the reverse proxy's, which passes on to it.
    doors = {"proxy": 2, "ssh": 1, "api": 0, "jobs": 0, "jupyter": 0}
    for service, one in things.containers(stack_id(inst)).items():
        bindings = [row for rows in (one["HostConfig"]["PortBindings"] or {}).values() for row in rows]
        assert [row["HostIp"] for row in bindings] == ["127.0.0.1"] * doors[service]
        assert one["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert one["HostConfig"]["CapDrop"] == ["ALL"]


def test_nothing_in_a_container_runs_as_root(inst: Cli) -> None:
    assert inst("ssh", "Inst", "--", "id", "-un").ok().out == "gridup\n"
    assert inst("ssh", "Inst", "--", "id", "-u").ok().out != "0\n"


def test_data_outlives_stop_and_start_a_new_image_and_the_daemon(
    inst: Cli, things: Things, docker_daemon: Daemon, tmp_path: Path
) -> None:
    identity, volume = stack_id(inst), volume_of(things, stack_id(inst))
    kept = inst("outputs", "Inst", "--show-secrets", "--json").ok().json

    inst("stop", "Inst").ok()
    assert inst("status", "Inst", "--json").ok().json[0]["state"] == "stopped"
    assert not listening(port_of(inst))
    inst("start", "Inst").ok()

    before = ids(things, identity)
    newer = another_version(tmp_path, facts="ANOTHER = 1")
    changed = inst("deploy", "--name", "Inst", env=newer).ok()
    assert "Nothing changed" not in changed.err
    after = ids(things, identity)
    assert not set(before.values()) & set(after.values())
    assert [what for what, _ in things.marked(identity)].count("image") == 1
    assert volume_of(things, identity) == volume

    docker_daemon.restart()
    inst("check", "Inst", "--wait").ok()
    assert ids(things, identity) == after
    assert inst("outputs", "Inst", "--show-secrets", "--json").ok().json == kept
    inst("deploy", "--name", "Inst").ok()


@pytest.mark.tier("deep")
def test_the_real_client_finds_all_of_it_after_a_new_image_and_the_daemons_restart(
    inst: Cli, things: Things, runtime: Path, docker_daemon: Daemon, tmp_path: Path
) -> None:
    seen = client(inst, runtime, "set_up.py", her=HER, hers=HERS)
    assert seen["stock"] == "SyftException"
    assert (seen["mock"], seen["data"]) == (300_000.0, "refused")
    inst("stop", "Inst").ok()
    inst("start", "Inst").ok()
    inst("deploy", "--name", "Inst", env=another_version(tmp_path, facts="ANOTHER = 1")).ok()
    docker_daemon.restart()
    inst("check", "Inst", "--wait").ok()
    kept = client(inst, runtime, "look_again.py", her=HER, hers=HERS, slow=seen["slow"])
    assert (kept["datasets"], kept["data"], kept["mock"]) == (["Census"], 600_000.0, 300_000.0)
    assert (kept["hers"], kept["job"]) == ("refused", 600_000.0)
    inst("deploy", "--name", "Inst").ok()
    remove_containers(things, stack_id(inst))
    inst("deploy", "--name", "Inst").ok()
    assert client(inst, runtime, "leave_dataset.py", look=True) == {"Census": 600_000.0}


@pytest.mark.tier("deep")
def test_a_change_of_port_keeps_name_volume_and_the_other_ports(inst: Cli, things: Things) -> None:
    identity = stack_id(inst)
    before, volume, port = things.containers(identity), volume_of(things, identity), free_port()
    inst("deploy", "--name", "Inst", "--port", str(port)).ok()
    after = things.containers(identity)
    assert port_of(inst) == port
    assert {one["Name"] for one in before.values()} == {one["Name"] for one in after.values()}
    assert volume_of(things, identity) == volume
    for service in ("jupyter", "ssh"):
        assert before[service]["Id"] == after[service]["Id"]
    inst("deploy", "--name", "Inst", "--port", str(port), "--admin-email", "it@inst.example").ok()
    last = things.containers(identity)
    assert sorted(last) == sorted(SERVICES)
    assert (after["proxy"]["Id"] == last["proxy"]["Id"], after["api"]["Id"] == last["api"]["Id"]) == (
        True,
        False,
    )
    assert inst("outputs", "Inst", "--json").json["admin_email"] == "it@inst.example"


def test_a_killed_program_comes_back_by_itself(inst: Cli, things: Things) -> None:
    identity = stack_id(inst)
    # As the kernel does when memory is short. A `docker kill` would be an order to stay away.
    for pid in (things.containers(identity)["proxy"]["State"]["Pid"],):
        psutil.Process(pid).kill()
    inst("check", "Inst", "--wait").ok()
    eventually(lambda: things.containers(identity)["proxy"]["RestartCount"] == 1)


def debug_command(things: Things, name: str, what: Callable[[docker.DockerClient, str], object]) -> None:
    with closing(things.client()) as one:
        what(one, name)


DRIFTS: dict[str, tuple[Callable[[docker.DockerClient, str], object], str]] = {
    "a removed container": (
        lambda one, name: one.api.remove_container(f"{name}-proxy", force=True),
        "-proxy is gone",
    ),
    "a stopped container": (
        lambda one, name: one.api.stop(f"{name}-jupyter", timeout=5),
        "jupyter: the container",
    ),
    "a paused container": (lambda one, name: one.api.pause(f"{name}-ssh"), "ssh: the container is paused"),
    "another restart policy": (
        lambda one, name: one.api.update_container(f"{name}-api", restart_policy={"Name": "no"}),
        "api: the restart policy was changed",
    ),
    "a cut connection": (
        lambda one, name: one.api.disconnect_container_from_network(f"{name}-api", name),
        "api: the container was taken off the node's network",
    ),
    "another image": (
        lambda one, name: one.api.tag(BASE_IMAGE, name, image_tag(one, name), force=True),
        "is another one",
    ),
}


def image_tag(one: docker.DockerClient, name: str) -> str:
    tags = [tag for image in one.api.images() for tag in image["RepoTags"] or ()]
    return next(tag for tag in tags if tag.startswith(f"{name}:")).partition(":")[2]


@pytest.mark.parametrize("what", all_but(["a removed container", "another image"], DRIFTS))
def test_drift_is_seen_and_repaired(inst: Cli, things: Things, what: str) -> None:
    damage, sign = DRIFTS[what]
    name = f"gridup-inst-{stack_id(inst)[:8]}"
    debug_command(things, name, damage)
    assert any(sign in problem for problem in problems(inst)), problems(inst)
    refreshed = inst("refresh", "Inst", "--json").ok().json
    assert refreshed["changes"]
    assert any(sign in problem for problem in refreshed["problems"]), refreshed
    assert inst("preview", "--name", "Inst", "--json").ok().json["changes"]
    inst("deploy", "--name", "Inst").ok()
    assert problems(inst) == []
    assert sorted(ids(things, stack_id(inst))) == sorted(SERVICES)


def remove_containers(things: Things, identity: str) -> None:
    with closing(things.client()) as one:
        for row in one.api.containers(all=True, filters={"label": f"{STACK_ID}={identity}"}):
            one.api.remove_container(row["Id"], force=True)


def test_containers_that_are_gone_are_made_anew_with_their_data(inst: Cli, things: Things) -> None:
    identity = stack_id(inst)
    volume = volume_of(things, identity)
    kept = inst("outputs", "Inst", "--show-secrets", "--json").ok().json
    remove_containers(things, identity)
    assert inst("status", "Inst", "--json").ok().json[0]["state"] == "missing"
    inst("deploy", "--name", "Inst").ok()
    assert volume_of(things, identity) == volume
    assert inst("outputs", "Inst", "--show-secrets", "--json").ok().json == kept


def tried(things: Things, container: str, *words: str, user: str = "") -> tuple[int, str]:
    """A command in a container: its exit code and what it wrote."""
    with closing(things.client()) as one:
        ended = one.containers.get(container).exec_run(list(words), user=user)
    return int(ended.exit_code), ended.output.decode()


def test_each_container_reads_the_folders_that_its_program_needs_and_no_others(
    inst: Cli, things: Things
) -> None:
    for service, one in things.containers(stack_id(inst)).items():
        for folder in folders():
            code, text = tried(things, one["Id"], "ls", "-A", f"{VOLUME_PATH}/{folder}")
            assert (code == 0) == (folder in table_row(service).folders), (service, folder, text)
    (jupyter, ssh) = (things.containers(stack_id(inst))[name]["Id"] for name in ("jupyter", "ssh"))
    assert tried(things, jupyter, "touch", f"{VOLUME_PATH}/notebooks/a.ipynb")[0] == 0
    assert tried(things, ssh, "ls", "/srv/node/data/notebooks") == (0, "a.ipynb\n")
    assert tried(things, ssh, "rm", "/srv/node/data/notebooks/a.ipynb")[0] == 0
    # What covers the others can't be taken away.
    assert tried(things, jupyter, "umount", f"{VOLUME_PATH}/secrets")[0] != 0
    assert tried(things, jupyter, "mv", f"{VOLUME_PATH}/secrets", f"{VOLUME_PATH}/mine")[0] != 0


def test_no_container_writes_to_its_root_or_takes_more_than_its_share(inst: Cli, things: Things) -> None:
    with closing(things.client()) as one:
        machine = one.api.info()
    for service, found in things.containers(stack_id(inst)).items():
        code, text = tried(things, found["Id"], "touch", "/etc/x", user="0")
        assert code != 0 and "Read-only file system" in text, (service, text)
        row, host = table_row(service), found["HostConfig"]
        wanted = limits({"memory": row.memory, "cpus": row.cpus, "pids": row.pids}, machine)
        assert host["Memory"] == wanted.get("mem_limit", 0)
        assert (host["PidsLimit"] or 0) == wanted.get("pids_limit", 0)
        assert host["LogConfig"]["Config"] == dict(LOG_LIMITS)


CIS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "cis_docker.json").read_text())


def test_it_keeps_the_rows_of_the_cis_benchmark_but_for_those_that_are_explained(
    inst: Cli, things: Things
) -> None:
    found = things.containers(stack_id(inst))
    code = "".join(path.read_text() for path in sorted(Path(own_docker.__file__).parent.glob("*.py")))
    with closing(things.client()) as one:
        name = found["api"]["Config"]["Image"]
        image, history = one.api.inspect_image(name), tuple(one.api.history(name))
        node = cis_docker.Node(found, image, history, one.api.info(), DOCKERFILE.read_text(), code)
    assert cis_docker.findings(node) == {row["row"]: row["where"] for row in CIS if row["reason"]}
    # As the image is, not as it was to be made.
    look = "find / -xdev -type f -perm /6000 2>/dev/null; echo looked"
    assert tried(things, found["api"]["Id"], "sh", "-c", look)[1] == "looked\n"


def test_what_ssh_audit_finds_is_explained(inst: Cli) -> None:
    port = int(inst("outputs", "Inst", "--json").ok().json["ssh_address"].rpartition(":")[2])
    assert audits.ssh("127.0.0.1", port) == audits.explained(audits.SSH)


CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


def connects(things: Things, container: str, host: str, port: int) -> bool:
    """Whether a program in a container reaches a host."""
    return tried(things, container, "python", "-c", CONNECT, host, str(port))[0] == 0


@pytest.fixture
def outside() -> Iterator[tuple[str, int]]:
    """What is outside of every node: a program that listens on all addresses of this machine."""
    with socket.create_server(("0.0.0.0", 0), backlog=20) as listener:
        yield outer_address(), listener.getsockname()[1]


def outer_address() -> str:
    """This machine's address on the way to others; no container's network has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def test_a_notebook_reaches_the_front_door_and_nobody_else(
    inst: Cli, things: Things, outside: tuple[str, int]
) -> None:
    found = things.containers(stack_id(inst))
    jupyter, ssh = found["jupyter"]["Id"], found["ssh"]["Id"]
    assert connects(things, jupyter, "proxy", 18080)
    address = found["api"]["NetworkSettings"]["Networks"][name_prefix(inst)]["IPAddress"]
    assert connects(things, found["proxy"]["Id"], address, 18080)
    for service, host in [(one, host) for one in (jupyter, ssh) for host in ("api", address)]:
        assert not connects(things, service, host, 18080)
    assert {name: connects(things, one["Id"], *outside) for name, one in found.items()} == {
        "proxy": True,
        "api": True,
        "ssh": True,
        "jobs": False,
        "jupyter": False,
    }
    # Neither a name server, nor the machine itself on their network.
    name = [jupyter, "python", "-c", "import socket; socket.gethostbyname('example.org')"]
    assert tried(things, *name)[0] != 0
    with closing(things.client()) as one:
        (pool,) = one.api.inspect_network(f"{name_prefix(inst)}-jupyter")["IPAM"]["Config"]
    assert not connects(things, jupyter, pool["Gateway"], outside[1])


GIB = 1 << 30

ATTACKS = {
    "secret": "return open('/var/lib/gridup/secrets/server_key').read()",
    "data": "import os\nreturn os.listdir('/var/lib/gridup/data')",
    "socket": "import socket\nsocket.create_connection(('proxy', 18080))",
    "metadata": "import urllib.request\nurllib.request.urlopen('http://169.254.169.254/')",
    "fork": "import os\nwhile True: os.fork()",
    "parent": "import os\nos.kill(os.getppid(), 9)",
    "all": "import os\nos.kill(-1, 9)",
    "endless": "while True: pass",
    "giant": "return [0] * 3_000_000",
    "evil": "class Evil:\n    def __reduce__(self): return (print, ('ran',))\nreturn Evil()",
    "leaves": "import threading, time\nopen('left', 'w').write('x')\n"
    "threading.Thread(target=time.sleep, args=(600,)).start()\nreturn 1",
    "environment": "import os\nreturn sorted(os.environ)",
}


def test_code_has_a_container_without_a_network_and_gets_nowhere_in_it(inst: Cli, things: Things) -> None:
    jobs = things.containers(stack_id(inst))["jobs"]
    with closing(things.client()) as one:
        machine = one.api.info()
        if machine.get("MemoryLimit"):
            # Less than its share of this machine: it is all going to be used.
            one.api.update_container(jobs["Id"], mem_limit=GIB, memswap_limit=GIB)
            one.api.restart(jobs["Id"])
    eventually(lambda: tried(things, jobs["Id"], "python", "-m", "gridup_node.health")[0] == 0)
    found = things.containers(stack_id(inst))
    jobs = found["jobs"]
    assert (jobs["HostConfig"]["NetworkMode"], list(jobs["NetworkSettings"]["Networks"])) == (
        "none",
        ["none"],
    )
    interfaces = tried(things, jobs["Id"], "cat", "/proc/net/dev")[1]
    assert interfaces.count(":") == 1, interfaces
    script = (SCRIPTS / "from_the_api.py").read_text()
    front, ready = port_of(inst), []
    done = threading.Event()

    def look() -> None:
        # A stranger may ask no more often.
        while not done.wait(1):
            with urllib.request.urlopen(f"http://127.0.0.1:{front}/login", timeout=60) as answer:
                ready.append(answer.status)

    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        try:
            code, text = tried(things, found["api"]["Id"], "python", "-c", script, json.dumps(ATTACKS))
        finally:
            done.set()
        looking.result()
    assert code == 0, text
    told = json.loads(text.splitlines()[-1])
    assert told["look"]["means"][0] == "container" and "seccomp" in told["look"]["means"]
    reasons = {name: told[name][0] for name in ATTACKS}
    assert reasons == {
        **dict.fromkeys(("secret", "data"), "files"),
        **dict.fromkeys(("socket", "metadata"), "network"),
        **dict.fromkeys(("fork", "parent", "all"), "system"),
        "endless": "time",
        **dict.fromkeys(("giant", "evil"), "result"),
        **dict.fromkeys(("leaves", "environment"), "returned"),
    }
    assert not {name for name in told["environment"][1] if name.startswith("GRIDUP")}
    assert told["hungry"][0] == "memory"
    assert told["after"] == ["returned", []]
    assert set(ready) == {200}
    # It died alone: neither the service nor any other container was ended.
    after = things.containers(stack_id(inst))
    for name, one in after.items():
        assert one["State"]["StartedAt"] == found[name]["State"]["StartedAt"], name
        assert not one["State"]["OOMKilled"] or name == "jobs", name
    processes = tried(things, jobs["Id"], "sh", "-c", "ls -d /proc/[0-9]* | wc -l")[1]
    # init, the service, this look, and maybe a health check.
    assert int(processes) <= 8, processes

    if machine.get("MemoryLimit"):
        assert told["look"]["memory"] < GIB
        made = limits({"memory": table_row("jobs").memory, "cpus": 1, "pids": 1}, machine)["mem_limit"]
        with closing(things.client()) as one:
            one.api.update_container(jobs["Id"], mem_limit=made, memswap_limit=made)
            one.api.restart(jobs["Id"])
        eventually(lambda: tried(things, jobs["Id"], "python", "-m", "gridup_node.health")[0] == 0)


def test_check_says_what_keeps_code_in(inst: Cli) -> None:
    (found,) = inst("check", "Inst", "--json", "--wait").ok().json
    jobs = next(row for row in found["endpoints"] if row["service"] == "jobs")
    assert (jobs["state"], jobs["note"].split(", ")[0]) == ("up", "container")


def test_notebooks_are_let_out_where_it_is_asked_for(
    inst: Cli, things: Things, outside: tuple[str, int]
) -> None:
    def let_out() -> bool:
        return connects(things, things.containers(stack_id(inst))["jupyter"]["Id"], *outside)

    before = ids(things, stack_id(inst))
    inst("deploy", "--name", "Inst", "--allow-egress").ok()
    after = ids(things, stack_id(inst))
    assert {name for name in after if after[name] != before[name]} == {"jupyter"}
    assert let_out()
    inst("deploy", "--name", "Inst", "--no-allow-egress").ok()
    assert not let_out()


def test_a_node_of_an_earlier_version_comes_up_with_its_data(inst: Cli, things: Things) -> None:
    identity = stack_id(inst)
    volume = volume_of(things, identity)
    kept = inst("outputs", "Inst", "--show-secrets", "--json").ok().json
    image = next(iter(things.containers(identity).values()))["Image"]
    remove_containers(things, identity)
    # As it was laid before each container had folders of its own.
    laid = """cd /var/lib/gridup && rm data/notebooks secrets/jupyter_token
        mv notebooks data/notebooks && mv token/jupyter_token secrets/ && rmdir token
        echo mine >data/notebooks/a.ipynb"""
    with closing(things.client()) as one:
        one.containers.run(
            image, ["-c", laid], entrypoint="sh", remove=True, volumes=[f"{volume}:{VOLUME_PATH}"]
        )
    inst("deploy", "--name", "Inst").ok()
    assert inst("outputs", "Inst", "--show-secrets", "--json").ok().json == kept
    jupyter = things.containers(identity)["jupyter"]["Id"]
    assert tried(things, jupyter, "cat", "/srv/node/data/notebooks/a.ipynb") == (0, "mine\n")
    assert inst("check", "Inst", "--wait").ok()


def test_ssh_runs_commands_and_leaves_the_persons_files_alone(inst: Cli, tmp_path: Path) -> None:
    person = tmp_path / "a b"
    (person / ".ssh").mkdir(parents=True)
    known = person / ".ssh" / "known_hosts"
    known.write_text("example.org ssh-ed25519 AAAA\n")
    env = {"HOME": str(person)}
    assert inst("ssh", "--name", "Inst", "--", "sh", "-c", "exit 7", env=env).code == 7
    whole = inst("ssh", "Inst", "--", "printf", "%s|", "a  b", "c'd", "$HOME", env=env).ok()
    assert whole.out == "a  b|c'd|$HOME|"
    assert known.read_text() == "example.org ssh-ed25519 AAAA\n"
    keys = inst.home / "stacks" / "inst" / "keys"
    assert (mode(keys), mode(keys / "client_ed25519")) == (0o700, 0o600)


def test_logs_show_one_service_or_all_and_follow(inst: Cli) -> None:
    assert "Jupyter Server" in inst("logs", "Inst", "jupyter", "--lines", "100").ok().out
    every = inst("logs", "Inst", "--json").ok().json
    assert {"api", "jupyter"} <= {row["service"] for row in every}
    assert "It has: proxy, api" in inst("logs", "Inst", "nope").err
    following = inst.start("logs", "Inst", "ssh", "-f", "--lines", "1")
    try:
        # It has logged something since its start. Once the last line is here, it is followed.
        assert following.stdout is not None and following.stdout.readline()
        inst("ssh", "Inst", "--", "true").ok()
        assert any("Accepted publickey" in line for line in following.stdout)
    finally:
        following.terminate()
        following.communicate(timeout=20)


def test_every_secret_is_replaced(inst: Cli, tmp_path: Path) -> None:
    with opened(inst, tmp_path, keys=inst.home / "stacks/inst/keys", tls=False) as before:
        inst("rotate", "Inst", "--yes").ok()
        check_replaced(before)


@pytest.mark.tier("deep")
def test_the_real_client_finds_all_of_it_after_every_secret_was_replaced(
    own: Cli, runtime: Path, tmp_path: Path
) -> None:
    own.deploy("Inst", "--cloud", "docker")
    with opened(own, tmp_path, keys=own.home / "stacks/inst/keys", tls=False, runtime=runtime) as before:
        own("rotate", "Inst", "--yes", "--lock").ok()
        check_replaced(before, locked=True)


def test_a_given_password_is_set_and_shows_nowhere(
    inst: Cli, things: Things, runtime: Path, tmp_path: Path
) -> None:
    secret = "S3cret!x9Qz"
    file = tmp_path / "password"
    file.write_text(secret + "\n")
    with Argvs() as seen:
        ended = inst("deploy", "--name", "Inst", "--admin-password-file", str(file), "-v").ok()
    out, err = ended.out, ended.err
    everything = json.dumps(list(things.containers(stack_id(inst)).values()))
    logs = inst("logs", "Inst", "--lines", "1000").ok().out
    assert not any(secret in text for text in (*seen.lines, out, err, everything, logs))
    masked = inst("outputs", "Inst").ok()
    assert secret not in masked.out and "[secret]" in masked.out
    assert inst("outputs", "Inst", "--show-secrets", "--json").ok().json["admin_password"] == secret
    holders = [
        path
        for path in inst.home.rglob("*")
        if path.is_file() and "runtimes" not in path.parts and secret.encode() in path.read_bytes()
    ]
    assert holders == []
    assert client(inst, runtime, "sign_in.py", tries=[secret, "changethis"]) == [True, False]


def test_no_secret_is_in_what_the_daemon_tells(inst: Cli, things: Things) -> None:
    found = inst("outputs", "Inst", "--show-secrets", "--json").ok().json
    told = json.dumps([list(things.containers(stack_id(inst)).values()), things.marked()])
    for name in ("admin_password", "jupyter_token"):
        assert found[name] and found[name] not in told


def test_a_new_version_that_fails_gives_way_to_the_old_one(inst: Cli, things: Things, tmp_path: Path) -> None:
    identity = stack_id(inst)
    before, volume = ids(things, identity), volume_of(things, identity)
    failed = inst("deploy", "--name", "Inst", env=another_version(tmp_path, entrypoint=BOOM))
    assert failed.code == 4, failed
    assert "exit 3" in failed.err and "boom" in failed.err
    assert "The former one runs again" in failed.err
    assert "Traceback" not in failed.err
    assert ids(things, identity) == before
    inst("check", "Inst", "--wait").ok()
    inst("deploy", "--name", "Inst").ok()
    assert (volume_of(things, identity), problems(inst)) == (volume, [])
    assert [what for what, _ in things.marked(identity)].count("image") == 1


@pytest.mark.tier("deep")
def test_a_node_that_cannot_start_ends_the_deploy_early_and_the_corrected_one_works(
    own: Cli, tmp_path: Path
) -> None:
    broken = another_version(tmp_path, entrypoint=BOOM)
    failed = own("deploy", "--name", "Boom", "--cloud", "docker", env=broken)
    assert failed.code == 4, failed
    assert "exit 3" in failed.err and "boom" in failed.err
    # It ends by what the container says, long before its time is over.
    checked = own("check", "Boom", "--wait", "--timeout", "3600", timeout=120)
    assert checked.code == 10
    assert "exit 3" in checked.err and "boom" in checked.err
    own("deploy", "--name", "Boom").ok()


def test_a_base_image_that_is_none_is_one_error_and_in_nobodys_way(own: Cli) -> None:
    wrong = {"GRIDUP_BASE_IMAGE": "inst.invalid/no-such-python:3.11"}
    failed = own("deploy", "--name", "Other base", "--cloud", "docker", *DEAF, env=wrong)
    assert failed.code == 4, failed
    assert "image" in failed.err and "GRIDUP_BASE_IMAGE" in failed.err
    assert "Traceback" not in failed.err
    own("deploy", "--name", "Other base", *DEAF, env={"GRIDUP_BASE_IMAGE": BASE_IMAGE}).ok()


METADATA, WIRE = "169.254.77.77", "168.63.129.77"
"""In the place of 169.254.169.254 and 168.63.129.16, which the machine that runs this may need itself."""


def answers(things: Things, container: str) -> bool:
    """Whether a program can be run in a container."""
    with contextlib.suppress(docker.errors.APIError):
        return tried(things, container, "true")[0] == 0
    return False


@contextmanager
def servers(*hosts: str) -> Iterator[int]:
    """This machine listens there, at one port; what of it is no address of its, is for that time."""
    port = free_port()
    with ExitStack() as stack:
        for host in hosts:
            if host in (METADATA, WIRE):
                must("ip", "address", "replace", f"{host}/32", "dev", "lo")
                stack.callback(attempt, "ip", "address", "delete", f"{host}/32", "dev", "lo")
            stack.enter_context(socket.create_server((host, port), backlog=50))
        yield port


@contextmanager
def closing_of(other: Foreign) -> Iterator[Foreign]:
    """Somebody else's things for as long as the block lasts."""
    try:
        yield other
    finally:
        other.remove()


def once_it_runs(look: Callable[[], bool]) -> bool:
    """What is seen in a container that may be started once more meanwhile, as the daemon does with one that
    ends."""
    found: list[bool] = []

    def seen() -> bool:
        with contextlib.suppress(docker.errors.APIError):
            found.append(look())
        return bool(found)

    eventually(seen)
    return found[0]


def test_no_container_reaches_the_metadata_service_not_even_once_it_was_restarted(
    inst: Cli, things: Things, firewall: bool
) -> None:
    if not firewall:
        pytest.skip("the kernel shows no firewall what passes between containers (br_netfilter)")
    project = name_prefix(inst)
    hidden = [ipaddress.ip_network(network) for network in nowhere.HIDDEN.values()]
    for real in ("169.254.169.254", "169.254.169.123", "168.63.129.16"):
        assert any(ipaddress.ip_address(real) in network for network in hidden)
    outer = outer_address()
    with servers(METADATA, WIRE, outer) as port, closing_of(Foreign(things, "not-hidden")) as other:
        assert connects(things, other.name, METADATA, port) and connects(things, other.name, WIRE, port)
        for again in (False, True):
            for service in SERVICES:
                name = f"{project}-{service}"
                if again:
                    with closing(things.client()) as one:
                        one.containers.get(name).restart(timeout=20)
                    eventually(lambda name=name: answers(things, name))
                for hidden_host in (METADATA, WIRE):
                    assert not once_it_runs(
                        lambda name=name, host=hidden_host: connects(things, name, host, port)
                    )
        # There is a way out all the same.
        for service in ("proxy", "api", "ssh"):
            assert once_it_runs(lambda service=service: connects(things, f"{project}-{service}", outer, port))
    inst("check", "Inst", "--wait").ok()
    # What is shared with other nodes leads to none of their containers, nor to this one's.
    for network in nowhere.HIDDEN:
        api = things.containers(stack_id(inst))["api"]["NetworkSettings"]["Networks"][network]["IPAddress"]
        assert not connects(things, f"{project}-ssh", api, 18080)
    # fd00:ec2::254 is IPv6, of which there is none beyond the container itself.
    for service in SERVICES:
        _, text = tried(things, f"{project}-{service}", "cat", "/proc/net/if_inet6")
        assert {line.split()[-1] for line in text.splitlines() if not line.startswith("fe80")} <= {"lo"}
    assert settled(inst)["notes"] == []


def test_a_container_that_is_taken_out_of_it_is_seen_and_put_back(
    inst: Cli, things: Things, firewall: bool
) -> None:
    if not firewall:
        pytest.skip("the kernel shows no firewall what passes between containers (br_netfilter)")
    name = f"{name_prefix(inst)}-api"
    with closing(things.client()) as one:
        one.networks.get("gridup-nowhere-link-local").disconnect(name)
    assert "taken off the node's network" in inst("status", "Inst").out
    inst("deploy", "--name", "Inst").ok()
    with closing(things.client()) as one:
        assert "gridup-nowhere-link-local" in one.containers.get(name).attrs["NetworkSettings"]["Networks"]


@pytest.mark.tier("deep")
def test_a_second_node_takes_ports_of_its_own(own: Cli, inst: Cli, things: Things) -> None:
    # The same name in another GRIDUP_HOME, as a colleague's on the same daemon.
    own("deploy", "--name", "Inst", "--cloud", "docker", "--type", "network").ok()
    mine, other = ports_of(inst), ports_of(own)
    assert not mine & other
    assert stack_id(own) != stack_id(inst)
    before = ids(things, stack_id(inst))
    own("destroy", "Inst", "--yes").ok()
    assert ids(things, stack_id(inst)) == before
    inst("check", "Inst", "--wait").ok()


def test_a_port_that_is_taken_is_refused_by_whom(own: Cli, inst: Cli, things: Things) -> None:
    taken = own("deploy", "--name", "Other", "--cloud", "docker", "--port", str(port_of(inst)))
    assert taken.code == 1
    name = f"gridup-inst-{stack_id(inst)[:8]}-proxy"
    assert f"Port {port_of(inst)} is kept by " in taken.err
    assert name in taken.err or 'the node "Inst"' in taken.err
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = own("deploy", "--name", "Other", "--cloud", "docker", "--port", str(port))
    assert taken.code == 1
    assert f"Port {port} of 127.0.0.1 is in use by python" in taken.err
    assert own("status", "--json").ok().json == []


@pytest.mark.tier("deep")
def test_a_port_lost_to_somebody_else_is_chosen_anew(own: Cli) -> None:
    own("deploy", "--name", "Lost", "--cloud", "docker", *DEAF).ok()
    port = port_of(own, "Lost")
    own("stop", "Lost").ok()
    with socket.create_server(("127.0.0.1", port)):
        refused = own("start", "Lost")
        assert refused.code == 4
        assert f"Port {port}" in refused.err and "python" in refused.err
        own("deploy", "--name", "Lost", *DEAF).ok()
        assert port_of(own, "Lost") != port


def test_destroy_without_a_terminal_deletes_nothing(inst: Cli) -> None:
    refused = inst("destroy", "--name", "Inst")
    assert refused.code == 2
    assert "--yes" in refused.err
    inst("check", "Inst", "--wait").ok()


def test_a_daemon_that_is_another_one_is_not_taken_for_the_nodes(inst: Cli, tmp_path: Path) -> None:
    gone = {"DOCKER_HOST": f"unix://{tmp_path}/nope"}
    # What is remembered counts for looking; a deploy with another DOCKER_HOST is about that one.
    inst("status", "Inst", env=gone).ok()
    refused = inst("deploy", "--name", "Inst", env=gone)
    assert refused.code == 1
    assert "Docker is not running" in refused.err
    inst("check", "Inst", "--wait").ok()


@pytest.mark.tier("deep")
def test_kept_data_is_found_by_the_next_node_again_and_again(own: Cli, things: Things, runtime: Path) -> None:
    own.deploy("Kept", "--cloud", "docker", "--keep-data")
    volume = volume_of(things, stack_id(own, "kept"))
    left = client(own, runtime, "leave_dataset.py", name="Kept")
    gone = own("destroy", "Kept", "--yes").ok()
    assert "keeps" in gone.err and "--keep-data" in gone.err
    refused = own("deploy", "--name", "Kept", "--cloud", "docker", "--yes")
    assert refused.code == 2
    assert f"the volume {volume}" in refused.err and "--adopt" in refused.err
    own.deploy("Kept", "--cloud", "docker", "--keep-data", "--adopt")
    assert volume_of(things, stack_id(own, "kept")) == volume
    assert client(own, runtime, "leave_dataset.py", name="Kept", look=True) == left == {"Census": 600_000.0}
    own("destroy", "Kept", "--yes").ok()
    # Waited for: one that has not been healthy leaves them.
    own.deploy("Kept", "--cloud", "docker", "--no-keep-data", "--adopt")
    assert volume_of(things, stack_id(own, "kept")) == volume
    own("destroy", "Kept", "--yes").ok()
    with closing(things.client()) as one:
        assert [row["Name"] for row in one.api.volumes()["Volumes"] or () if "kept" in row["Name"]] == []


def test_plain_pulumi_sees_no_change_and_destroys_from_anywhere(
    own: Cli, things: Things, tmp_path: Path
) -> None:
    plain = Plain(own, language_host.install(tmp_path / "language host"))
    own("deploy", "--name", "Plain", "--cloud", "docker", *DEAF).ok()
    identity = stack_id(own, "plain")
    seen = plain("preview", "-s", "plain", "--refresh", "--expect-no-changes", name="Plain").ok()
    assert "10 unchanged" in seen.out, seen.out
    elsewhere = tmp_path / "else where"
    (elsewhere / "any").mkdir(parents=True)
    (elsewhere / "Pulumi.yaml").write_text("name: gridup\nruntime: python\nmain: any/\n")
    plain("destroy", "-s", "plain", "--yes", name="Plain", cwd=elsewhere).ok()
    assert things.marked(identity) == []
    assert own("status", "--json").ok().json == []


@pytest.mark.tier("deep")
def test_bind_opens_the_node_to_that_address_alone(own: Cli, things: Things) -> None:
    own.deploy("Bound", "--cloud", "docker", "--bind", "127.0.0.2")
    for one in things.containers(stack_id(own, "bound")).values():
        for rows in (one["HostConfig"]["PortBindings"] or {}).values():
            assert [row["HostIp"] for row in rows] == ["127.0.0.2"]
    assert "http://127.0.0.2:" in own("check", "Bound", "--wait").ok().out


def test_unused_images_are_pruned_and_used_ones_are_not(inst: Cli, things: Things) -> None:
    def shared() -> set[str]:
        with closing(things.client()) as one:
            tags = [tag for image in one.api.images() for tag in image["RepoTags"] or ()]
        return {tag for tag in tags if tag.startswith("gridup-node:")}

    used = things.containers(stack_id(inst))["api"]["Config"]["Image"].partition(":")[2]
    removed = inst("prune", "--yes", "--json").ok().json["removed"]
    assert shared() == {f"gridup-node:{used}"}
    assert f"image gridup-node:{used}" not in removed
    inst("check", "Inst", "--wait").ok()


def test_doctor_tells_of_the_daemon(inst: Cli) -> None:
    rows = inst("doctor", "--json").ok().json
    assert next(row for row in rows if row["name"] == "Docker")["ok"] is True


def test_destroy_leaves_nothing_of_ours_and_all_of_others(
    inst: Cli, things: Things, foreign: Foreign
) -> None:
    identity = stack_id(inst)
    port = port_of(inst)
    ended = inst("destroy", "Inst", "--yes").ok()
    assert "volume" in ended.err
    assert things.marked(identity) == []
    with closing(things.client()) as one:
        assert [row.name for row in one.networks.list() if "nowhere" in row.name] == []
    assert not listening(port)
    assert foreign.untouched()
    assert inst("status", "--json").ok().json == []
    shown = subprocess.run(["ls", inst.home / "stacks"], capture_output=True, text=True, check=True).stdout
    assert "inst" not in shown
