"""The ports of a Docker node. They are chosen once, when the node's network is created, and then stay."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gridup_infra.locking import locked
from gridup_infra.paths import Home
from gridup_infra.targets import fronting, ports
from gridup_infra.targets.docker import node_labels
from gridup_infra.targets.docker.client import is_local
from gridup_infra.targets.docker.naming import published
from gridup_node.containers import network_options
from gridup_node.services import PROXY

if TYPE_CHECKING:
    import docker

    from gridup_infra.outputs import NodeOutputs
    from gridup_infra.spec import DeploySpec

WAIT = 30
"""Seconds to wait for another deploy that is choosing ports."""


def ensure(
    client: docker.DockerClient, props: Mapping[str, Any], current: Mapping[str, int]
) -> dict[str, int]:
    """Create the node's networks that are missing, and choose its ports. Returns the ports by service.

    Args:
        current: the ports that the node has, by service.

    Raises:
        ResourceError: the requested port is in use, or no free port was found.
        BusyError: another deploy holds the lock for too long.
    """
    asked = int(props["port"])
    with locked(
        Home.default().root / "docker-ports.lock",
        "choosing ports",
        wait=WAIT,
        busy="The ports are being chosen",
    ):
        networks = node_labels.networks(client, props["stack_id"])
        # An interrupted create may have chosen ports already: the network's label records them.
        borne = (_ports(node_labels.label(row, node_labels.PORTS)) for row in networks)
        known = dict(current) or next((ports for ports in borne if ports), {})
        gone = lost(client, props, known)
        others, look = taken(client, props["stack_id"], here=is_local(props["host"])), _look(client, props)
        wanted = published()
        if props.get("https"):
            rootless = "rootless" in str(client.info().get("SecurityOptions"))
            wanted |= {
                PROXY: fronting.first_port(
                    others, lambda port: not rootless and ports.free(props["bind"], port, look)
                )
            }
        chosen = ports.allocate(
            wanted,
            {PROXY: asked} if asked else {},
            {name: port for name, port in known.items() if name not in gone},
            props["bind"],
            others,
            look=look,
        )
        for name in _missing(networks, props):
            labels = node_labels.labels(props)
            if name == props["project"]:
                labels[node_labels.PORTS] = json.dumps(chosen)
            closed = bool(props["networks"][name])
            client.api.create_network(
                name,
                driver="bridge",
                labels=labels,
                check_duplicate=True,
                internal=closed,
                options=network_options(closed),
            )
    return chosen


def _missing(networks: list[dict[str, Any]], props: Mapping[str, Any]) -> list[str]:
    """Return the node's networks that do not exist."""
    return [name for name in props["networks"] if name not in {row["Name"] for row in networks}]


def lost(client: docker.DockerClient, props: Mapping[str, Any], current: Mapping[str, int]) -> dict[str, int]:
    """Return the node's ports, by service, on which another program listens now."""
    own = _own(client, props["stack_id"])
    others = _listening(client, props["stack_id"])
    look = _look(client, props)
    return {
        name: port
        for name, port in current.items()
        if port in others or (port not in own and not ports.free(props["bind"], port, look))
    }


def taken(client: docker.DockerClient, stack_id: str, *, here: bool) -> dict[int, str]:
    """Return {port that must not be allocated: its holder, for a message}.

    Holders are running containers, and other nodes, which may be stopped.

    Args:
        here: whether the daemon publishes ports on this machine.
    """
    found: dict[int, str] = dict(_listening(client, stack_id))
    for thing in (*_managed(client), *client.api.networks(filters={"label": node_labels.MANAGED})):
        if node_labels.label(thing, node_labels.STACK_ID) != stack_id:
            kept = _ports(node_labels.label(thing, node_labels.PORTS))
            found.update(
                dict.fromkeys(kept.values(), f'the node "{node_labels.label(thing, node_labels.NAME)}"')
            )
    if here:
        found.update(ports.reserved_by_others(Home.default().nodes))
    return found


def _look(client: docker.DockerClient, props: Mapping[str, Any]) -> ports.Obstacle:
    here, own = is_local(props["host"]), _own(client, props["stack_id"])

    def look(address: str, port: int) -> int | None:
        # The daemon opens the port: ports that only root may open, or on another machine, are no obstacle.
        if not here or port in own:
            return None
        met = ports.bind_errno(address, port)
        return None if met == errno.EACCES else met

    return look


def _managed(client: docker.DockerClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.api.containers(all=True, filters={"label": node_labels.MANAGED})
    return found


def _own(client: docker.DockerClient, stack_id: str) -> set[int]:
    """Return the published ports of this node's running containers."""
    rows = client.api.containers(filters=node_labels.filters(stack_id))
    return {port["PublicPort"] for row in rows for port in row.get("Ports") or () if "PublicPort" in port}


def _listening(client: docker.DockerClient, stack_id: str) -> dict[int, str]:
    """Return {published port of a running container of another owner: that container, for a message}."""
    return {
        port["PublicPort"]: f"the container {row['Names'][0].lstrip('/')}"
        for row in client.api.containers()
        if node_labels.label(row, node_labels.STACK_ID) != stack_id
        for port in row.get("Ports") or ()
        if "PublicPort" in port
    }


def _ports(text: str) -> dict[str, int]:
    with contextlib.suppress(ValueError, AttributeError):
        return {str(name): int(port) for name, port in json.loads(text or "{}").items()}
    return {}


def problems(client: docker.DockerClient, props: Mapping[str, Any], current: Mapping[str, int]) -> list[str]:
    """Return a line for each problem with a node's networks and ports."""
    # The state of an earlier version names no networks.
    wanted = {**props, "networks": props.get("networks") or {}}
    networks = node_labels.networks(client, props["stack_id"])
    if not networks:
        return ["the node's network is gone"]
    if missing := _missing(networks, wanted):
        return [f"the node's network {name} is gone" for name in missing]
    gone = lost(client, props, current)
    return [f"port {port} ({name}) is another's now" for name, port in gone.items()]


def check(client: docker.DockerClient, spec: DeploySpec, current: NodeOutputs | None) -> None:
    """Check that the bind address belongs to this machine and that the requested port is available.

    Raises:
        ResourceError: one of them does not hold; the message names the obstacle.
    """
    props = {"stack_id": spec.stack_id, "host": spec.host, "bind": spec.bind}
    look = _look(client, props)
    ports.free(spec.bind, 0, look)
    had = current.ports.get(PROXY) if current else None
    if spec.port and (spec.port != had or (current and current.spec.bind != spec.bind)):
        ports.check_kept(spec.port, taken(client, spec.stack_id, here=is_local(spec.host)))
        ports.check_free(spec.bind, spec.port, look)
