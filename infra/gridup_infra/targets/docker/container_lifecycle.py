"""A node's containers on a daemon: create one, report its drift, replace it, roll back to the former one.

Almost nothing of an existing container can be changed, so a change creates a new container. The former one is
stopped and renamed. It is removed only when the new one is healthy. If a run is interrupted in between, the
next run rolls back first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from gridup_infra.errors import ResourceError
from gridup_infra.processes import wait_until
from gridup_infra.targets import ports
from gridup_infra.targets.docker import images, node_labels, nowhere
from gridup_infra.targets.docker.client import reason
from gridup_infra.targets.dynamic import fault_point, normalize_numbers
from gridup_node.confines import LOG_DRIVER, LOG_LIMITS, NOWHERE, altered, limits
from gridup_node.containers import MEMORY_FOR_SHARED, RESTART, VOLUME_PATH
from gridup_node.services import backends
from gridup_node.services import ports as ports_within
from gridup_node.vm.docker_cli import crash_of

if TYPE_CHECKING:
    import docker

PREVIOUS_SUFFIX = "-former"
"""Suffix of the name of a former container while a new one replaces it."""

HEALTH_SECONDS = 180.0
"""Time limit for a new version to become healthy. The import of syft takes 6 s on an idle machine."""

HEALTH = ("python", "-m", "gridup_node.health")
"""The image's own health check, as a command in a container."""

PREPARING = "-folders"
"""Suffix of the name of the container that prepares the data folders before a node's first containers."""

PREPARE_SECONDS = 120

CA_SECONDS = 30.0
"""Time limit for a running reverse proxy to write its CA's certificate."""

CERTIFICATE_END = "-----END CERTIFICATE-----"

LOG_LINES = 15
Say = Callable[[str], None]


def name_of(props: Mapping[str, Any]) -> str:
    """Return the container's name. It is the resource's id, so it stays when the container is replaced."""
    return f"{props['project']}-{props['service']}"


def config_hash(props: Mapping[str, Any]) -> str:
    """Return a hash of all inputs that the container is created with."""
    container = ("image", "command", "environment", "volume", "tmpfs", "share", "yielding")
    keys = (*container, "networks", "closed", "port", "published", "fronts", "bind")
    return hashlib.sha256(
        json.dumps({key: normalize_numbers(props[key]) for key in keys}, sort_keys=True).encode()
    ).hexdigest()[:16]


def find(client: docker.DockerClient, name: str) -> dict[str, Any] | None:
    """Return one container as `docker inspect` describes it; None if it does not exist."""
    import docker

    try:
        found: dict[str, Any] = client.api.inspect_container(name)
    except docker.errors.NotFound:
        return None
    return found


