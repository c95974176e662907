"""The AWS target's resources: Owner, Placement, the network, KeyPair, Address, Volume, Instance, Attachment.

Owner is created first and deleted last. Its delete deletes everything that still carries the stack's tags.
So an interrupted create leaves nothing behind, not even under plain `pulumi destroy`. Resources that do not
depend on each other are created at the same time. The providers are in `providers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pulumi

from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.aws import firewall, naming, providers
from gridup_infra.targets.dynamic import OwnedResource, Properties
from gridup_infra.vm import node as machine_node
from gridup_infra.vm.resources import ManagementKey, declare, turned

MODULE = "gridup-aws"


def urn(kind: str, name: str) -> str:
    """Return the URN of a resource of the running stack; it contains no other stack's name."""
    return naming.urn(pulumi.get_stack(), kind, name)


class Owner(OwnedResource, module=MODULE, name="Owner"):
    """The stack's owner in its account and region."""

    provider_class = providers.OwnerProvider

    account: pulumi.Output[str]


class Placement(OwnedResource, module=MODULE, name="Placement"):
    """The chosen zones and image."""

    provider_class = providers.PlacementProvider

    zones: pulumi.Output[list[str]]
    all_zones: pulumi.Output[list[str]]
    image: pulumi.Output[dict[str, str]]
    architecture: pulumi.Output[str]
    vpc: pulumi.Output[str]


class Vpc(OwnedResource, module=MODULE, name="Vpc"):
    """The stack's own network."""

    provider_class = providers.VpcProvider

    vpc: pulumi.Output[str]


class Subnet(OwnedResource, module=MODULE, name="Subnet"):
    """The part of the network in one zone."""

    provider_class = providers.SubnetProvider

    subnet: pulumi.Output[str]


class InternetGateway(OwnedResource, module=MODULE, name="InternetGateway"):
    """The network's gateway to the internet."""

    provider_class = providers.GatewayProvider

    gateway: pulumi.Output[str]


class RouteTable(OwnedResource, module=MODULE, name="RouteTable"):
    """The route table with the route to the internet gateway."""

    provider_class = providers.RouteTableProvider

    table: pulumi.Output[str]


class SecurityGroup(OwnedResource, module=MODULE, name="SecurityGroup"):
    """The firewall: who may connect to the node."""

    provider_class = providers.SecurityGroupProvider

    group: pulumi.Output[str]


class KeyPair(OwnedResource, module=MODULE, name="KeyPair"):
    """The EC2 key pair with the public half of the management key."""

    provider_class = providers.KeyPairProvider


class Address(OwnedResource, module=MODULE, name="Address"):
    """The node's public address."""

    provider_class = providers.AddressProvider

    allocation: pulumi.Output[str]
    address: pulumi.Output[str]


class Volume(OwnedResource, module=MODULE, name="Volume"):
    """The data disk."""

    provider_class = providers.VolumeProvider

    volume: pulumi.Output[str]


class Instance(OwnedResource, module=MODULE, name="Instance"):
    """The EC2 instance."""

    provider_class = providers.InstanceProvider

    instance: pulumi.Output[str]
    zone: pulumi.Output[str]
    private_address: pulumi.Output[str]
    disk: pulumi.Output[str]


class Attachment(OwnedResource, module=MODULE, name="Attachment"):
    """The attachment of data disk and address to the instance."""

    provider_class = providers.AttachmentProvider


