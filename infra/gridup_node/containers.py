"""Converts the service table to the containers of a node, and to a compose file. Pure, like `render`.

The target `docker` creates the containers itself; on a container host compose creates them. Both use this
module. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gridup_node.confines import (
    BRIDGE,
    IMAGE_UID,
    LOG_DRIVER,
    LOG_LIMITS,
    MACHINE_UID,
    NOWHERE,
    SHARE,
    writable,
)
from gridup_node.entrypoint import FACTS_ENV, told
from gridup_node.facts import HOME_VARIABLE
from gridup_node.health import SERVICE
from gridup_node.services import (
    PROXY,
    SERVICES,
    Service,
    backends,
    folders,
    fronted,
    machine_doors,
    programs,
    service,
)

VOLUME_PATH = "/var/lib/gridup"
"""The path of the data in every container of a node; the image's GRIDUP_NODE_DATA."""

LAID = ("sh", "-c", f'test -e "${HOME_VARIABLE}/config/programs.json"')
"""A command that tests in a container whether it has written its configuration. A container does this in its
first second. Before that, no program of `gridup_node` can run in it."""
LAID_SECONDS = 60.0

NO_NETWORK = "none"
"""Docker's network mode in which a container has only its own loopback."""

CA_FILE = f"{VOLUME_PATH}/proxy/caddy/pki/authorities/local/root.crt"
"""The file in which Caddy, the reverse proxy, stores the certificate of the node's own CA."""

OUT = "out"
"""The network of programs that users reach without the reverse proxy, and of programs that have outbound
access only because `egress` allows it."""

HIDDEN = "ro,size=4k,mode=000"
"""Mount options of the empty file system that covers a folder which a container must not see."""

RESTART = "unless-stopped"
YIELDING = 500
"""The OOM score adjustment of a container that yields, of at most 1000: the kernel ends it first."""

MEMORY_FOR_SHARED = 256 * 1024 * 1024
"""The size of /dev/shm in bytes: libraries such as numpy share memory there. Docker's default is 64 MB."""


@dataclass(frozen=True)
class Container:
    """One container of a node.

    Attributes:
        service: its service's key in the service table, and its host name in the node's networks.
        command: the arguments of the image's entry point.
        environment: its variables. Never a secret.
        port: the port in the container on which its program listens.
        published: whether users connect to that port.
        depends_on: services that must pass their probe before this one is changed.
        stop_seconds: how long it may take to stop before it is killed.
        published_ports: further published ports, each with the port in the container.
        folders: the folders of the node's data that it sees.
        hidden: the folders of the node's data that it does not see.
        share: its limits, see `confines.limits`.
        yielding: its OOM score adjustment, 0 to 1000: how early the kernel ends it if memory runs out.
        uid: the user ID of its program.
        fronts: the services whose ports it publishes too: it passes requests on to them.
        networks: its networks. A network with outbound access comes first. Empty for no network at all.
        closed: whether it has no outbound access.
    """

    service: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    published: bool
    depends_on: tuple[str, ...]
    stop_seconds: int
    published_ports: Mapping[int, int] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    share: Mapping[str, float] = field(default_factory=dict)
    yielding: int = 0
    uid: int = IMAGE_UID
    fronts: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    closed: bool = False

    def tmpfs(self, *, covered: bool) -> dict[str, str]:
        """Return {path: mount options} of the container's file systems in memory.

        Args:
            covered: whether the container mounts the volume with all of the node's data, so that the folders
                it must not see have to be covered. All daemons support this. Mounting a part of a volume
                needs Docker 26, and only some daemons can mount a path below Docker's own folder.
        """
        covers = {f"{VOLUME_PATH}/{name}": HIDDEN for name in self.hidden} if covered else {}
        return {**writable(self.uid), **covers}


def networks(table: Sequence[Service] = SERVICES) -> dict[str, bool]:
    """Return {network name: whether it has no outbound access} of a node's networks.

    Each program that the reverse proxy serves shares a network with the reverse proxy only. So no other
    container can reach the program, and the program can reach no other container.
    """
    return {row.name: not row.outward for row in (*backends(table), *fronted(table))} | {OUT: False}


def _networks(row: Service, table: Sequence[Service], *, egress: bool) -> tuple[str, ...]:
    behind = [name for name in networks(table) if name != OUT]
    if row.offline:
        return ()
    if row.name == PROXY:
        return tuple(sorted(behind, key=networks(table).__getitem__))
    if row.name not in behind:
        return (OUT,)
    return (OUT, row.name) if egress and not row.outward else (row.name,)