def drift(container: Mapping[str, Any], props: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """Return a line for each difference from the definition. That the container does not run is one.

    Args:
        container: the result of `docker inspect`.
        machine: the result of `docker info`.
    """
    service = props["service"]
    if not is_ours(container, props["stack_id"]):
        return [f"{service}: the container {name_of(props)} is not this node's"]
    host = container["HostConfig"]
    problems = []
    if container["Config"]["Labels"].get(node_labels.CONFIG) != props["config"]:
        problems.append(f"{service}: the container differs from its definition")
    if host["RestartPolicy"]["Name"] != RESTART:
        problems.append(f"{service}: the restart policy was changed")
    if _unbound(container, props, machine):
        problems.append(f"{service}: the container's limits were changed")
    if _missing(container, props):
        problems.append(f"{service}: the container was taken off the node's network")
    state = container["State"]
    if state["Paused"]:
        problems.append(f"{service}: the container is paused")
    elif not state["Running"] and not state["Restarting"]:
        problems.append(f"{service}: the container does not run (exit code {state['ExitCode']})")
    return problems


def _unbound(container: Mapping[str, Any], props: Mapping[str, Any], machine: Mapping[str, Any]) -> bool:
    """Return whether the container's limits differ from its share of the machine.

    A container of an earlier version has no recorded share, and so never differs.
    """
    share = props.get("share") or {}
    return bool(share) and altered(limits(share, machine), container["HostConfig"])


def _missing(container: Mapping[str, Any], props: Mapping[str, Any]) -> list[str]:
    """Return the networks that the container should be in and is not."""
    # A container of an earlier version has a single network.
    wanted = props["networks"] if "networks" in props else [props["network"]]
    gone = [name for name in wanted if name not in container["NetworkSettings"]["Networks"]]
    return [*gone, *nowhere.missing(container)]


def is_ours(container: Mapping[str, Any], stack_id: str) -> bool:
    return bool((container["Config"]["Labels"] or {}).get(node_labels.STACK_ID) == stack_id)


def converge(client: docker.DockerClient, props: Mapping[str, Any], say: Say) -> None:
    """Create, repair or replace the container so that it is as defined and runs.

    Raises:
        ResourceError: a container of another owner has its name; it can't be created or started; or the new
            version does not become healthy. A former container that ran then runs again.
    """
    name = name_of(props)
    served = _settle(client, name, props["stack_id"])
    current = find(client, name)
    if current is not None and not is_ours(current, props["stack_id"]):
        raise ResourceError(
            f"A container called {name} is there already, and is not ours.", "Remove or rename it."
        )
    _bring(client, current, props, say, served=served)
    made = find(client, name)
    for line in nowhere.notes(props["service"], made) if made else ():
        say(line)


def _bring(
    client: docker.DockerClient,
    current: Mapping[str, Any] | None,
    props: Mapping[str, Any],
    say: Say,
    *,
    served: bool,
) -> None:
    """Create, repair or replace the container, depending on its current state; see `converge`.

    Args:
        current: the container as it is; None if it does not exist.
        served: whether an interrupted replacement was rolled back: then the container ran before it.
    """
    if current is None:
        _make(client, props, say)
    elif config_hash(props) == current["Config"]["Labels"].get(node_labels.CONFIG) and not _unbound(
        current, props, client.api.info()
    ):
        _repair(client, current, props, say)
    else:
        _replace(client, current, props, say, ran=served or bool(current["State"]["Running"]))


def _repair(
    client: docker.DockerClient, current: Mapping[str, Any], props: Mapping[str, Any], say: Say
) -> None:
    identity = current["Id"]
    if current["HostConfig"]["RestartPolicy"]["Name"] != RESTART:
        client.api.update_container(identity, restart_policy={"Name": RESTART})
    for network in _missing(current, props):
        if network in nowhere.HIDDEN:
            nowhere.hidden(client, props)
        aliases = None if network in nowhere.HIDDEN else [props["service"]]
        client.api.connect_container_to_network(identity, network, aliases=aliases)
    if current["State"]["Paused"]:
        client.api.unpause(identity)
    elif not current["State"]["Running"]:
        say("starting")
        start(client, identity, props)


def _make(client: docker.DockerClient, props: Mapping[str, Any], say: Say) -> None:
    say("starting")
    identity = _create(client, props)
    fault_point("Container.created")
    try:
        start(client, identity, props)
    except ResourceError:
        _remove(client, identity)
        raise


def _replace(
    client: docker.DockerClient, former: Mapping[str, Any], props: Mapping[str, Any], say: Say, *, ran: bool
) -> None:
    name, seconds = name_of(props), int(props["stop_seconds"])
    try:
        say("stopping the former one")
        # Stop before the rename: a container in a crash loop can't be renamed between two starts.
        client.api.stop(former["Id"], timeout=seconds)
        client.api.rename(former["Id"], f"{name}{PREVIOUS_SUFFIX}")
        fresh = _create(client, props)
        fault_point("Container.stopped")
        say("starting the new one")
        start(client, fresh, props)
        _wait_healthy(client, fresh, props, say)
    except BaseException as error:
        say("going back to the former one")
        _roll_back(client, name, former["Id"], run=ran)
        if isinstance(error, ResourceError) and ran:
            raise ResourceError(
                error.message, f"{error.suggestion} The former one runs again.".strip(), error.details
            ) from error
        raise
    _remove(client, former["Id"])
    # The last container that leaves a former version also removes that version's image.
    images.remove(client, props["stack_id"], but=props["image"])


def _wait_healthy(client: docker.DockerClient, identity: str, props: Mapping[str, Any], say: Say) -> None:
    """Wait until the container passes its health check.

    Raises:
        ResourceError: the container is gone, crashes, or does not become healthy in time. The end of its log
            is in the details.
    """
    last = "it has not answered yet"
    end = time.monotonic() + float(props.get("health_seconds") or HEALTH_SECONDS)
    say("waiting for it to prove itself")
    while time.monotonic() < end:
        state = find(client, identity)
        if state is None:
            raise ResourceError(f"{props['service']}: the new container is gone.")
        if how := crash_of(state):
            raise ResourceError(f"{props['service']}: {how}.", "", log_tail(client, identity))
        code, text = asked(client, identity, HEALTH)
        if code == 0:
            return
        last = text or last
        time.sleep(0.5)
    raise ResourceError(
        f"{props['service']}: the new version did not become healthy: {last}.", "", log_tail(client, identity)
    )


def asked(client: docker.DockerClient, identity: str, argv: Sequence[str]) -> tuple[int, str]:
    """Run a short command in a container. Returns (exit code, output on one line).

    The exit code is 1 if the command can't be run now; the output is then the daemon's reason.
    """
    import docker

    try:
        made = client.api.exec_create(identity, list(argv))
        text = client.api.exec_start(made["Id"]).decode(errors="replace")
        code = client.api.exec_inspect(made["Id"])["ExitCode"]
    except docker.errors.APIError as error:
        return 1, reason(error)  # The container may be between two starts.
    return 1 if code is None else int(code), " ".join(text.split())


def log_tail(client: docker.DockerClient, identity: str, lines: int = LOG_LINES) -> tuple[str, ...]:
    """Return the last lines of a container's log, without blank ones; () if the daemon refuses."""
    import docker

    try:
        text: bytes = client.api.logs(identity, tail=lines, stdout=True, stderr=True)
    except docker.errors.APIError:
        return ()
    return tuple(line for line in text.decode(errors="replace").splitlines() if line.strip())


def read(client: docker.DockerClient, container: str, path: str) -> bytes:
    """Return the content of a file in a container; b"" if it does not exist.

    The daemon reads the file, not a program such as `cat` in the container: Docker can lose the output of a
    program that writes in its first milliseconds and ends (20.10: once in some hundred runs on a busy
    machine).
    """
    import docker

    try:
        parts, _ = client.api.get_archive(container, path)
    except docker.errors.NotFound:
        return b""
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as tar:
        file = tar.extractfile(PurePosixPath(path).name)
        return file.read() if file else b""


def ca_of(client: docker.DockerClient, props: Mapping[str, Any]) -> str:
    """Return the certificate (PEM) of the node's own CA; empty for a container that creates no CA.

    Raises:
        ResourceError: the certificate does not exist after `CA_SECONDS`.
    """
    if not props.get("ca_file"):
        return ""
    found: list[str] = []

    def made() -> bool:
        found[:] = [read(client, name_of(props), props["ca_file"]).decode("ascii", errors="replace")]
        return CERTIFICATE_END in found[0]

    if not wait_until(made, timeout=CA_SECONDS):
        raise ResourceError(
            f"{props['service']} has made no certificate in {props['ca_file']}.",
            "",
            log_tail(client, name_of(props)),
        )
    return found[0]


def start(client: docker.DockerClient, identity: str, props: Mapping[str, Any]) -> None:
    """Start a container.

    Raises:
        ResourceError: its port is in use, or the daemon refuses for another reason.
    """
    import docker

    try:
        client.api.start(identity)
    except docker.errors.APIError as error:
        text = reason(error)
        if "already allocated" in text or "address already in use" in text:
            own = [int(props["published"]), *(int(port) for port in props["fronts"].values())]
            port = next((port for port in own if f":{port}" in text), own[0])
            raise ResourceError(
                f"Port {port} of {props['bind']} is in use by {holder(client, port)}.",
                "Give another --port, or deploy again: the next free one is taken.",
            ) from error
        raise ResourceError(f"{props['service']} could not be started: {text}.") from error


def holder(client: docker.DockerClient, port: int) -> str:
    """Return what uses a port, for a message: a container by its name, else a process of this machine."""
    for container in client.api.containers():
        if any(row.get("PublicPort") == port for row in container.get("Ports") or ()):
            return f"the container {container['Names'][0].lstrip('/')}"
    return ports.holder(port)


def _prepare(client: docker.DockerClient, props: Mapping[str, Any]) -> None:
    """Prepare the data folders for the node's containers, in a container; see `gridup_node.folders`.

    Raises:
        ResourceError: the folders can't be prepared, or not in time.
    """
    import docker
    import requests

    name = f"{props['project']}{PREPARING}"
    remove(client, name, props["stack_id"], 0)
    api = client.api
    made = api.create_container(
        props["image"],
        entrypoint=["python3", "-m", "gridup_node.folders"],
        name=name,
        labels=node_labels.labels(props),
        host_config=api.create_host_config(
            binds={props["volume"]: {"bind": VOLUME_PATH, "mode": "rw"}},
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
        ),
    )["Id"]
    try:
        api.start(made)
        code = api.wait(made, timeout=PREPARE_SECONDS)["StatusCode"]
        if code:
            raise ResourceError("The node's data could not be made ready.", "", log_tail(client, made))
    except requests.RequestException as error:
        raise ResourceError(f"The node's data were not ready within {PREPARE_SECONDS} s.") from error
    except docker.errors.APIError as error:
        raise ResourceError(f"The node's data could not be made ready: {reason(error)}.") from error
    finally:
        _remove(client, made)


def _create(client: docker.DockerClient, props: Mapping[str, Any]) -> str:
    api = client.api
    # All other containers are created after these, so the data folders are ready for them too.
    if props["service"] in {row.name for row in backends()}:
        _prepare(client, props)
    doors = {props["service"]: int(props["published"])} if props["published"] else {}
    doors |= {name: int(port) for name, port in props["fronts"].items()}
    inner = {**ports_within(), props["service"]: int(props["port"])}
    bindings = {inner[name]: (props["bind"], port) for name, port in doors.items()}
    host = api.create_host_config(
        binds={props["volume"]: {"bind": VOLUME_PATH, "mode": "rw"}},
        tmpfs=dict(props["tmpfs"]),
        read_only=True,
        oom_score_adj=int(props["yielding"]),
        port_bindings=bindings,
        restart_policy={"Name": RESTART},
        network_mode=props["network"],
        dns=[NOWHERE] if props["networks"] and props["closed"] else None,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        init=True,
        shm_size=MEMORY_FOR_SHARED,
        log_config={"Type": LOG_DRIVER, "Config": dict(LOG_LIMITS)},
        **_limits(props["share"], api.info()),
    )
    labels = {
        **node_labels.labels(props),
        node_labels.SERVICE: props["service"],
        node_labels.CONFIG: config_hash(props),
    }
    labels |= nowhere.label(client, props)
    if doors:
        labels[node_labels.PORTS] = json.dumps(doors)
    made = api.create_container(
        props["image"],
        command=list(props["command"]),
        name=name_of(props),
        hostname=props["service"],
        environment=dict(props["environment"]),
        labels=labels,
        ports=list(bindings) or None,
        host_config=host,
        stop_signal="SIGTERM",
        networking_config=api.create_networking_config(
            {props["network"]: api.create_endpoint_config(aliases=[props["service"]])}
        )
        if props["networks"]
        else None,
    )
    for network in props["networks"]:
        if network != props["network"]:
            api.connect_container_to_network(made["Id"], network, aliases=[props["service"]])
    nowhere.join(client, made["Id"], props)
    return str(made["Id"])


def _limits(share: Mapping[str, float], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container's limits on this daemon's machine, as arguments of Docker's API."""
    made = limits(share, machine)
    if cpus := made.pop("cpus", 0):
        made["nano_cpus"] = int(cpus * 1_000_000_000)
    return made


def _settle(client: docker.DockerClient, name: str, stack_id: str) -> bool:
    """Roll back an interrupted replacement: its new container never became healthy.

    Returns whether there was an interrupted replacement.
    """
    former = find(client, f"{name}{PREVIOUS_SUFFIX}")
    if former is None or not is_ours(former, stack_id):
        return False
    _roll_back(client, name, former["Id"], run=False)
    return True


def _roll_back(client: docker.DockerClient, name: str, former: str, *, run: bool) -> None:
    if (fresh := find(client, name)) is not None and fresh["Id"] != former:
        _remove(client, fresh["Id"])
    left = find(client, former)
    if left is not None and left["Name"].lstrip("/") != name:
        client.api.rename(former, name)
    if run:
        client.api.start(former)


def stop(client: docker.DockerClient, identity: str, seconds: int) -> None:
    """Stop a container. Does nothing if it does not run.

    Args:
        seconds: how long it may take before it is killed.
    """
    client.api.stop(identity, timeout=seconds)


def remove(client: docker.DockerClient, name: str, stack_id: str, seconds: int) -> None:
    """Stop and remove a container, and the former container that an interrupted replacement left.

    Containers of other stacks are left alone.
    """
    for one in (name, f"{name}{PREVIOUS_SUFFIX}"):
        found = find(client, one)
        if found is not None and is_ours(found, stack_id):
            if found["State"]["Running"]:
                client.api.stop(found["Id"], timeout=seconds)
            _remove(client, found["Id"])


def _remove(client: docker.DockerClient, identity: str) -> None:
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        try:
            client.api.remove_container(identity, force=True)
        except docker.errors.APIError as error:
            # Another removal of this container is already in progress: wait for its end.
            if "already in progress" not in str(error):
                raise
            wait_until(lambda: find(client, identity) is None, timeout=30)