def build(spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
    """Declare a node's resources on AWS; return its `NodeOutputs`."""
    volume_urn, subnet_urn = naming.volume_urn(pulumi.get_stack()), urn("Subnet", "subnet")
    owner = Owner(
        "owner",
        {
            **naming.common(spec),
            "target": spec.target,
            "keep_data": spec.keeps,
            "volume_urn": volume_urn,
        },
    )
    common = {**naming.common(spec), "account": owner.account}
    after = pulumi.ResourceOptions(depends_on=[owner])
    management = ManagementKey("management-key", {**naming.common(spec), **turned(spec)}, after)
    key = KeyPair("key-pair", {**common, "public_key": management.public_key}, after)
    place = Placement(
        "placement",
        {
            **common,
            "size": spec.size,
            "subnet_id": spec.subnet_id,
            "machine_revision": spec.machine_revision,
            "volume_urn": volume_urn,
            **spec.adopts,
        },
        after,
    )
    network: list[pulumi.Resource] = []
    vpc: pulumi.Output[str] = place.vpc
    routes: pulumi.Output[str] | str = ""
    if not spec.subnet_id:
        vpc, routes = _network(common, place, network, after)
    group = SecurityGroup(
        "security-group",
        {**common, "vpc": vpc, "rules": firewall.rules(spec.allow_cidr, spec.web_cidr)},
        after,
    )
    volume = Volume(
        "volume",
        {
            **common,
            "zones": place.zones,
            "disk_size": spec.disk_size,
            "keep_data": spec.keeps,
            **spec.leaves,
            **spec.adopts,
        },
        after,
    )
    instance = Instance(
        "instance",
        {
            **common,
            "zones": place.zones,
            "all_zones": place.all_zones,
            "image": place.image,
            "architecture": place.architecture,
            "size": spec.size,
            **naming.credits_input(spec),
            "machine_revision": spec.machine_revision,
            "subnet_id": spec.subnet_id,
            "group": group.group,
            "key": common["project"],
            "vpc": vpc,
            "routes": routes,
            "volume": volume.volume,
            # For the disk that a launch in another zone creates.
            "disk_size": spec.disk_size,
            "host": management.public_key.apply(partial(_host, spec)),
            "volume_urn": volume_urn,
            "subnet_urn": subnet_urn,
        },
        pulumi.ResourceOptions(depends_on=[owner, key, *network]),
    )
    address = None if spec.private else Address("address", common, after)
    attachment = Attachment(
        "attachment",
        {
            **common,
            # The same value as its output `instance`, but a preview of an update knows it.
            "instance": instance.id,
            "volume": instance.disk,
            "allocation": address.allocation if address else "",
        },
        after,
    )
    reached = address.address if address else instance.private_address
    console: dict[str, pulumi.Input[str]] = {
        machine_node.MACHINE: instance.instance,
        "region": spec.region,
        "account": owner.account,
    }
    vm = declare(spec, management, instance.instance, reached, [attachment, group], instance.id, console)
    known = pulumi.Output.all(
        vm=vm,
        address=reached,
        account=owner.account,
        instance=instance.instance,
        volume=instance.disk,
        zone=instance.zone,
        group=group.group,
        allocation=address.allocation if address else "",
    )
    return known.apply(partial(_outputs, spec))


def _network(
    common: Properties, place: Placement, network: list[pulumi.Resource], after: pulumi.ResourceOptions
) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
    """Declare the stack's own network; return its VPC and route table. Appends its resources to `network`."""
    vpc = Vpc("vpc", common, after)
    subnet = Subnet(
        "subnet",
        {**common, "vpc": vpc.vpc, "zones": place.zones, "all_zones": place.all_zones},
        after,
    )
    gateway = InternetGateway("internet-gateway", {**common, "vpc": vpc.vpc}, after)
    table = RouteTable(
        "route-table",
        {**common, "vpc": vpc.vpc, "gateway": gateway.gateway, "subnet": subnet.subnet},
        after,
    )
    network += [vpc, subnet, gateway, table]
    return vpc.vpc, table.table


def _host(spec: DeploySpec, public_key: str) -> dict[str, Any]:
    """Return the user-data inputs without the data disk: only the launch decides which disk it is."""
    told = asdict(machine_node.host(spec, public_key, naming.disk_paths(naming.ANY_VOLUME)))
    told.pop("disk")
    return told


def _outputs(spec: DeploySpec, known: Mapping[str, Any]) -> NodeOutputs:
    return machine_node.node_outputs(spec, known["address"], known["vm"], naming.facts(spec, known))
