"""The Docker target's resources: Owner, Image, Network, Volume and a Container for each program.

Owner is first and deleted last: its delete removes whatever still bears the stack's marks, so
that a interrupted create leaves nothing behind, not even under plain `pulumi destroy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, UpdateResult

from gridup_infra.progress import report
from gridup_infra.spec import HTTPS, DeploySpec
from gridup_infra.targets.docker import (
    cleanup,
    container_lifecycle,
    images,
    naming,
    node_labels,
    port_allocation,
    volumes,
)
from gridup_infra.targets.docker.client import connected, daemon_id, same_daemon
from gridup_infra.targets.dynamic import (
    DRIFT,
    SHAPE,
    OwnedResource,
    Properties,
    Provider,
    normalize_numbers,
    shape,
    translate_errors,
)
from gridup_node import catalog
from gridup_node.containers import NO_NETWORK, containers
from gridup_node.containers import Container as Part
from gridup_node.image import bundle_digest
from gridup_node.services import PROXY

if TYPE_CHECKING:
    import docker

MODULE = "gridup-docker"


class OwnerProvider(Provider):
    """The stack's mark on the daemon; see the module's first lines."""

    tells = ("daemon",)

    def create(self, props: Properties) -> CreateResult:
        def create() -> CreateResult:
            with connected(props["host"]) as client:
                return CreateResult(
                    props["stack_id"], {**normalize_numbers(props), "daemon": daemon_id(client.info())}
                )

        return translate_errors(create)

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                same_daemon(client.info(), props.get("daemon", ""), props["host"])
            return ReadResult(id_, props)

        return translate_errors(read)

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        def update() -> UpdateResult:
            with connected(news["host"]) as client:
                told = client.info()
                same_daemon(told, olds.get("daemon", ""), news["host"])
                return UpdateResult({**normalize_numbers(news), "daemon": daemon_id(told)})

        return translate_errors(update)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                same_daemon(client.info(), props.get("daemon", ""), props["host"])
                cleanup.delete_all(
                    client,
                    props["stack"],
                    props["name"],
                    props["stack_id"],
                    keep_data=bool(props["keep_data"]),
                )

        translate_errors(delete)


class ImageProvider(Provider):
    """The node's image with the stack's marks on it."""

    tells = ("image_id", "built")

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["project"], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                return ReadResult(id_, {**props, DRIFT: images.drift(client, props)})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                images.remove(client, props["stack_id"])

        translate_errors(delete)

    def _ensure(self, props: Properties) -> Properties:
        with connected(props["host"]) as client:
            made = images.ensure(client, props, lambda text: report("image", text))
            # Of former versions, what no container runs on.
            images.remove(client, props["stack_id"], but=props["image"])
            built = images.built(client, props)
        return {**normalize_numbers(props), "image_id": made, "built": built, DRIFT: []}


class NetworkProvider(Provider):
    """The node's private network, and the ports that it is reached at."""

    tells = ("ports",)

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["project"], self._ensure(props, {})))

    def update(self, _id: str, olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news, normalize_numbers(olds["ports"]))))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                if not node_labels.networks(client, props["stack_id"]):
                    return ReadResult("", {})
                problems = port_allocation.problems(client, props, normalize_numbers(props["ports"]))
                return ReadResult(id_, {**props, DRIFT: problems})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                if _left_to_owner(client, props):
                    return
                for network in node_labels.networks(client, props["stack_id"]):
                    client.api.remove_network(network["Id"])

        translate_errors(delete)

    def _ensure(self, props: Properties, current: Mapping[str, int]) -> Properties:
        with connected(props["host"]) as client:
            chosen = port_allocation.ensure(client, props, current)
        return {**normalize_numbers(props), "ports": chosen, DRIFT: []}


