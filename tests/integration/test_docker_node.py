"""A real node of containers on a real Docker daemon, from launch to destroy, as its owner lives with it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import psutil
import pytest

from gridup_node.image import BASE_IMAGE
from support import language_host
from support.argvs import Argvs
from support.cli import Cli
from support.containers import (
    SERVICES,
    STACK_ID,
    URN,
    Foreign,
    Things,
    another_version,
    ids,
    stack_id,
    volume_of,
)
from support.deep import all_but
from support.docker_rig import Daemon
from support.local_node import HER, HERS, client, eventually, listening, mode, problems
from support.plain_pulumi import Plain
from support.workers import free_port

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine, pytest.mark.node]

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
def inst(module_docker_cli: Cli, foreign: Foreign) -> Cli:
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
    assert sorted(what for what, _ in made) == ["container"] * 4 + ["image", "network", "volume"]
    state = json.loads((inst.home / "state" / ".pulumi" / "stacks" / "gridup" / "inst.json").read_text())
    urns = {row["urn"] for row in state["checkpoint"]["latest"]["resources"]}
    assert {labels[URN] for _, labels in made} <= urns
    assert len({labels[URN] for _, labels in made}) == 7


def test_only_what_people_connect_to_is_published_and_on_the_loopback_alone(
    inst: Cli, things: Things
) -> None:
    for service, one in things.containers(stack_id(inst)).items():
        bindings = [row for rows in (one["HostConfig"]["PortBindings"] or {}).values() for row in rows]
        assert [row["HostIp"] for row in bindings] == ([] if service == "api" else ["127.0.0.1"])
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
    inst("check", "Inst", "--wait", "--timeout", "120").ok()
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
    inst("check", "Inst", "--wait", "--timeout", "120").ok()
    kept = client(inst, runtime, "look_again.py", her=HER, hers=HERS, slow=seen["slow"])
    assert (kept["datasets"], kept["data"], kept["mock"]) == (["Census"], 600_000.0, 300_000.0)
    assert (kept["hers"], kept["job"]) == ("refused", 600_000.0)
    inst("deploy", "--name", "Inst").ok()
    remove_containers(things, stack_id(inst))
    inst("deploy", "--name", "Inst").ok()
    assert client(inst, runtime, "leave_dataset.py", look=True) == {"Census": 600_000.0}


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
    inst("check", "Inst", "--wait", "--timeout", "60").ok()
    eventually(lambda: things.containers(identity)["proxy"]["RestartCount"] == 1)


def by_hand(things: Things, name: str, what: Callable[[docker.DockerClient, str], object]) -> None:
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
    by_hand(things, name, damage)
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
    assert inst("status", "Inst", "--json").ok().json[0]["state"] == "gone"
    inst("deploy", "--name", "Inst").ok()
    assert volume_of(things, identity) == volume
    assert inst("outputs", "Inst", "--show-secrets", "--json").ok().json == kept


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
    following = inst.start("logs", "Inst", "ssh", "-f", "--lines", "0")
    try:
        time.sleep(1.5)
        inst("ssh", "Inst", "--", "true").ok()
        assert following.stdout is not None
        assert any("Accepted publickey" in following.stdout.readline() for _ in range(5))
    finally:
        following.terminate()
        following.communicate(timeout=20)


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
    failed = inst("deploy", "--name", "Inst", env=another_version(tmp_path, container=BOOM))
    assert failed.code == 4, failed
    assert "exit code 3" in failed.err and "boom" in failed.err
    assert "The former one runs again" in failed.err
    assert "Traceback" not in failed.err
    assert ids(things, identity) == before
    inst("check", "Inst", "--wait", "--timeout", "60").ok()
    inst("deploy", "--name", "Inst").ok()
    assert (volume_of(things, identity), problems(inst)) == (volume, [])
    assert [what for what, _ in things.marked(identity)].count("image") == 1


def test_a_node_that_cannot_start_ends_the_deploy_early_and_the_corrected_one_works(
    own: Cli, tmp_path: Path
) -> None:
    broken = another_version(tmp_path, container=BOOM)
    failed = own("deploy", "--name", "Boom", "--cloud", "docker", env=broken)
    assert failed.code == 4, failed
    assert "exit code 3" in failed.err and "boom" in failed.err
    # It ends by what the container says, long before its time is over.
    checked = own("check", "Boom", "--wait", "--timeout", "3600", timeout=120)
    assert checked.code == 10
    assert "exit code 3" in checked.err and "boom" in checked.err
    own("deploy", "--name", "Boom").ok()


def test_a_base_image_that_is_none_is_one_error_and_in_nobodys_way(own: Cli) -> None:
    wrong = {"GRIDUP_BASE_IMAGE": "inst.invalid/no-such-python:3.11"}
    failed = own("deploy", "--name", "Other base", "--cloud", "docker", *DEAF, env=wrong)
    assert failed.code == 4, failed
    assert "image" in failed.err and "GRIDUP_BASE_IMAGE" in failed.err
    assert "Traceback" not in failed.err
    own("deploy", "--name", "Other base", *DEAF, env={"GRIDUP_BASE_IMAGE": BASE_IMAGE}).ok()


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
    inst("check", "Inst").ok()


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
    refused = inst("destroy", "--name", "Inst", timeout=10)
    assert refused.code == 2
    assert "--yes" in refused.err
    inst("check", "Inst").ok()


def test_a_daemon_that_is_another_one_is_not_taken_for_the_nodes(inst: Cli, tmp_path: Path) -> None:
    gone = {"DOCKER_HOST": f"unix://{tmp_path}/nope"}
    # What is remembered counts for looking; a deploy with another DOCKER_HOST is about that one.
    inst("status", "Inst", env=gone).ok()
    refused = inst("deploy", "--name", "Inst", env=gone)
    assert refused.code == 1
    assert "Docker is not running" in refused.err
    inst("check", "Inst").ok()


@pytest.mark.tier("deep")
def test_kept_data_is_found_by_the_next_node_again_and_again(own: Cli, things: Things, runtime: Path) -> None:
    own.deploy("Kept", "--cloud", "docker", "--keep-data")
    volume = volume_of(things, stack_id(own, "kept"))
    left = client(own, runtime, "leave_dataset.py", name="Kept")
    gone = own("destroy", "Kept", "--yes").ok()
    assert "keeps" in gone.err and "--keep-data" in gone.err
    own.deploy("Kept", "--cloud", "docker", "--keep-data")
    assert volume_of(things, stack_id(own, "kept")) == volume
    assert client(own, runtime, "leave_dataset.py", name="Kept", look=True) == left == {"Census": 600_000.0}
    own("destroy", "Kept", "--yes").ok()
    own("deploy", "--name", "Kept", "--cloud", "docker", "--no-keep-data", *DEAF).ok()
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
    assert "9 unchanged" in seen.out, seen.out
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
    assert "http://127.0.0.2:" in own("check", "Bound").ok().out


def test_unused_images_are_pruned_and_used_ones_are_not(inst: Cli, things: Things) -> None:
    def shared() -> set[str]:
        with closing(things.client()) as one:
            tags = [tag for image in one.api.images() for tag in image["RepoTags"] or ()]
        return {tag for tag in tags if tag.startswith("gridup-node:")}

    used = things.containers(stack_id(inst))["api"]["Config"]["Image"].partition(":")[2]
    removed = inst("prune", "--yes", "--json").ok().json["removed"]
    assert shared() == {f"gridup-node:{used}"}
    assert f"image gridup-node:{used}" not in removed
    inst("check", "Inst").ok()


def test_doctor_tells_of_the_daemon(inst: Cli) -> None:
    rows = inst("doctor", "--json").ok().json
    assert next(row for row in rows if row["what"] == "Docker")["ok"] is True


def test_destroy_leaves_nothing_of_ours_and_all_of_others(
    inst: Cli, things: Things, foreign: Foreign
) -> None:
    identity = stack_id(inst)
    port = port_of(inst)
    ended = inst("destroy", "Inst", "--yes").ok()
    assert "volume" in ended.err
    assert things.marked(identity) == []
    assert not listening(port)
    assert foreign.untouched()
    assert inst("status", "--json").ok().json == []
    shown = subprocess.run(["ls", inst.home / "stacks"], capture_output=True, text=True, check=True).stdout
    assert "inst" not in shown
