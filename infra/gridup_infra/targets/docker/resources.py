"""The Docker target's resources: Owner, Image, Network, Volume, and a Container for each program.

Owner is created first and deleted last. Its delete removes all resources with the stack's ownership labels,
so that an interrupted create leaves nothing behind, not even with plain `pulumi destroy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pulumi

from gridup_infra.spec import HTTPS, DeploySpec
from gridup_infra.targets.docker import naming
from gridup_infra.targets.docker.providers import (
    ContainerProvider,
    ImageProvider,
    NetworkProvider,
    OwnerProvider,
    VolumeProvider,
)
from gridup_infra.targets.dynamic import (
    SHAPE,
    OwnedResource,
    normalize_numbers,
    shape,
)
from gridup_node import catalog
from gridup_node.containers import NO_NETWORK, containers
from gridup_node.containers import Container as Part
from gridup_node.image import bundle_digest
from gridup_node.services import PROXY

MODULE = "gridup-docker"


class Owner(OwnedResource, module=MODULE, name="Owner"):
    """The owner: records the daemon of the stack; its delete removes all leftovers."""

    provider_class = OwnerProvider

    daemon: pulumi.Output[str]


class Image(OwnedResource, module=MODULE, name="Image"):
    """The node's image with the stack's ownership labels."""

    provider_class = ImageProvider

    built: pulumi.Output[str]


class Network(OwnedResource, module=MODULE, name="Network"):
    """The node's networks and published ports."""

    provider_class = NetworkProvider

    ports: pulumi.Output[dict[str, Any]]


class Volume(OwnedResource, module=MODULE, name="Volume"):
    """The volume with the node's data."""

    provider_class = VolumeProvider

    volume: pulumi.Output[str]


class Container(OwnedResource, module=MODULE, name="Container"):
    """The container of one program."""

    provider_class = ContainerProvider

    config: pulumi.Output[str]
    ca: pulumi.Output[str]


def build(spec: DeploySpec) -> pulumi.Output[Any]:
    """Declare a node's resources on a daemon. Returns its `NodeOutputs`."""
    version = catalog.resolve(spec.tag)
    common = naming.common(spec)
    owner = Owner("owner", {**common, "target": spec.target, "keep_data": spec.keeps})
    after = pulumi.ResourceOptions(depends_on=[owner])
    wanted = naming.image_of(spec)
    image = Image("image", wanted, after)
    nets = naming.networks(common["project"])
    # Set the input only for https: deployed nodes with http have no such input, and must see no change.
    https = {"https": True} if spec.scheme == HTTPS else {}
    ports = {"bind": spec.bind, "port": spec.port, "networks": nets, **https}
    network = Network("network", {**common, **ports}, after)
    volume = Volume("volume", {**common, "keep_data": spec.keeps, **spec.leaves, **spec.adopts}, after)
    names = naming.names_of(spec)
    facts = network.ports.apply(
        lambda ports: naming.known(spec, normalize_numbers(ports), version, bundle_digest(), names)
    )
    # A preview knows a requested port, but not the allocated ports. The hash over these placeholders shows
    # whether what is known changes.
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
