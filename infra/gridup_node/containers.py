"""The service table -> the containers of a node, and the compose file that runs them. Pure, as `render`.

The target `docker` makes the containers itself, a VM has compose make them: both from what is here.
Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gridup_node.container import TOLD, told
from gridup_node.health import SERVICE
from gridup_node.services import (
    FRONT,
    REDIRECT_PORT,
    SERVICES,
    Service,
    backends,
    inside,
    machine_fronted,
    machine_ports,
    programs,
)

VOLUME_PATH = "/var/lib/gridup"
"""Where every container of a node has its data; the image's GRIDUP_NODE_DATA."""

RESTART = "unless-stopped"
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
        after: services that must have proven themselves before this one is changed.
        stop_seconds: how long it may take to stop before it is killed.
        doors: further ports that it is published at, each with the one in the container.
    """

    service: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    published: bool
    after: tuple[str, ...]
    stop_seconds: int
    doors: Mapping[int, int] = field(default_factory=dict)


def containers(known: Mapping[str, Any], table: Sequence[Service] = SERVICES) -> tuple[Container, ...]:
    """A container for each program.

    Args:
        known: what the node may know of itself; a container is told only what its program reads.
    """
    behind = tuple(row.name for row in backends(table))
    return tuple(
        Container(
            service=row.name,
            command=(row.name,),
            environment={SERVICE: row.name, TOLD: told(row, known)},
            port=row.port,
            published=bool(row.port) and not row.inner,
            # A new version that fails must fail before anything else of the node is touched.
            after=() if row.name in behind else behind,
            stop_seconds=row.stop_seconds,
        )
        for row in programs(table)
    )


def machine_containers(
    known: Mapping[str, Any], table: Sequence[Service] = SERVICES
) -> tuple[Container, ...]:
    """Those of a node on a machine of its own: the front door is the only one that people connect to.

    What the machine itself serves has none.
    """
    own = machine_ports(table)
    outside = [own[FRONT], REDIRECT_PORT, *(own[row.name] for row in machine_fronted(table))]
    doors = {port: inside(port) for port in outside}
    served = {row.name for row in table if row.machine_serves}
    return tuple(
        replace(part, published=False, doors=doors if part.service == FRONT else {})
        for part in containers(known, table)
        if part.service not in served
    )


def compose(
    project: str,
    image: str,
    parts: Sequence[Container],
    ports: Mapping[str, int],
    bind: str,
    volume: str,
) -> str:
    """The compose file of a node: JSON, which every reader of YAML takes.

    Args:
        project: compose's name for the whole.
        image: the reference of the node's image, already there.
        ports: what each published service is reached at, outside.
        bind: the address that those ports listen on.
        volume: the data: a volume's name, or a path on the machine.
    """
    services: dict[str, Any] = {}
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
            "shm_size": MEMORY_FOR_SHARED,
            "stop_grace_period": f"{part.stop_seconds}s",
            "volumes": [f"{volume}:{VOLUME_PATH}"],
        }
        if part.doors:
            services[part.service]["ports"] = [f"{outer}:{inner}" for outer, inner in part.doors.items()]
        if part.published:
            host = f"[{bind}]" if ":" in bind else bind
            services[part.service]["ports"] = [f"{host}:{ports[part.service]}:{part.port}"]
    whole: dict[str, Any] = {"name": project, "services": services}
    if not volume.startswith("/"):
        whole["volumes"] = {volume: {"name": volume}}
    return json.dumps(whole, indent=2) + "\n"