def containers(
    known: Mapping[str, Any], table: Sequence[Service] = SERVICES, *, egress: bool = False
) -> tuple[Container, ...]:
    """Return one container for each program.

    Args:
        known: the node's facts. A container gets only the facts that its program reads.
        egress: whether programs that don't need outbound access get it too.
    """
    behind = tuple(row.name for row in backends(table))
    passed_on = tuple(row.name for row in fronted(table))
    where = {row.name: _networks(row, table, egress=egress) for row in programs(table)}
    return tuple(
        Container(
            service=row.name,
            command=(row.name,),
            environment={SERVICE: row.name, FACTS_ENV: told(row, known)},
            port=row.port,
            published=bool(row.port) and not row.inner and row.name not in passed_on,
            fronts=passed_on if row.name == PROXY else (),
            networks=where[row.name],
            closed=all(networks(table)[name] for name in where[row.name]),
            # A new version that fails must fail before other containers are changed. And before the reverse
            # proxy publishes the port of a service, the container that had that port must be gone.
            depends_on=() if row.name in behind else (*behind, *(passed_on if row.name == PROXY else ())),
            stop_seconds=row.stop_seconds,
            folders=row.folders,
            hidden=tuple(name for name in folders(table) if name not in row.folders),
            share={"memory": row.memory, "cpus": row.cpus, "pids": row.pids},
            yielding=YIELDING if row.yields else 0,
        )
        for row in programs(table)
    )


def machine_containers(
    known: Mapping[str, Any],
    table: Sequence[Service] = SERVICES,
    *,
    egress: bool = False,
    port: int = 0,
    fronted: bool = False,
) -> tuple[Container, ...]:
    """Return the containers of a node on a container host. Users connect to the reverse proxy only.

    A service that the host itself provides has no container.

    Args:
        port, fronted: see `machine_doors`.
    """
    doors = machine_doors(port, fronted=fronted, table=table)
    served = {row.name for row in table if row.provided_by_host}
    return tuple(
        replace(
            part,
            published=False,
            fronts=(),
            published_ports=doors if part.service == PROXY else {},
            uid=MACHINE_UID,
        )
        for part in containers(known, table, egress=egress)
        if part.service not in served
    )


ADDRESSLESS = "com.docker.network.bridge.inhibit_ipv4"
"""Docker's option for a network in which the machine has no address, so that containers can't reach it."""

BRIDGE_NAME = "com.docker.network.bridge.name"


def network_options(closed: bool) -> dict[str, str]:
    """Return Docker's options for one of the node's networks."""
    return {ADDRESSLESS: "true"} if closed else {}


def _network(name: str, closed: bool) -> dict[str, Any]:
    options = {BRIDGE_NAME: f"{BRIDGE}{name}", **network_options(closed)}
    return {"internal": closed, "driver_opts": options}


def compose(
    project: str,
    image: str,
    parts: Sequence[Container],
    ports: Mapping[str, int],
    bind: str,
    volume: str,
    table: Sequence[Service] = SERVICES,
) -> str:
    """Return the compose file of a node, as JSON: every YAML parser can read it.

    Args:
        project: the name of the compose project.
        image: the reference of the node's image, which exists already.
        parts: the node's containers.
        ports: the port outside of each published service.
        bind: the address that ports listen on; empty for all, if there are only `published_ports`.
        volume: the data: a path on the machine that has the node's folders, or a volume's name.
    """
    services: dict[str, Any] = {}
    host = f"[{bind}]" if ":" in bind else bind
    for part in parts:
        services[part.service] = {
            "image": image,
            "command": list(part.command),
            # Compose would substitute text that looks like a variable.
            "environment": {key: text.replace("$", "$$") for key, text in part.environment.items()},
            # The name for `docker exec` and `docker logs`.
            "container_name": f"{project}-{part.service}",
            "init": True,
            "restart": RESTART,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "user": f"{part.uid}:{part.uid}",
            "read_only": True,
            "oom_score_adj": part.yielding,
            "logging": {"driver": LOG_DRIVER, "options": dict(LOG_LIMITS)},
            **({"networks": list(part.networks)} if part.networks else {"network_mode": NO_NETWORK}),
            **({"dns": [NOWHERE]} if part.networks and part.closed else {}),
            "shm_size": MEMORY_FOR_SHARED,
            # The machine's own program computes the limits from this share.
            SHARE: dict(part.share),
            "stop_grace_period": f"{part.stop_seconds}s",
        }
        apart = volume.startswith("/")
        shown = [f"{volume}/{name}:{VOLUME_PATH}/{name}" for name in part.folders]
        services[part.service]["volumes"] = shown if apart else [f"{volume}:{VOLUME_PATH}"]
        tmpfs = part.tmpfs(covered=not apart)
        services[part.service]["tmpfs"] = [f"{path}:{how}" for path, how in tmpfs.items()]
        if part.published_ports:
            at = f"{host}:" if bind else ""
            services[part.service]["ports"] = [
                f"{at}{outer}:{inner}" for outer, inner in part.published_ports.items()
            ]
        if part.published:
            inner = {part.service: part.port, **{name: service(name, table).port for name in part.fronts}}
            services[part.service]["ports"] = [f"{host}:{ports[name]}:{port}" for name, port in inner.items()]
    used = {name for part in parts for name in part.networks}
    nets = {name: _network(name, closed) for name, closed in networks(table).items() if name in used}
    whole: dict[str, Any] = {"name": project, "services": services, "networks": nets}
    if not volume.startswith("/"):
        whole["volumes"] = {volume: {"name": volume}}
    return json.dumps(whole, indent=2) + "\n"
