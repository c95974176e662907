"""Networks of a daemon that lead nowhere: what has an address in one is hidden from the containers in it.

A cloud tells a machine its identity, and secrets, at addresses of its own, and a container with a way out
reaches them as the machine does. The firewall of the daemon's machine is not ours. But a container that is
in an internal network with just those addresses has a route there, which the daemon lays anew at each start,
and finds nobody at its end. The machine itself has no address in that network, so that its own routes stay as
they are. Docker gives addresses to one network only: all nodes on a daemon share these, and in them no
container reaches another.

Where the daemon's machine asks for names at such an address, as on Azure and Google's cloud, the containers
must reach it too. And where Docker keeps no firewall (`--iptables=false`), containers in one network do reach
each other, past a node's proxy: that is tried once. In both cases the addresses stay open, and that is said.
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
"""The networks by their name on the daemon: link-local addresses, where clouds have their metadata services,
and those around Azure's 168.63.129.16. Amazon's fd00:ec2::254 is IPv6, which a node's networks have not."""

OPTIONS = {ADDRESSLESS: "true", "com.docker.network.bridge.enable_icc": "false"}

TRYING = "-apart"
"""Ends the name of the network in which is tried whether containers are kept apart."""

ASK_SECONDS = 60

THERE_SECONDS = 15 * 60
"""How long who is to be reached stays, at most: making the next container may take minutes (vfs)."""

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
"""Tells by its exit code, a bit for each network: what a program writes that ends at once may be lost."""


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
"""Ends with 1 where somebody is at an address, with 0 where nothing comes back."""


def join(client: docker.DockerClient, identity: str, props: Mapping[str, Any]) -> None:
    """Put a container, that has a way out, into those networks; made where they are not there."""
    for name in hidden(client, props):
        client.api.connect_container_to_network(identity, name)


def hidden(client: docker.DockerClient, props: Mapping[str, Any]) -> list[str]:
    """The networks that a container is to be in."""
    if props["closed"]:
        return []
    return [name for name, why in _why_open(client, props).items() if not why]


def label(client: docker.DockerClient, props: Mapping[str, Any]) -> dict[str, str]:
    """The label of a container that says what is not hidden from it, and why."""
    if props["closed"]:
        return {}
    return {
        node_labels.OPEN: json.dumps({name: why for name, why in _why_open(client, props).items() if why})
    }


def missing(container: Mapping[str, Any]) -> list[str]:
    """The networks that a container was put into and is not in any more; of one that an earlier version has
    made, or that has no way out, none."""
    text = (container["Config"]["Labels"] or {}).get(node_labels.OPEN)
    if text is None:
        return []
    there = container["NetworkSettings"]["Networks"]
    return [name for name in HIDDEN if name not in json.loads(text) and name not in there]


def notes(service: str, container: Mapping[str, Any]) -> list[str]:
    """What of it a container reaches all the same, a line each."""
    text = (container["Config"]["Labels"] or {}).get(node_labels.OPEN) or "{}"
    return [f"{service} reaches {HIDDEN[name]}: {why}" for name, why in json.loads(text).items()]


def forget(client: docker.DockerClient) -> None:
    """Remove those networks that no node needs any more. A container that is stopped needs its own too."""
    import docker

    for name in HIDDEN:
        for row in client.api.networks(names=[name], filters={"label": node_labels.NOWHERE}):
            if not client.api.containers(all=True, filters={"network": row["Id"]}):
                try:
                    client.api.remove_network(row["Id"])
                except docker.errors.APIError:
                    continue  # Another node has joined it, or removed it.


def _why_open(client: docker.DockerClient, props: Mapping[str, Any]) -> dict[str, str]:
    """Why each of the networks can't be joined; empty for one that can."""
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
    """Have a network; why it can't be had, or nothing."""
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
        # Another deploy was faster, or somebody's network has those addresses.
        return (
            ""
            if _is_there(client, name)
            else f"the daemon does not make the network that would hide it ({reason(error)})"
        )
    return ""


def _keeps_apart(client: docker.DockerClient, props: Mapping[str, Any]) -> bool:
    """Whether a container in such a network does not reach another one there. It is tried in one of the
    node's own: no other container is in that, and joins it."""
    import docker

    name, addresses = next(iter(HIDDEN.items()))
    if _is_there(client, name):
        return True  # It would not be there.
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
            # Nobody comes back from one that has ended either.
            return _code(client, made) == 0 and _runs(client, other)


@contextlib.contextmanager
def _helper(
    client: docker.DockerClient, props: Mapping[str, Any], network: str, ending: str, argv: list[str]
) -> Iterator[str]:
    """A container without any rights that runs a program of ours, as long as the block lasts; its id, or
    nothing where the daemon would not start it."""
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
    """How a helper's program ended; None where it did not."""
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
"""What was found in this process, once for each daemon and image."""


def _daemon(client: docker.DockerClient, props: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Where the daemon's containers ask for names, a bit for each of `HIDDEN` (None where none is told), and
    whether it keeps those of one network apart. A node's containers are made at the same time: one asks."""
    key = (str(props["host"]), str(props["image"]))
    with _turn:
        if key not in _told:
            _told[key] = (_ask(client, props), _keeps_apart(client, props))
        return _told[key]


def _ask(client: docker.DockerClient, props: Mapping[str, Any]) -> int | None:
    # In a network of its own Docker would show a name server of its own.
    with _helper(client, props, "bridge", "-names", ["python3", "-c", ASK, *HIDDEN.values()]) as made:
        code = _code(client, made)
    return code if code is not None and code < 1 << len(HIDDEN) else None
