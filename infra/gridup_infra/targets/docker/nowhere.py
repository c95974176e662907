"""Dead-end networks on a daemon, which hide a cloud's metadata addresses from the containers.

A cloud serves a machine its identity, and secrets, at fixed addresses. A container with outside access
reaches these addresses as the machine does. Gridup does not own the firewall of the daemon's machine.
Instead, the container joins an internal network whose subnet covers these addresses. The container's route to
them then leads into this network, where nobody answers. The daemon sets this route again at each start. The
machine itself has no address in the network, so its own routes do not change. Docker gives a subnet to one
network only, so all nodes on a daemon share these networks. Containers in them can't reach each other.

The addresses stay open in two cases, and Gridup reports it:

- The daemon's machine uses a name server at such an address, as on Azure and Google Cloud. The containers
  need that name server too.
- Docker manages no firewall (`--iptables=false`). Containers in one network can then reach each other, past a
  node's reverse proxy. Gridup tests this once.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gridup_infra.targets.docker import node_labels
from gridup_infra.targets.docker.client import reason
from gridup_node.containers import ADDRESSLESS

if TYPE_CHECKING:
    import docker

HIDDEN: Mapping[str, str] = {
    "gridup-nowhere-link-local": "169.254.0.0/16",
    "gridup-nowhere-azure": "168.63.129.0/24",
}
"""The daemon's name of each network -> its subnet: the link-local addresses, where clouds have their metadata
services, and the addresses around Azure's 168.63.129.16. Amazon's fd00:ec2::254 needs no network: it is IPv6,
which a node's networks do not have."""

OPTIONS = {ADDRESSLESS: "true", "com.docker.network.bridge.enable_icc": "false"}

TRYING = "-apart"
"""Suffix of the name of the network that tests whether the daemon keeps containers apart."""

ASK_SECONDS = 60

THERE_SECONDS = 15 * 60
"""How long the container that the test tries to reach runs at most. With the storage driver vfs, it may take
minutes to create the next container."""

ASK = """\
import ipaddress, sys
servers = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver ")]
servers = [ipaddress.ip_address(server.partition("%")[0]) for server in servers]
code = 0
for number, network in enumerate(sys.argv[1:]):
    if any(server in ipaddress.ip_network(network) for server in servers):
        code |= 1 << number
sys.exit(code)
"""
"""Program that checks which networks a name server of the container is in. The exit code has a bit for each
network. The program prints nothing, because Docker may lose the output of a program that ends at once."""


TRY = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 3).close()
except ConnectionRefusedError:
    pass
except OSError:
    sys.exit(0)
