"""What the Docker target creates and deletes, piece by piece, on a real daemon."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from gridup_infra.errors import ResourceError
from gridup_infra.processes import wait_until
from gridup_infra.targets.docker import (
    cleanup,
    container_lifecycle,
    images,
    node_labels,
    port_allocation,
    volumes,
)
from gridup_infra.targets.docker.client import connected
from gridup_node import image as node_image
from gridup_node.confines import LOG_DRIVER, LOG_LIMITS, limits, writable
from gridup_node.containers import HIDDEN, VOLUME_PATH
from gridup_node.image import BASE_IMAGE, PACKAGE
from gridup_node.vm.docker_cli import crash_of

pytestmark = pytest.mark.tier("gate")

TINY = "gridup-test-tiny:1"
"""Of nothing but a program that does as it is told, and its health check."""

REAL = ("folders", "services")
"""Modules of the node's that it has as they are."""

PROGRAM = b"""
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if sys.argv[1] == "boom":
    sys.exit("boom\\nboom again" if len(sys.argv) < 3 else int(print("boom") or sys.argv[2]))
pathlib.Path("/tmp/does").write_text(sys.argv[1])
while True:
    time.sleep(0.1)
"""
HEALTH = b"""
import pathlib, sys
does = pathlib.Path("/tmp/does")
sys.exit(0 if does.exists() and does.read_text() == "work" else "it only dawdles")
"""
DOCKERFILE = f"""FROM {BASE_IMAGE}
COPY gridup_node /opt/tiny/gridup_node
ENV PYTHONPATH=/opt/tiny GRIDUP_NODE_DATA={VOLUME_PATH}
ENTRYPOINT ["python3", "-m", "gridup_node.program"]
""".encode()


@dataclass
class Place:
    """A daemon, with whatever a test makes on it: all of it is removed at the end."""

    client: docker.DockerClient
    host: str
    foreign: list[str] = field(default_factory=list)

    def stack(self, name: str = "Inst", **more: Any) -> dict[str, Any]:
        """The inputs that all resources of a new stack share."""
        stack_id = secrets.token_hex(8)
        stack = name.lower()
        project = f"gridup-{stack}-{stack_id[:8]}"
        common = {"host": self.host, "stack": stack, "stack_id": stack_id, "name": name, "project": project}
        networks = {project: False, f"{project}-closed": True}
        return {**common, "urn": f"urn:{name}", "networks": networks, **more}

    def container(self, *, network: str | None = None, port: int = 0, labels: Any = None) -> str:
        """Somebody else's container, running. Returns its name."""
        name = f"foreign-{secrets.token_hex(4)}"
        ports = {"80/tcp": ("127.0.0.1", port)} if port else None
        self.client.containers.run(
            TINY, ["work"], name=name, detach=True, ports=ports, network=network, labels=labels
        )
        self.foreign.append(name)
        return name

    def runs(self, name: str) -> bool:
        found = container_lifecycle.find(self.client, name)
        return bool(found and found["State"]["Running"])

    def clean(self) -> None:
        api = self.client.api
        labelled = {"label": node_labels.MANAGED}
        ours = [row["Id"] for row in api.containers(all=True, filters=labelled)]
        for one in (*self.foreign, *ours):
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_container(one, force=True)
        for row in api.networks(filters=labelled):
            api.remove_network(row["Id"])
        for row in api.volumes(filters=labelled)["Volumes"] or ():
            api.remove_volume(row["Name"])


@pytest.fixture(scope="module")
def client(docker_host: str) -> Iterator[docker.DockerClient]:
    with connected(docker_host) as client:
        files = {
            "Dockerfile": DOCKERFILE,
            "gridup_node/__init__.py": b"",
            **{f"gridup_node/{name}.py": (PACKAGE / f"{name}.py").read_bytes() for name in REAL},
            "gridup_node/health.py": HEALTH,
            "gridup_node/program.py": PROGRAM,
        }
        for event in client.api.build(
            fileobj=io.BytesIO(node_image.archive(files)), custom_context=True, tag=TINY, decode=True
        ):
            assert "error" not in event, event
        yield client


