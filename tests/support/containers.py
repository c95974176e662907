"""Looking at a Docker node from outside Gridup: its containers, volumes, networks and images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import docker

from gridup_infra.targets.docker import nowhere
from gridup_node.image import BASE_IMAGE
from support.cli import REPOSITORY, Cli
from support.system import attempt, must

NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

STACK_ID = "org.gridup.stack-id"
URN = "org.gridup.urn"
SERVICES = ("api", "jobs", "jupyter", "proxy", "ssh")


class Things:
    """What is on a daemon."""

    def __init__(self, host: str) -> None:
        self.host = host

    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.host, timeout=120)

    def containers(self, stack_id: str = "") -> dict[str, dict[str, Any]]:
        """The containers of a stack (of all) as the daemon shows them, by their service or else name."""
        with closing(self.client()) as client:
            rows = client.api.containers(all=True, filters=self._filters(stack_id))
            every = [client.api.inspect_container(row["Id"]) for row in rows]
        return {
            (one["Config"]["Labels"] or {}).get("org.gridup.service", one["Name"].lstrip("/")): one
            for one in every
        }

    def marked(self, stack_id: str = "") -> list[tuple[str, dict[str, str]]]:
        """All that bears a stack's id, as (what, labels)."""
        with closing(self.client()) as client:
            api, wanted = client.api, self._filters(stack_id)
            rows = [("container", row) for row in api.containers(all=True, filters=wanted)]
            rows += [("network", row) for row in api.networks(filters=wanted)]
            rows += [("volume", row) for row in api.volumes(filters=wanted)["Volumes"] or ()]
            rows += [("image", row) for row in api.images(filters=wanted)]
        return [(what, dict(row.get("Labels") or {})) for what, row in rows]

    @staticmethod
    def _filters(stack_id: str) -> dict[str, str]:
        return {"label": f"{STACK_ID}={stack_id}" if stack_id else STACK_ID}


def stack_id(cli: Cli, stack: str = "inst") -> str:
    """The stack's id, out of its configuration."""
    text = (cli.home / "stacks" / stack / f"Pulumi.{stack}.yaml").read_text()
    return next(line.split(": ")[1].strip("\"' ") for line in text.splitlines() if "stack-id" in line)


def ids(things: Things, stack_id: str) -> dict[str, str]:
    """The container of each service."""
    return {service: one["Id"] for service, one in things.containers(stack_id).items()}


def volume_of(things: Things, stack_id: str) -> str:
    """The volume that a stack's containers have their data in."""
    names = {mount["Name"] for one in things.containers(stack_id).values() for mount in one["Mounts"]}
    assert len(names) == 1, names
    return names.pop()


class Foreign:
    """A container, a volume and a network of somebody else on the daemon."""

    def __init__(self, things: Things, name: str = "somebody-elses") -> None:
        self.things, self.name = things, name
        with closing(things.client()) as client:
            client.api.create_network(name)
            client.api.create_volume(name)
            made = client.api.create_container(
                BASE_IMAGE,
                ["sleep", "infinity"],
                name=name,
                host_config=client.api.create_host_config(
                    binds={name: {"bind": "/data", "mode": "rw"}}, network_mode=name, init=True
                ),
            )
            client.api.start(made["Id"])
            self.before = self._look(client)

    def untouched(self) -> bool:
        with closing(self.things.client()) as client:
            return self._look(client) == self.before

    def _look(self, client: docker.DockerClient) -> str:
        one = client.api.inspect_container(self.name)
        volume = client.api.inspect_volume(self.name)
        network = client.api.inspect_network(self.name)
        return json.dumps([one["Id"], one["State"]["StartedAt"], volume["CreatedAt"], network["Id"]])

    def remove(self) -> None:
        with closing(self.things.client()) as client:
            client.api.remove_container(self.name, force=True)
            client.api.remove_volume(self.name)
            client.api.remove_network(self.name)


def another_version(folder: Path, **changed: str) -> dict[str, str]:
    """The environment of a Gridup whose `gridup_node` differs in some files.

    Args:
        changed: by the module's name, what is put at the file's beginning, after its docstring's imports.
    """
    infra = folder / "infra"
    shutil.copytree(REPOSITORY / "infra", infra, ignore=shutil.ignore_patterns("__pycache__"))
    for module, text in changed.items():
        path = infra / "gridup_node" / f"{module}.py"
        marker = "from __future__ import annotations\n"
        path.write_text(path.read_text().replace(marker, f"{marker}\n{text}\n", 1))
    return {"PYTHONPATH": f"{infra}:{REPOSITORY / 'cli'}"}


@contextmanager
def between_hidden(verdict: str) -> Iterator[bool]:
    """The machine's firewall does that (ACCEPT, DROP) with what passes between containers in a network that
    leads nowhere; whether the kernel shows it that at all (br_netfilter)."""
    if not NETFILTER.exists() or NETFILTER.read_text() != "1\n":
        yield False
        return
    with ExitStack() as stack:
        for network in nowhere.HIDDEN.values():
            rule = ("FORWARD", "-s", network, "-d", network, "-j", verdict)
            must("iptables", "-w", "-I", *rule)
            stack.callback(attempt, "iptables", "-w", "-D", *rule)
        yield True