sys.exit(1)
"""
"""Program that tries to reach an address. Exit code 1: a machine answers there. 0: nothing comes back."""


def join(client: docker.DockerClient, identity: str, props: Mapping[str, Any]) -> None:
    """Connect a container with outside access to the dead-end networks. Creates missing networks."""
    for name in hidden(client, props):
        client.api.connect_container_to_network(identity, name)


def hidden(client: docker.DockerClient, props: Mapping[str, Any]) -> list[str]:
    """Return the dead-end networks that a container must be in; [] without outside access.

    Creates the networks that are missing.
    """
    if props["closed"]:
        return []
    return [name for name, why in _why_open(client, props).items() if not why]


def label(client: docker.DockerClient, props: Mapping[str, Any]) -> dict[str, str]:
    """Return the label that records what is not hidden from a container, and why.

    Empty without outside access.
    """
    if props["closed"]:
        return {}
    return {
        node_labels.OPEN: json.dumps({name: why for name, why in _why_open(client, props).items() if why})
    }


def missing(container: Mapping[str, Any]) -> list[str]:
    """Return the dead-end networks that a container was connected to and is not in any more.

    Empty for a container of an earlier version or without outside access: it has no such label.
    """
    text = (container["Config"]["Labels"] or {}).get(node_labels.OPEN)
    if text is None:
        return []
    there = container["NetworkSettings"]["Networks"]
    return [name for name in HIDDEN if name not in json.loads(text) and name not in there]


def notes(service: str, container: Mapping[str, Any]) -> list[str]:
    """Return a line for each address range that a container can still reach, with the reason."""
    text = (container["Config"]["Labels"] or {}).get(node_labels.OPEN) or "{}"
    return [f"{service} reaches {HIDDEN[name]}: {why}" for name, why in json.loads(text).items()]


def forget(client: docker.DockerClient) -> None:
    """Remove the dead-end networks that no container is in. A stopped container still needs its networks."""
    import docker

    for name in HIDDEN:
        for row in client.api.networks(names=[name], filters={"label": node_labels.NOWHERE}):
            if not client.api.containers(all=True, filters={"network": row["Id"]}):
                try:
                    client.api.remove_network(row["Id"])
                except docker.errors.APIError:
                    continue  # Another node has joined or removed the network meanwhile.


def _why_open(client: docker.DockerClient, props: Mapping[str, Any]) -> dict[str, str]:
    """Return {dead-end network: why it can't be joined}; the reason is empty if it can be joined.

    Creates the networks that can be joined and are missing.
    """
    asked, apart = _daemon(client, props)
    found = {}
    for number, (name, addresses) in enumerate(HIDDEN.items()):
        if asked is None:
            found[name] = "where the daemon's machine asks for names could not be told"
        elif asked & 1 << number:
            found[name] = (
                'the daemon\'s machine asks for names there. Give its Docker other name servers ("dns" in '
                "daemon.json), and deploy with --rebuild"
            )
        elif not apart:
            found[name] = "the daemon keeps containers in one network not apart, so that none can hide it"
        else:
            found[name] = _ensure(client, name, addresses)
    return found


def _is_there(client: docker.DockerClient, name: str) -> bool:
    return bool(client.api.networks(names=[name], filters={"label": node_labels.NOWHERE}))


def _addresses(network: str) -> docker.types.IPAMConfig:
    import docker

    return docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=network)])


def _ensure(client: docker.DockerClient, name: str, addresses: str) -> str:
    """Create a dead-end network if it is missing. Returns why it can't be created; empty on success."""
    import docker

    if _is_there(client, name):
        return ""
    try:
        client.api.create_network(
            name,
            driver="bridge",
            labels={node_labels.NOWHERE: "true"},
            check_duplicate=True,
            internal=True,
            options=OPTIONS,
            ipam=_addresses(addresses),
        )
    except docker.errors.APIError as error:
        # Another deploy created it first, or another network has this subnet.
        return (
            ""
            if _is_there(client, name)
            else f"the daemon does not make the network that would hide it ({reason(error)})"
        )
    return ""


def _keeps_apart(client: docker.DockerClient, props: Mapping[str, Any]) -> bool:
    """Return whether the daemon keeps containers in one dead-end network apart.

    The test uses a temporary network of the node, which no other container joins.
    """
    import docker

    name, addresses = next(iter(HIDDEN.items()))
    if _is_there(client, name):
        return True  # The network is only created where the test succeeded.
    network = f"{props['project']}{TRYING}"
    try:
        made = client.api.create_network(
            network,
            driver="bridge",
            labels=node_labels.labels(props),
            internal=True,
            options=OPTIONS,
            ipam=_addresses(addresses),
        )
    except docker.errors.APIError:
        return False
    try:
        return _is_alone(client, network, props)
    finally:
        with contextlib.suppress(docker.errors.APIError):
            client.api.remove_network(made["Id"])


def _is_alone(client: docker.DockerClient, network: str, props: Mapping[str, Any]) -> bool:
    wait = ["python3", "-c", f"import time; time.sleep({THERE_SECONDS})"]
    with _helper(client, props, network, "-there", wait) as other:
        found = client.api.inspect_container(other)["NetworkSettings"]["Networks"] if other else {}
        address = str((found.get(network) or {}).get("IPAddress") or "")
        if not address:
            return False
        with _helper(client, props, network, "-here", ["python3", "-c", TRY, address]) as made:
            # The result only counts if the other container still runs: a stopped one does not answer either.
            return _code(client, made) == 0 and _runs(client, other)


@contextlib.contextmanager
def _helper(
    client: docker.DockerClient, props: Mapping[str, Any], network: str, ending: str, argv: list[str]
) -> Iterator[str]:
    """Run a program in a container without privileges, and remove the container at the end of the block.

    Yields the container's id; an empty string if the daemon refuses to start it.
    """
    import docker

    api, made = client.api, ""
    try:
        made = api.create_container(
            props["image"],
            entrypoint=argv,
            name=f"{props['project']}{ending}",
            labels=node_labels.labels(props),
            host_config=api.create_host_config(
                network_mode=network,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                read_only=True,
                init=True,
            ),
        )["Id"]
        api.start(made)
    except docker.errors.APIError:
        if made:
            api.remove_container(made, force=True)
        yield ""
        return
    try:
        yield made
    finally:
        api.remove_container(made, force=True)


def _runs(client: docker.DockerClient, identity: str) -> bool:
    return bool(client.api.inspect_container(identity)["State"]["Running"])


def _code(client: docker.DockerClient, made: str) -> int | None:
    """Return the exit code of a helper container; None if it did not start or did not end in time."""
    import docker
    import requests

    if not made:
        return None
    try:
        return int(client.api.wait(made, timeout=ASK_SECONDS)["StatusCode"])
    except (docker.errors.APIError, requests.RequestException):
        return None


_turn = threading.Lock()
_told: dict[tuple[str, str], tuple[int | None, bool]] = {}
"""The results of `_daemon` in this process, by daemon and image."""


def _daemon(client: docker.DockerClient, props: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Return (name servers in `HIDDEN`, whether the daemon keeps containers in one network apart).

    The first value has a bit for each network of `HIDDEN` that contains a name server of the containers; None
    if this is not known. A node's containers are created in parallel: only the first caller runs the tests.
    """
    key = (str(props["host"]), str(props["image"]))
    with _turn:
        if key not in _told:
            _told[key] = (_ask(client, props), _keeps_apart(client, props))
        return _told[key]


def _ask(client: docker.DockerClient, props: Mapping[str, Any]) -> int | None:
    # On the default bridge: in any other network, containers get Docker's own name server.
    with _helper(client, props, "bridge", "-names", ["python3", "-c", ASK, *HIDDEN.values()]) as made:
        code = _code(client, made)
    return code if code is not None and code < 1 << len(HIDDEN) else None