@pytest.fixture
def place(
    client: docker.DockerClient, docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    monkeypatch.setenv("GRIDUP_HOME", str(tmp_path / "home"))
    made = Place(client, docker_host)
    made.clean()
    yield made
    made.clean()


class TestVolumes:
    """A node's data: made once, kept, taken over, removed."""

    @staticmethod
    def names(place: Place) -> set[str]:
        return {
            row["Name"]
            for row in place.client.api.volumes(filters={"label": node_labels.MANAGED})["Volumes"] or ()
        }

    def test_twice_is_one_volume(self, place: Place) -> None:
        stack = place.stack()
        made = volumes.ensure(place.client, stack)
        assert volumes.ensure(place.client, stack) == made == f"{stack['project']}-data"
        assert self.names(place) == {made}
        assert volumes.find(place.client, stack["stack_id"]) == made
        assert volumes.left(place.client, stack["stack_id"]) == [made]

    def test_what_was_kept_goes_to_the_next_node_of_the_same_name_and_to_no_other(self, place: Place) -> None:
        first, second, other = place.stack(), place.stack(), place.stack("Other")
        like = {**place.stack(), "name": "inst"}
        made = volumes.ensure(place.client, first)
        for _ in range(2):
            volumes.keep(place.client, first)
        assert self.names(place) == {made, f"{made}-kept"}
        assert volumes.left(place.client, first["stack_id"]) == []
        for stack in (other, like):
            assert volumes.ensure(place.client, {**stack, "adopt": made}) != made, "another name"
        for chosen in ({}, {"adopt": "new"}, {"adopt": "another"}):
            assert volumes.ensure(place.client, {**place.stack(), **chosen}) != made, "it was not chosen"
        assert volumes.ensure(place.client, {**second, "adopt": made}) == made
        assert volumes.ensure(place.client, {**second, "adopt": made}) == made
        assert volumes.find(place.client, second["stack_id"]) == made
        third = {**place.stack(), "adopt": made}
        assert volumes.ensure(place.client, third) != made, "it is in use again"

    def test_the_note_tells_who_logs_in_there_and_what_it_was(self, place: Place) -> None:
        first, told = place.stack(), {"admin_email": "ada@inst.example", "node_type": "network"}
        made = volumes.ensure(place.client, first)
        volumes.keep(place.client, {**first, **told})
        ((name, note),) = volumes.kept(place.client, first["stack"], first["name"])
        assert name == made
        assert {key: node_labels.label(note, label) for key, label in node_labels.NOTED.items()} == told

    def test_it_can_be_kept_again_and_again(self, place: Place) -> None:
        made = volumes.ensure(place.client, place.stack())
        (row,) = place.client.api.volumes(filters={"label": node_labels.MANAGED})["Volumes"]
        volumes.keep(place.client, {**place.stack(), "stack_id": row["Labels"][node_labels.STACK_ID]})
        for _ in range(3):
            stack = {**place.stack(), "adopt": made}
            assert volumes.ensure(place.client, stack) == made
            volumes.keep(place.client, stack)
            assert volumes.find(place.client, stack["stack_id"]) is None
            assert self.names(place) == {made, f"{made}-kept"}

    def test_a_removal_takes_the_data_and_the_claim(self, place: Place) -> None:
        first, second, other = place.stack(), place.stack(), place.stack("Other")
        made = volumes.ensure(place.client, first)
        others = volumes.ensure(place.client, other)
        volumes.keep(place.client, first)
        volumes.ensure(place.client, {**second, "adopt": made})
        volumes.remove(place.client, second["stack_id"])
        assert made not in self.names(place)
        assert self.names(place) == {others}
        volumes.remove(place.client, second["stack_id"])

    def test_a_removal_leaves_what_was_kept(self, place: Place) -> None:
        stack = place.stack()
        made = volumes.ensure(place.client, stack)
        volumes.keep(place.client, stack)
        volumes.remove(place.client, stack["stack_id"])
        assert made in self.names(place)

    def test_a_destroy_that_was_broken_off_and_then_a_deploy_keep_the_volume_in_use(
        self, place: Place
    ) -> None:
        stack = place.stack()
        made = volumes.ensure(place.client, stack)
        volumes.keep(place.client, stack)
        assert volumes.ensure(place.client, stack) == made
        assert volumes.left(place.client, stack["stack_id"]) == [made]
        assert volumes.ensure(place.client, {**place.stack(), "adopt": made}) != made

    def test_whoever_kept_it_has_no_more_to_say_once_another_node_took_it_over(self, place: Place) -> None:
        first, second = place.stack(), place.stack()
        made = volumes.ensure(place.client, first)
        volumes.keep(place.client, first)
        volumes.ensure(place.client, {**second, "adopt": made})
        # A destroy that was interrupted is completed later.
        assert volumes.find(place.client, first["stack_id"]) is None
        assert volumes.left(place.client, first["stack_id"]) == []
        volumes.keep(place.client, first)
        volumes.remove(place.client, first["stack_id"])
        with pytest.raises(ResourceError, match=f"The volume {made} was taken over by another node"):
            volumes.ensure(place.client, first)
        assert volumes.find(place.client, second["stack_id"]) == made
        assert volumes.ensure(place.client, {**place.stack(), "adopt": made}) != made

    def test_a_kept_volume_that_somebody_removed_is_forgotten(self, place: Place) -> None:
        first, second = place.stack(), place.stack()
        made = volumes.ensure(place.client, first)
        volumes.keep(place.client, first)
        place.client.api.remove_volume(made)
        assert volumes.ensure(place.client, {**second, "adopt": made}) == f"{second['project']}-data"
        assert self.names(place) == {f"{second['project']}-data"}

    def test_one_in_use_is_not_removed_and_that_is_said(self, place: Place) -> None:
        stack = place.stack()
        made = volumes.ensure(place.client, stack)
        place.foreign.append("foreign-user-of-data")
        place.client.containers.run(
            TINY, ["work"], name="foreign-user-of-data", detach=True, volumes=[f"{made}:/data"]
        )
        with pytest.raises(ResourceError, match=f"The volume {made} could not be removed"):
            volumes.remove(place.client, stack["stack_id"])


class TestPorts:
    """Chosen once, and never another's."""

    @staticmethod
    def node(place: Place, name: str = "Inst", port: int = 0) -> dict[str, Any]:
        return place.stack(name, bind="127.0.0.1", port=port)

    def test_the_network_is_made_once_and_bears_the_ports(self, place: Place) -> None:
        other, props = self.node(place, "Other"), self.node(place)
        port_allocation.ensure(place.client, other, {})
        chosen = port_allocation.ensure(place.client, props, {})
        # The defaults are free now, and yet the ports stay.
        cleanup.delete_all(place.client, other["stack"], other["name"], other["stack_id"], keep_data=False)
        assert set(chosen) == {"proxy", "ssh", "jupyter"}
        assert port_allocation.ensure(place.client, props, {}) == chosen, (
            "as after a create that was interrupted"
        )
        assert port_allocation.ensure(place.client, props, chosen) == chosen
        networks = {row["Name"]: row for row in node_labels.networks(place.client, props["stack_id"])}
        assert {name: row["Internal"] for name, row in networks.items()} == props["networks"]
        assert json.loads(networks[props["project"]]["Labels"][node_labels.PORTS]) == chosen

    def test_a_node_of_one_network_gets_the_others_and_keeps_its_ports(self, place: Place) -> None:
        props = self.node(place)
        earlier = {**props, "networks": {props["project"]: False}}
        chosen = port_allocation.ensure(place.client, earlier, {})
        other = f"{props['project']}-closed"
        assert port_allocation.problems(place.client, props, chosen) == [
            f"the node's network {other} is gone"
        ]
        assert port_allocation.ensure(place.client, props, {}) == chosen
        assert port_allocation.problems(place.client, props, chosen) == []

    def test_two_nodes_share_no_port_though_neither_runs(self, place: Place) -> None:
        first, second = (
            port_allocation.ensure(place.client, self.node(place, name), {}) for name in ("A", "B")
        )
        assert not set(first.values()) & set(second.values())

    def test_an_asked_port_of_a_node_that_does_not_run_is_refused_by_its_name(self, place: Place) -> None:
        taken = port_allocation.ensure(place.client, self.node(place, "First"), {})["proxy"]
        with pytest.raises(ResourceError, match=f'Port {taken} is kept by the node "First"'):
            port_allocation.ensure(place.client, self.node(place, "Second", port=taken), {})

    def test_a_container_of_somebody_else_has_its_port(self, place: Place) -> None:
        props = self.node(place)
        wanted = port_allocation.ensure(place.client, props, {})["proxy"]
        cleanup.delete_all(place.client, props["stack"], props["name"], props["stack_id"], keep_data=False)
        name = place.container(port=wanted)
        assert port_allocation.ensure(place.client, self.node(place), {})["proxy"] != wanted
        with pytest.raises(ResourceError, match=f"Port {wanted} is kept by the container {name}") as caught:
            port_allocation.ensure(place.client, self.node(place, "Other", port=wanted), {})
        assert "--port" in caught.value.suggestion
        assert place.runs(name)

    def test_a_port_that_was_lost_while_the_node_did_not_run_is_told_and_another_chosen(
        self, place: Place
    ) -> None:
        props = self.node(place)
        chosen = port_allocation.ensure(place.client, props, {})
        assert port_allocation.lost(place.client, props, chosen) == {}
        assert port_allocation.problems(place.client, props, chosen) == []
        place.container(port=chosen["proxy"])
        assert port_allocation.lost(place.client, props, chosen) == {"proxy": chosen["proxy"]}
        # Where the daemon is elsewhere, only it can tell.
        elsewhere = {**props, "host": "tcp://192.0.2.7:2376"}
        assert port_allocation.lost(place.client, elsewhere, chosen) == {"proxy": chosen["proxy"]}
        assert port_allocation.problems(place.client, props, chosen) == [
            f"port {chosen['proxy']} (proxy) is another's now"
        ]
        anew = port_allocation.ensure(place.client, props, chosen)
        assert anew["proxy"] != chosen["proxy"]
        assert {**anew, "proxy": 0} == {**chosen, "proxy": 0}

    def test_a_port_that_the_node_itself_listens_on_is_not_lost(self, place: Place) -> None:
        props = self.node(place)
        chosen = port_allocation.ensure(place.client, props, {})
        place.container(port=chosen["proxy"], labels=node_labels.labels(props))
        assert port_allocation.lost(place.client, props, chosen) == {}
        assert port_allocation.ensure(place.client, props, chosen) == chosen

    def test_a_network_that_is_gone_is_a_problem(self, place: Place) -> None:
        assert port_allocation.problems(place.client, self.node(place), {}) == ["the node's network is gone"]


@dataclass
class Node:
    """One program's container, and how it is asked for."""

    place: Place
    props: dict[str, Any]
    said: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return container_lifecycle.name_of(self.props)

    def converge(self, **changes: Any) -> dict[str, Any]:
        """Make it so. Returns the container as the daemon describes it."""
        wanted = {**self.props, **changes}
        container_lifecycle.converge(self.place.client, wanted, self.said.append)
        self.props = wanted
        return self.found

    @property
    def found(self) -> dict[str, Any]:
        found = container_lifecycle.find(self.place.client, self.name)
        assert found is not None
        return found

    @property
    def drift(self) -> list[str]:
        props = {**self.props, "config": container_lifecycle.config_hash(self.props)}
        return container_lifecycle.drift(self.found, props, self.place.client.api.info())

    def alone(self) -> bool:
        """Whether it is the stack's only container."""
        rows = node_labels.containers(self.place.client, self.props["stack_id"])
        return [row["Names"] for row in rows] == [[f"/{self.name}"]]


@pytest.fixture
def node(place: Place) -> Node:
    stack = place.stack()
    place.client.api.create_network(stack["project"], labels=node_labels.labels(stack))
    rest = {
        "service": "api",
        "image": TINY,
        "network": stack["project"],
        "networks": [stack["project"]],
        "closed": False,
        "fronts": {},
        "volume": volumes.ensure(place.client, stack),
        "tmpfs": writable(0),
        "share": {"memory": 0.25, "cpus": 0.5, "pids": 64},
        "yielding": 500,
        "command": ["work"],
        "environment": {"A": "1 $B"},
        "port": 80,
        "published": 0,
        "bind": "127.0.0.1",
        "stop_seconds": 5,
        "health_seconds": 180,
    }
    return Node(place, {**stack, **rest})


def code_of(api: Any, ran: str) -> int:
    """How a command in a container ended: Docker may tell its output before that."""
    assert wait_until(lambda: not api.exec_inspect(ran)["Running"], timeout=60)
    return int(api.exec_inspect(ran)["ExitCode"])


class TestConverge:
    """A container is made, left alone, put right, replaced; what fails gives way to what worked."""

    def test_it_is_made_as_asked_and_then_left_alone(self, node: Node) -> None:
        made = node.converge()
        assert made["State"]["Running"] and node.alone() and node.drift == []
        assert "A=1 $B" in made["Config"]["Env"]
        assert made["Config"]["Hostname"] == "api"
        assert made["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert (made["HostConfig"]["CapDrop"], made["HostConfig"]["Privileged"]) == (["ALL"], False)
        assert [mount["Name"] for mount in made["Mounts"]] == [node.props["volume"]]
        again = node.converge()
        assert (again["Id"], again["State"]["StartedAt"]) == (made["Id"], made["State"]["StartedAt"])

    @pytest.mark.parametrize(
        ("break_it", "said"),
        [
            (lambda api, node: api.pause(node.name), "is paused"),
            (lambda api, node: api.stop(node.name, timeout=3), "does not run"),
            (lambda api, node: api.kill(node.name), "does not run"),
            (
                lambda api, node: api.update_container(node.name, restart_policy={"Name": "no"}),
                "restart policy",
            ),
            (
                lambda api, node: api.disconnect_container_from_network(node.name, node.props["network"]),
                "taken off the node's network",
            ),
        ],
        ids=["paused", "stopped", "killed", "restart-policy", "network"],
    )
    def test_what_was_changed_by_hand_is_told_and_put_right(
        self, node: Node, break_it: Callable[[Any, Node], None], said: str
    ) -> None:
        made = node.converge()
        break_it(node.place.client.api, node)
        assert any(said in line for line in node.drift), node.drift
        assert node.converge()["Id"] == made["Id"]
        assert node.drift == []
        assert node.found["State"]["Running"]

    def test_limits_that_were_changed_by_hand_are_told_and_a_new_container_has_its_share(
        self, node: Node
    ) -> None:
        made = node.converge()
        less = made["HostConfig"]["Memory"] // 2
        node.place.client.api.update_container(node.name, mem_limit=less, memswap_limit=less)
        assert node.drift == ["api: the container's limits were changed"]
        again = node.converge()
        assert again["Id"] != made["Id"]
        assert again["HostConfig"]["Memory"] == made["HostConfig"]["Memory"] == 2 * less
        assert node.alone() and node.drift == []

    def test_a_change_is_a_new_container_of_the_same_name_and_volume(self, node: Node) -> None:
        first = node.converge()
        second = node.converge(environment={"A": "2"})
        assert second["Id"] != first["Id"]
        assert node.alone() and node.drift == []
        assert "A=2" in second["Config"]["Env"]
        assert second["Mounts"][0]["Name"] == first["Mounts"][0]["Name"]

    def test_what_an_earlier_version_left_in_the_volume_is_made_ready(self, node: Node) -> None:
        def shell(*words: str) -> str:
            volume = [f"{node.props['volume']}:{VOLUME_PATH}"]
            return node.place.client.containers.run(  # type: ignore[no-any-return]
                TINY, ["-c", *words], entrypoint="sh", remove=True, volumes=volume
            ).decode()

        former = f"mkdir -p {VOLUME_PATH}/data/notebooks; echo mine >{VOLUME_PATH}/data/notebooks/a"
        shell(former)
        node.converge()
        assert shell(f"cat {VOLUME_PATH}/notebooks/a {VOLUME_PATH}/data/notebooks/a") == "mine\nmine\n"
        assert node.alone()

    def test_data_that_cannot_be_made_ready_leave_the_former_one_running(self, node: Node) -> None:
        first = node.converge()
        bad = f"rm -r {VOLUME_PATH}/keys; ln -s /root {VOLUME_PATH}/keys"
        node.place.client.containers.run(
            TINY, ["-c", bad], entrypoint="sh", remove=True, volumes=[f"{node.props['volume']}:{VOLUME_PATH}"]
        )
        with pytest.raises(ResourceError) as caught:
            node.converge(environment={"A": "2"})
        assert caught.value.message == "The node's data could not be made ready."
        assert "keys is a link" in caught.value.details[-1]
        assert node.alone() and (node.found["Id"], node.found["State"]["Running"]) == (first["Id"], True)

    def test_a_folder_that_it_must_not_see_is_covered(self, node: Node) -> None:
        made = node.converge(tmpfs={**writable(0), f"{VOLUME_PATH}/keys": HIDDEN})
        api = node.place.client.api

        def tried(*words: str) -> tuple[int, str]:
            ran = api.exec_create(made["Id"], list(words), user="10001")["Id"]
            text = api.exec_start(ran).decode()
            return code_of(api, ran), text

        assert tried("ls", f"{VOLUME_PATH}/keys")[0] != 0
        code, text = tried("umount", f"{VOLUME_PATH}/keys")
        assert code != 0, text
        assert tried("ls", f"{VOLUME_PATH}")[1]

    def test_it_has_a_share_of_the_machine_and_a_root_that_it_cannot_write_to(self, node: Node) -> None:
        made = node.converge()
        host, machine = made["HostConfig"], node.place.client.api.info()
        wanted = limits(node.props["share"], machine)
        assert host["Memory"] == wanted.get("mem_limit", 0)
        assert host["NanoCpus"] == int(wanted.get("cpus", 0) * 1e9)
        assert (host["PidsLimit"] or 0) == wanted.get("pids_limit", 0)
        assert (host["ReadonlyRootfs"], host["OomScoreAdj"]) == (True, 500)
        assert host["LogConfig"] == {"Type": LOG_DRIVER, "Config": dict(LOG_LIMITS)}
        api = node.place.client.api

        def writes(path: str) -> bool:
            ran = api.exec_create(made["Id"], ["touch", path])["Id"]
            api.exec_start(ran)
            return code_of(api, ran) == 0

        places = ("/x", "/etc/x", "/opt/tiny/x", "/tmp/x", "/srv/node/x", "/home/gridup/x")
        assert [path for path in places if writes(path)] == list(places[3:])

    def test_a_new_version_that_ends_gives_way_to_the_former_one(self, node: Node) -> None:
        first = node.converge()
        with pytest.raises(ResourceError) as caught:
            node.converge(command=["boom", "3"])
        assert caught.value.message.startswith("api: ") and "(exit 3)" in caught.value.message
        assert caught.value.suggestion == "The former one runs again."
        assert "boom" in caught.value.details
        assert node.alone() and node.drift == []
        assert (node.found["Id"], node.found["State"]["Running"]) == (first["Id"], True)

    def test_one_that_runs_but_does_not_do_its_work_gives_way_too(self, node: Node) -> None:
        first = node.converge()
        with pytest.raises(ResourceError, match="did not become healthy: it only dawdles"):
            node.converge(command=["dawdle"], health_seconds=10)
        assert node.alone() and node.found["Id"] == first["Id"] and node.found["State"]["Running"]

    def test_a_former_one_that_did_not_run_is_not_started(self, node: Node) -> None:
        first = node.converge()
        node.place.client.api.stop(node.name, timeout=3)
        with pytest.raises(ResourceError) as caught:
            node.converge(command=["boom", "3"])
        assert "runs again" not in caught.value.suggestion
        assert node.alone() and node.found["Id"] == first["Id"] and not node.found["State"]["Running"]

    @pytest.mark.parametrize("made", [False, True], ids=["before the new one", "after the new one"])
    def test_a_replacement_that_was_broken_off_is_undone(self, node: Node, made: bool) -> None:
        first, api = node.converge(), node.place.client.api
        api.rename(node.name, f"{node.name}-former")
        if made:
            api.stop(f"{node.name}-former", timeout=3)
            labels = {**node_labels.labels(node.props), node_labels.CONFIG: "unproven"}
            api.start(api.create_container(TINY, ["dawdle"], name=node.name, labels=labels)["Id"])
        assert node.converge()["Id"] == first["Id"]
        assert node.alone() and node.drift == []

    def test_after_a_broken_off_replacement_the_change_can_be_made(self, node: Node) -> None:
        node.converge()
        node.place.client.api.rename(node.name, f"{node.name}-former")
        assert "A=2" in node.converge(environment={"A": "2"})["Config"]["Env"]
        assert node.alone()

    def test_somebody_elses_container_of_that_name_stays(self, node: Node) -> None:
        node.place.foreign.append(node.name)
        other = node.place.client.containers.run(TINY, ["work"], name=node.name, detach=True).id
        with pytest.raises(ResourceError, match="is there already, and is not ours"):
            node.converge()
        container_lifecycle.remove(node.place.client, node.name, node.props["stack_id"], 1)
        assert node.found["Id"] == other and node.found["State"]["Running"]

    def test_a_port_that_is_taken_names_the_container_and_leaves_nothing(self, node: Node) -> None:
        port = port_allocation.ensure(node.place.client, node.place.stack("P", bind="127.0.0.1", port=0), {})[
            "proxy"
        ]
        name = node.place.container(port=port)
        with pytest.raises(
            ResourceError, match=f"Port {port} of 127.0.0.1 is in use by the container {name}"
        ):
            node.converge(published=port)
        assert node_labels.containers(node.place.client, node.props["stack_id"]) == []

    def test_one_that_goes_on_ending_is_told(self, node: Node) -> None:
        node.converge(command=["boom", "3"])
        told: list[str] = []

        def given_up() -> bool:
            # Docker starts it again and again: a moment later it may be up.
            told.append(crash_of(node.found))
            return bool(told[-1])

        assert wait_until(given_up, timeout=60)
        assert "(exit 3)" in told[-1]
        assert "boom" in container_lifecycle.log_tail(node.place.client, node.name)

    def test_a_removal_takes_the_former_one_along(self, node: Node) -> None:
        node.converge()
        node.place.client.api.rename(node.name, f"{node.name}-former")
        node.converge()
        node.place.client.api.rename(node.name, f"{node.name}-former")
        container_lifecycle.remove(node.place.client, node.name, node.props["stack_id"], 3)
        assert node_labels.containers(node.place.client, node.props["stack_id"]) == []
        container_lifecycle.remove(node.place.client, node.name, node.props["stack_id"], 3)


def build(place: Place, tag: str, base: str, labels: dict[str, str]) -> None:
    context = node_image.archive({"Dockerfile": f"FROM {base}\n".encode()})
    images._build(place.client, context, tag, print, labels=labels)


class TestImages:
    """The shared image goes when no stack stands on it."""

    @pytest.fixture
    def shared(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        # The real stage stays: to make it anew takes two minutes.
        monkeypatch.setattr(node_labels, "STAGE", "org.gridup.test-stage")
        name = f"gridup-node:0-test{secrets.token_hex(3)}"
        build(place, name, TINY, {node_labels.SHARED: name})
        yield name
        with contextlib.suppress(docker.errors.NotFound):
            place.client.api.remove_image(name, force=True)

    def test_one_that_nobody_uses_is_told_and_removed(self, place: Place, shared: str) -> None:
        assert shared in list(images.unused(place.client))
        stage = {"label": node_labels.STAGE, "dangling": True}
        build(place, "gridup-test-stage:1", TINY, {node_labels.STAGE: "environment"})
        build(place, "gridup-test-stage:1", TINY, {node_labels.STAGE: "other"})
        assert len(place.client.api.images(filters=stage)) == 1
        images.remove_shared(place.client, shared)
        assert not images.exists(place.client, shared)
        assert place.client.api.images(filters=stage) == []
        assert images.exists(place.client, TINY)
        place.client.api.remove_image("gridup-test-stage:1")
        images.remove_shared(place.client, shared)

    def test_a_stage_goes_whose_history_has_a_password(
        self, place: Place, shared: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage = {"label": node_labels.STAGE, "dangling": True}
        text = f"FROM {TINY} AS made\nARG INDEX\nLABEL {node_labels.STAGE}=environment\nFROM {TINY}\n"
        monkeypatch.setattr(images, "reference", lambda *_: (f"{shared}-more", {"Dockerfile": text.encode()}))
        stack = place.stack()
        props = {"version": "0", "base_image": TINY, "image": f"{stack['project']}:0-test", **stack}
        for index, left in (("https://ada:secret@index.example/simple", 0), ("https://index.example", 1)):
            monkeypatch.setattr(images, "build_arguments", lambda index=index: {"INDEX": index})
            assert images.ensure(place.client, props, print)
            assert len(place.client.api.images(filters=stage)) == left
            images.remove(place.client, stack["stack_id"])
            place.client.api.remove_image(f"{shared}-more")
        images.forget_stages(place.client)

    def test_one_that_a_node_uses_is_not_told_until_the_node_is_gone(self, place: Place, shared: str) -> None:
        stack = place.stack()
        own = f"{stack['project']}:0-test"
        build(place, own, shared, node_labels.labels(stack))
        assert shared not in list(images.unused(place.client))
        images.remove(place.client, stack["stack_id"], but=own)
        assert images.exists(place.client, own)
        images.remove(place.client, stack["stack_id"])
        assert not images.exists(place.client, own)
        assert shared in list(images.unused(place.client))

    def test_one_that_came_into_use_meanwhile_is_not_removed(self, place: Place, shared: str) -> None:
        stack = place.stack()
        build(place, f"{stack['project']}:0-test", shared, node_labels.labels(stack))
        try:
            with pytest.raises(ResourceError, match=f'The image {shared} is used by the node "Inst"'):
                images.remove_shared(place.client, shared)
            assert images.exists(place.client, shared)
        finally:
            images.remove(place.client, stack["stack_id"])

    def test_what_a_container_runs_on_stays(self, place: Place, shared: str) -> None:
        stack = place.stack()
        own = f"{stack['project']}:0-test"
        build(place, own, shared, node_labels.labels(stack))
        place.client.containers.run(own, ["work"], detach=True, init=True, labels=node_labels.labels(stack))
        images.remove(place.client, stack["stack_id"])
        assert images.exists(place.client, own)
        cleanup.delete_all(place.client, stack["stack"], stack["name"], stack["stack_id"], keep_data=False)
        assert not images.exists(place.client, own)


class TestSweep:
    """All of a stack, and nothing else."""

    @pytest.fixture
    def whole(self, node: Node) -> Node:
        build(node.place, f"{node.props['project']}:0-test", TINY, node_labels.labels(node.props))
        node.converge()
        return node

    @staticmethod
    def sweep(node: Node, *, keep_data: bool = False) -> None:
        stack, name, stack_id = (node.props[key] for key in ("stack", "name", "stack_id"))
        for _ in range(2):
            cleanup.delete_all(node.place.client, stack, name, stack_id, keep_data=keep_data)

    def test_all_of_it_is_found_and_removed(self, whole: Node) -> None:
        project, stack_id = whole.props["project"], whole.props["stack_id"]
        assert cleanup.leftovers(whole.place.client, stack_id) == [
            f"container {project}-api",
            f"network {project}",
            f"volume {project}-data",
            f"image {project}:0-test",
        ]
        self.sweep(whole)
        assert cleanup.leftovers(whole.place.client, stack_id) == []

    def test_data_that_is_kept_is_no_leftover(self, whole: Node) -> None:
        self.sweep(whole, keep_data=True)
        assert cleanup.leftovers(whole.place.client, whole.props["stack_id"]) == []
        assert volumes.exists(whole.place.client, whole.props["volume"])
        self.sweep(whole)
        assert volumes.exists(whole.place.client, whole.props["volume"])

    def test_nothing_of_anybody_else_is_touched(self, whole: Node) -> None:
        place, api = whole.place, whole.place.client.api
        # Another deployment of the same name, from another machine; and somebody's own things of such names.
        other = place.stack()
        network = api.create_network(other["project"], labels=node_labels.labels(other))["Id"]
        volume = volumes.ensure(place.client, other)
        container = place.container(labels=node_labels.labels(other))
        api.create_volume(f"{whole.props['project']}-mine")
        bystander = place.container()
        try:
            self.sweep(whole)
            assert place.runs(container) and place.runs(bystander)
            assert volumes.exists(place.client, volume)
            assert volumes.exists(place.client, f"{whole.props['project']}-mine")
            assert [row["Id"] for row in api.networks(ids=[network])] == [network]
            assert images.exists(place.client, TINY)
        finally:
            api.remove_volume(f"{whole.props['project']}-mine")

    def test_a_network_that_somebody_else_uses_is_named_and_their_container_stays(self, whole: Node) -> None:
        name = whole.place.container(network=whole.props["network"])
        with pytest.raises(ResourceError, match=f"The network {whole.props['network']} could not be removed"):
            self.sweep(whole)
        assert whole.place.runs(name)
