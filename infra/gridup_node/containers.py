"""The service table -> the containers of a node, and the compose file that runs them. Pure, as `render`.

The target `docker` makes the containers itself, a VM has compose make them: both from what is here.
Standard library only.
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
"""Where every container of a node has its data; the image's GRIDUP_NODE_DATA."""

LAID = ("sh", "-c", f'test -e "${HOME_VARIABLE}/config/programs.json"')
"""A command in a container: whether it has laid its part of the node, as it does in its first second. Before
that, nothing of ours can be run in it."""
LAID_SECONDS = 60.0

NO_NETWORK = "none"
"""Docker's name for a container's network that is its own loopback and nothing else."""

CA_FILE = f"{VOLUME_PATH}/proxy/caddy/pki/authorities/local/root.crt"
"""Where Caddy, as the reverse proxy, keeps the certificate of the node's own CA."""

OUT = "out"
"""The network of what people connect to without the reverse proxy, and of what is let out without need."""

HIDDEN = "ro,size=4k,mode=000"
"""Of the empty file system that covers a folder which a container must not see."""

RESTART = "unless-stopped"
YIELDING = 500
"""Of 1000, by which the kernel ends a container that yields before all others."""

MEMORY_FOR_SHARED = 256 * 1024 * 1024
"""Bytes of /dev/shm: what numpy and its like share between processes; Docker's own is 64 MB."""


@dataclass(frozen=True)
class Container:
    """One container of a node.

    Attributes:
        service: the key in the service table, and its name in the node's network.
        command: what the image's entry point is told.
        environment: never a secret.
        port: what its program listens on, in the container.
        published: whether people connect to that port.
        fronts: the services whose port it is published at as well: it passes on to them.
        after: services that must have proven themselves before this one is changed.
        stop_seconds: how long it may take to stop before it is killed.
        doors: further ports that it is published at, each with the one in the container.
        folders: of the node's data: those that it sees.
        hidden: all the others.
        share: its limits, see `confines.limits`.
        yielding: how early it is ended where the machine's memory runs out; 0 to 1000.
        uid: of its program.
        networks: that it is in, the first of which has a way out where any has; none for no network at all.
        closed: whether it has no way out of the node.
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
        """The file systems in memory that it has, by their path, each with its options.

        Args:
            covered: whether it has a volume with all of the node's data, so that what it must not see is
                covered. A part of a volume can be mounted from Docker 26 on, and a path below Docker's own
                folder by some daemons only; this by all.
        """
        covers = {f"{VOLUME_PATH}/{name}": HIDDEN for name in self.hidden} if covered else {}
        return {**writable(self.uid), **covers}


def networks(table: Sequence[Service] = SERVICES) -> dict[str, bool]:
    """The networks of a node, each with whether it has no way out.

    Each program behind the reverse proxy has one with the reverse proxy alone: it is reached by no other way,
    and reaches nobody else.
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
    """A container for each program.

    Args:
        known: what the node may know of itself; a container is told only what its program reads.
        egress: whether those may connect to what is outside whose program needs not.
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
            # A new version that fails must fail before anything else of the node is touched. And before the
            # reverse proxy has a port of theirs, those must be gone that had it themselves.
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
    """Those of a node on a machine of its own: the reverse proxy is the only one that people connect to.

    What the machine itself serves has none.

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
"""Docker's option for a network on which the machine itself has no address, and so can't be reached."""

BRIDGE_NAME = "com.docker.network.bridge.name"


def network_options(closed: bool) -> dict[str, str]:
    """Docker's options for one of the node's networks."""
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
    """The compose file of a node: JSON, which every reader of YAML takes.

    Args:
        project: compose's name for the whole.
        image: the reference of the node's image, already there.
        ports: what each published service is reached at, outside.
        bind: the address that ports listen on; empty for all, where only doors are published.
        volume: the data: a path on the machine, with the node's folders in it, or a volume's name.
    """
    services: dict[str, Any] = {}
    host = f"[{bind}]" if ":" in bind else bind
    for part in parts:
        services[part.service] = {
            "image": image,
            "command": list(part.command),
            # Compose would fill in what looks like a variable.
            "environment": {key: text.replace("$", "$$") for key, text in part.environment.items()},
            # What `docker exec` and `docker logs` find it by.
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
            # What that comes to is for the machine to say.
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
