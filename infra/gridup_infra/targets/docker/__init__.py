"""The target `docker`: a node whose programs are containers on a local or remote Docker daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gridup_infra.build_env import BASE_IMAGE_VARIABLE
from gridup_infra.errors import GridupError, PreflightError, ResourceError
from gridup_infra.naming import typed
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets import fronting, ports
from gridup_infra.targets.base import (
    Capability,
    DoctorCheck,
    Inspection,
    NodeAccess,
    NodeStatus,
    Retained,
    StackRef,
    Target,
    check_tag,
    emptied,
)
from gridup_node import containers

if TYPE_CHECKING:
    import docker
    import pulumi

IMAGE_BYTES = 4_000_000_000
"""Free disk space that a build needs, in bytes: an image of 1.1 GB and the build stage of its environment."""

NODE_BYTES = 300_000_000
"""Free disk space in bytes that a node with an existing image needs: its database, blobs and logs."""


class DockerTarget(Target):
    """The target `docker`: nodes on a Docker daemon."""

    name: ClassVar[str] = "docker"
    title: ClassVar[str] = "Docker"
    data_resource: ClassVar[str] = "volume"
    providers: ClassVar[tuple[str, ...]] = ("gridup_infra.targets.docker.providers",)
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.POWER,
            Capability.BIND,
            Capability.SCHEME,
            Capability.PORT,
            Capability.KEEP_DATA,
            Capability.SSH_KEYS,
            Capability.EGRESS,
        }
    )

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        from gridup_infra.targets.docker.client import HOST_VARIABLE, chosen_host

        check_tag(spec)
        known = previous.host if previous else ""
        # The spec stores the daemon's address, so that later commands find the node whatever DOCKER_HOST is.
        host = os.environ.get(HOST_VARIABLE) or known or spec.host or chosen_host()
        base = os.environ.get(BASE_IMAGE_VARIABLE) or spec.base_image
        made = replace(spec, bind=spec.bind or "127.0.0.1", host=host, base_image=base)
        return fronting.settled(made, previous)

    def warnings(self, spec: DeploySpec, current: NodeOutputs | None) -> tuple[str, ...]:  # noqa: ARG002
        return fronting.warnings(spec)

    def usual_ports(self, spec: DeploySpec) -> Mapping[str, tuple[int, ...]]:
        return fronting.usual_ports(spec)

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        from gridup_infra.targets.docker import images, naming, port_allocation
        from gridup_infra.targets.docker.client import check_host, connected, is_local, same_daemon

        check_host(spec.host)
        if not is_local(spec.host) and naming.address(spec) in ("127.0.0.1", "::1"):
            raise PreflightError(
                f"The daemon at {spec.host} is elsewhere: its {spec.bind} can't be reached from here.",
                "Give --bind an address of that machine, or 0.0.0.0.",
            )
        try:
            with connected(spec.host) as client:
                told = client.info()
                if current:
                    same_daemon(told, current.facts.get("daemon", ""), spec.host)
                images.check(told)
                self._check_room(client, str(told.get("DockerRootDir", "")), spec)
                port_allocation.check(client, spec, current)
        except ResourceError as error:
            raise PreflightError(error.message, error.suggestion) from None

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        from gridup_infra.targets.docker import resources

        return resources.build(spec)

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        from gridup_infra.targets.docker.naming import name_prefix

        project = name_prefix(spec)
        names = ", ".join(part.service for part in containers.containers({}))
        return (
            f"the containers {project}-* ({names}), ports bound to {spec.bind or '127.0.0.1'}",
            f"the networks {project}* and the image {project}",
        )

    def listens(self, spec: DeploySpec) -> tuple[str, ...]:
        return ports.announced(spec)

    def data(self, spec: DeploySpec) -> str:
        from gridup_infra.targets.docker.naming import name_prefix

        return f"the volume {name_prefix(spec)}-data: data, secrets, keys"

    def retained_on_destroy(self, spec: DeploySpec) -> tuple[str, ...]:
        image = "the shared layers of the image (`gridup prune` removes unused ones)"
        if spec.keeps:
            return ("the volume with the node's data, secrets and keys (--keep-data)", image)
        return (image,)

    def retained(self, spec: DeploySpec) -> Retained | None:
        from gridup_infra.targets.docker import node_labels, volumes
        from gridup_infra.targets.docker.client import connected

        with connected(spec.host) as client:
            for name, note in volumes.kept(client, spec.stack, spec.name):
                if volumes.exists(client, name):
                    noted = {key: node_labels.label(note, label) for key, label in node_labels.NOTED.items()}
                    since = str(note.get("CreatedAt") or "")
                    return Retained(name, f"the volume {name}", since, size=0, **noted)
        return None

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        from gridup_infra.targets.docker import (
            container_lifecycle,
            images,
            naming,
            nowhere,
            port_allocation,
            volumes,
        )
        from gridup_infra.targets.docker.client import connected, same_daemon

        facts, spec = outputs.facts, outputs.spec
        with connected(facts["host"]) as client:
            machine = client.info()
            same_daemon(machine, facts.get("daemon", ""), facts["host"])
            wanted = naming.laid(outputs)
            with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
                found = list(
                    pool.map(
                        lambda props: container_lifecycle.find(client, container_lifecycle.name_of(props)),
                        wanted,
                    )
                )
            data = volumes.find(client, spec.stack_id)
            if not any(found) and data is None:
                gone = "the node's containers and its volume are gone"
                return Inspection(NodeStatus.MISSING, (gone,), remedy=emptied(spec.name))
            problems = [] if data else ["the node's volume is gone"]
            marked = {"stack_id": spec.stack_id, "host": facts["host"], "bind": spec.bind}
            problems += images.drift(client, {**marked, **{key: facts[key] for key in ("image", "shared")}})
            networks = {"networks": naming.laid_networks(outputs)}
            problems += port_allocation.problems(client, {**marked, **networks}, outputs.ports)
        notes = [
            line
            for props, container in zip(wanted, found, strict=True)
            if container
            for line in nowhere.notes(props["service"], container)
        ]
        remedy = "" if data else emptied(spec.name)
        return replace(_inspection(wanted, found, problems, machine), notes=tuple(notes), remedy=remedy)

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        from gridup_infra.targets.docker import cleanup
        from gridup_infra.targets.docker.client import connected

        with connected(_host_of(identity)) as client:
            return tuple(cleanup.leftovers(client, identity.stack_id))

    def delete_all(self, identity: StackRef) -> None:
        from gridup_infra.targets.docker import cleanup
        from gridup_infra.targets.docker.client import connected

        with connected(_host_of(identity)) as client:
            cleanup.delete_all(client, identity.stack, identity.name, identity.stack_id, keep_data=False)

    def access(self, outputs: NodeOutputs) -> NodeAccess:
        from gridup_infra.targets.docker.access import DockerAccess

        return DockerAccess(outputs)

    def start(self, outputs: NodeOutputs) -> None:
        from gridup_infra.targets.docker import container_lifecycle

        with self._containers(outputs) as (client, each):
            for props, found in each:
                if not found["State"]["Running"]:
                    container_lifecycle.start(client, found["Id"], props)

    def stop(self, outputs: NodeOutputs) -> None:
        from gridup_infra.targets.docker import container_lifecycle

        with self._containers(outputs) as (client, each), ThreadPoolExecutor(max_workers=len(each)) as pool:
            work = [
                pool.submit(container_lifecycle.stop, client, found["Id"], int(props["stop_seconds"]))
                for props, found in each
            ]
            for one in work:
                one.result()

    def doctor(self) -> Iterator[DoctorCheck]:
        from gridup_infra.targets.docker.client import chosen_host, connected

        try:
            host = chosen_host()
            with connected(host) as client:
                version = str(client.version().get("Version") or "a version that it does not tell")
        except GridupError as error:
            yield DoctorCheck("Docker", None, f"{error.message} {error.suggestion}".strip())
        else:
            yield DoctorCheck("Docker", True, f"{version} at {host}")

    def prunable(self) -> tuple[str, ...]:
        from gridup_infra.targets.docker import images
        from gridup_infra.targets.docker.client import UnreachableError, chosen_host, connected

        try:
            with connected(chosen_host()) as client:
                return tuple(f"image {name}" for name in images.unused(client))
        except UnreachableError:
            return ()  # Without a Docker daemon there is nothing to remove.

    def prune(self, thing: str) -> None:
        from gridup_infra.targets.docker import images
        from gridup_infra.targets.docker.client import chosen_host, connected

        with connected(chosen_host()) as client:
            images.remove_shared(client, thing.removeprefix("image "))

    @contextmanager
    def _containers(
        self, outputs: NodeOutputs
    ) -> Iterator[tuple[docker.DockerClient, list[tuple[dict[str, Any], dict[str, Any]]]]]:
        """Yield the client, and for each container its definition and what the daemon reports of it.

        The containers are in the order of their start: those behind the reverse proxy come first.

        Raises:
            ResourceError: a container is gone, the daemon is not the node's, or the daemon refuses a call.
        """
        from gridup_infra.targets.docker import container_lifecycle, naming
        from gridup_infra.targets.docker.client import connected, same_daemon

        with connected(outputs.facts["host"]) as client:
            same_daemon(client.info(), outputs.facts.get("daemon", ""), outputs.facts["host"])
            each = []
            for props in naming.laid(outputs):
                found = container_lifecycle.find(client, container_lifecycle.name_of(props))
                if found is None:
                    raise ResourceError(
                        f"The container {container_lifecycle.name_of(props)} is gone.",
                        f"`{typed('deploy', outputs.spec.name)}` makes it anew.",
                    )
                each.append((props, found))
            yield client, each

    @staticmethod
    def _check_room(client: docker.DockerClient, root: str, spec: DeploySpec) -> None:
        import shutil

        from gridup_infra.targets.docker import images, naming
        from gridup_infra.targets.docker.client import is_local

        if not is_local(spec.host) or not root or not Path(root).is_dir():
            return  # The free space is only known on the daemon's own machine.
        needed = NODE_BYTES if images.exists(client, naming.image_of(spec)["shared"]) else IMAGE_BYTES
        free = shutil.disk_usage(root).free
        if free < needed:
            raise PreflightError(
                f"Docker's disk ({root}) has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed.",
                "`docker system df` tells what fills it; `gridup prune` removes unused images of ours.",
            )


def _inspection(
    wanted: list[dict[str, Any]], found: list[Any], problems: list[str], machine: dict[str, Any]
) -> Inspection:
    from gridup_infra.targets.docker import container_lifecycle
    from gridup_node.vm.docker_cli import crash_of

    stopped = all(
        container is not None and not container["State"]["Running"] and not crash_of(container)
        for container in found
    )
    dead: list[str] = []
    own: list[str] = []
    for props, container in zip(wanted, found, strict=True):
        if container is None:
            own.append(f"{props['service']}: the container {container_lifecycle.name_of(props)} is gone")
            continue
        own += container_lifecycle.drift(container, props, machine)
        if how := crash_of(container):
            dead.append(f"{props['service']} {how}")
    if stopped:
        return Inspection(NodeStatus.STOPPED, tuple(problems), complete=False)
    problems = [*problems, *own, *(line for line in dead if not any(line.split()[0] in one for one in own))]
    if not any(found):
        return Inspection(NodeStatus.MISSING, tuple(problems))
    if problems:
        return Inspection(NodeStatus.DEGRADED, tuple(problems), tuple(dead), complete=True)
    healthy = all(
        (container["State"].get("Health") or {}).get("Status") != "starting"
        for container in found
        if container
    )
    return Inspection(NodeStatus.RUNNING if healthy else NodeStatus.STARTING, (), (), complete=True)


def _host_of(identity: StackRef) -> str:
    from gridup_infra.targets.docker.client import chosen_host

    return identity.facts.get("host") or chosen_host()