class VolumeProvider(Provider):
    """The node's data. Its delete leaves it to the next node of this name where that is wanted."""

    tells = ("volume",)

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(lambda: CreateResult(props["project"], self._ensure(props)))

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._ensure(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                found = volumes.find(client, props["stack_id"])
            return ReadResult(id_, {**props, "volume": found}) if found else ReadResult("", {})

        return translate_errors(read)

    def delete(self, _id: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                if props["keep_data"]:
                    volumes.keep(client, props)
                elif not _left_to_owner(client, props):
                    volumes.remove(client, props["stack_id"])

        translate_errors(delete)

    def _ensure(self, props: Properties) -> Properties:
        with connected(props["host"]) as client:
            return {**normalize_numbers(props), "volume": volumes.ensure(client, props), DRIFT: []}


class ContainerProvider(Provider):
    """One program of the node in its container."""

    tells = ("config", "ca")
    shaped = frozenset({"environment", "published", "fronts"})

    def create(self, props: Properties) -> CreateResult:
        return translate_errors(
            lambda: CreateResult(container_lifecycle.name_of(props), self._converge(props))
        )

    def update(self, _id: str, _olds: Properties, news: Properties) -> UpdateResult:
        return translate_errors(lambda: UpdateResult(self._converge(news)))

    def read(self, id_: str, props: Properties) -> ReadResult:
        def read() -> ReadResult:
            with connected(props["host"]) as client:
                found, machine = container_lifecycle.find(client, id_), client.api.info()
            if found is None:
                return ReadResult("", {})
            return ReadResult(id_, {**props, DRIFT: container_lifecycle.drift(found, props, machine)})

        return translate_errors(read)

    def delete(self, id_: str, props: Properties) -> None:
        def delete() -> None:
            with connected(props["host"]) as client:
                container_lifecycle.remove(client, id_, props["stack_id"], int(props["stop_seconds"]))

        translate_errors(delete)

    def _converge(self, props: Properties) -> Properties:
        with connected(props["host"]) as client:
            container_lifecycle.converge(client, props, lambda text: report(props["service"], text))
            ca = container_lifecycle.ca_of(client, props)
        return {
            **normalize_numbers(props),
            "config": container_lifecycle.config_hash(props),
            "ca": ca,
            DRIFT: [],
        }


def _left_to_owner(client: docker.DockerClient, props: Properties) -> bool:
    """Whether containers still use what is to be deleted: Owner's delete removes both, in that order.

    The engine knows of no such container: its create was interrupted. (Or the person replaces the network or
    volume by hand, and it does: then what the running containers use must stay all the more.)
    """
    return bool(node_labels.containers(client, props["stack_id"]))


class Owner(OwnedResource, module=MODULE, name="Owner"):
    """Marks the stack on the daemon."""

    provider_class = OwnerProvider

    daemon: pulumi.Output[str]


class Image(OwnedResource, module=MODULE, name="Image"):
    """The node's image."""

    provider_class = ImageProvider

    built: pulumi.Output[str]


class Network(OwnedResource, module=MODULE, name="Network"):
    """The node's network."""

    provider_class = NetworkProvider

    ports: pulumi.Output[dict[str, Any]]


class Volume(OwnedResource, module=MODULE, name="Volume"):
    """The node's data."""

    provider_class = VolumeProvider

    volume: pulumi.Output[str]


class Container(OwnedResource, module=MODULE, name="Container"):
    """A program's container."""

    provider_class = ContainerProvider

    config: pulumi.Output[str]
    ca: pulumi.Output[str]


def build(spec: DeploySpec) -> pulumi.Output[Any]:
    """Declare a node's resources on a daemon; the result is its `NodeOutputs`."""
    version = catalog.resolve(spec.tag)
    common = naming.common(spec)
    owner = Owner("owner", {**common, "target": spec.target, "keep_data": spec.keeps})
    after = pulumi.ResourceOptions(depends_on=[owner])
    wanted = naming.image_of(spec)
    image = Image("image", wanted, after)
    nets = naming.networks(common["project"])
    # Only where there is one: those that are deployed have no such input.
    https = {"https": True} if spec.scheme == HTTPS else {}
    ports = {"bind": spec.bind, "port": spec.port, "networks": nets, **https}
    network = Network("network", {**common, **ports}, after)
    volume = Volume("volume", {**common, "keep_data": spec.keeps, **spec.leaves, **spec.adopts}, after)
    names = naming.names_of(spec)
    facts = network.ports.apply(
        lambda ports: naming.known(spec, normalize_numbers(ports), version, bundle_digest(), names)
    )
    # In a preview of another port that one is known; the others stay as they are.
    asked = {**dict.fromkeys(naming.published(), 0), PROXY: spec.port}
    foreseen = naming.known(spec, asked, version, bundle_digest(), names)
    made: dict[str, Container] = {}
    for part in sorted(containers({}, egress=spec.allow_egress), key=lambda part: len(part.depends_on)):
        made[part.service] = Container(
            part.service,
            {
                **common,
                "service": part.service,
                "image": wanted["image"],
                "network": next(iter(naming.joined(part, common["project"])), NO_NETWORK),
                "networks": naming.joined(part, common["project"]),
                "closed": part.closed,
                "volume": volume.volume,
                "tmpfs": part.tmpfs(covered=True),
                "share": dict(part.share),
                "yielding": part.yielding,
                "command": list(part.command),
                "environment": facts.apply(partial(_environment, part.service)),
                "port": naming.inner_port(part, spec),
                **naming.ca_file(part, spec),
                "published": network.ports.apply(partial(_published, part)),
                "fronts": network.ports.apply(partial(_fronts, part)),
                SHAPE: shape([_environment(part.service, foreseen), _published(part, asked)]),
                "bind": spec.bind,
                "stop_seconds": part.stop_seconds,
            },
            pulumi.ResourceOptions(
                depends_on=[owner, image, network, volume, *(made[name] for name in part.depends_on)]
            ),
        )
    return pulumi.Output.all(
        ports=network.ports,
        volume=volume.volume,
        daemon=owner.daemon,
        built=image.built,
        ca=made[PROXY].ca,
        configs={name: container.config for name, container in made.items()},
    ).apply(lambda values: naming.outputs(spec, **{**values, "ports": normalize_numbers(values["ports"])}))


def _environment(service: str, known: Mapping[str, Any]) -> dict[str, str]:
    part = next(part for part in containers(known) if part.service == service)
    return dict(part.environment)


def _fronts(part: Part, ports: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(ports[name]) for name in part.fronts}


def _published(part: Part, ports: Mapping[str, Any]) -> int:
    return int(ports[part.service]) if part.published else 0
