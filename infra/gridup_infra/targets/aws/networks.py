"""A node's network: VPC, subnets and the route to the internet. `firewall` defines who may connect."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from gridup_infra.targets.aws import kinds, tags
from gridup_infra.targets.aws.client import POLL_SECONDS, Cloud, code_of, is_missing
from gridup_infra.targets.aws.kinds import ResourceKind, Thing

CIDR = "10.53.0.0/16"
"""The stack's own network. It does not overlap Docker's 172.17.0.0/16 and the networks that follow it."""

WORLD = ("0.0.0.0/0", "::/0")

DELETE_SECONDS = 180.0
"""How long to wait until nothing uses a resource: the network interface of an ended instance stays for some
seconds."""


def vpc(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    def make(ec2: Any) -> Thing:
        made: Thing = ec2.create_vpc(CidrBlock=CIDR, TagSpecifications=tags.tag_spec(props, "vpc"))["Vpc"]
        return made

    return cloud.create_once(lambda: kinds.find(cloud, kinds.VPC, props), make)


def subnets(cloud: Cloud, props: Mapping[str, Any]) -> list[Thing]:
    """Return the stack's subnets: one, and one more for each further zone in which a launch was tried."""
    return kinds.list_all(cloud, kinds.SUBNET, tags.by_urn(props))


def subnet(cloud: Cloud, props: Mapping[str, Any], zone: str) -> Thing:
    """Create a subnet of the stack in a zone where it has none; return the subnet."""
    block = list(ipaddress.ip_network(CIDR).subnets(new_prefix=24))[_number(props["all_zones"], zone)]

    def find() -> Thing | None:
        return next((row for row in subnets(cloud, props) if row["AvailabilityZone"] == zone), None)

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.create_subnet(
            VpcId=props["vpc"],
            CidrBlock=str(block),
            AvailabilityZone=zone,
            TagSpecifications=tags.tag_spec(props, "subnet"),
        )["Subnet"]
        return made

    return cloud.create_once(find, make, looked=True)


def _number(zones: Iterable[str], zone: str) -> int:
    return sorted({*zones, zone}).index(zone)


def gateway(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    """Return the internet gateway, attached to the stack's network; create it if needed."""

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.create_internet_gateway(TagSpecifications=tags.tag_spec(props, "internet-gateway"))[
            "InternetGateway"
        ]
        return made

    found = cloud.create_once(lambda: kinds.find(cloud, kinds.GATEWAY, props), make)
    if not gateway_drift(found, props):
        return found
    id_ = found["InternetGatewayId"]
    try:
        cloud.retry_not_found(
            lambda: cloud.ec2.attach_internet_gateway(InternetGatewayId=id_, VpcId=props["vpc"])
        )
    except Exception as error:
        # An earlier attempt, whose answer was lost, attached it.
        if code_of(error) != "Resource.AlreadyAssociated":
            raise
    return found


def gateway_drift(found: Thing, props: Mapping[str, Any]) -> list[str]:
    if any(row.get("VpcId") == props["vpc"] for row in found.get("Attachments") or ()):
        return []
    return ["the internet gateway is not attached to the network"]


def remove_gateway(cloud: Cloud, found: Thing) -> None:
    id_ = found["InternetGatewayId"]
    for row in found.get("Attachments") or ():
        detach = partial(cloud.ec2.detach_internet_gateway, InternetGatewayId=id_, VpcId=row["VpcId"])
        delete_with_retry(detach, gone=("Gateway.NotAttached",))
    delete_with_retry(lambda: cloud.ec2.delete_internet_gateway(InternetGatewayId=id_))


def routes(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    """Return the route table with the route to the internet, which the stack's subnets use.

    Creates or changes the table if needed.
    """

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.create_route_table(
            VpcId=props["vpc"], TagSpecifications=tags.tag_spec(props, "route-table")
        )["RouteTable"]
        return made

    found = cloud.create_once(lambda: kinds.find(cloud, kinds.ROUTES, props), make)
    id_ = found["RouteTableId"]
    if (target := _default_route(found)) != props["gateway"]:
        change = cloud.ec2.replace_route if target is not None else cloud.ec2.create_route
        cloud.retry_not_found(
            lambda: change(RouteTableId=id_, DestinationCidrBlock=WORLD[0], GatewayId=props["gateway"])
        )
    for subnet in {props["subnet"]} - _users(found):
        associate(cloud, id_, subnet)
    return found


def associate(cloud: Cloud, table: str, subnet: str) -> None:
    """Make a subnet use a route table."""
    cloud.retry_not_found(lambda: cloud.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet))


def routes_drift(found: Thing, props: Mapping[str, Any]) -> list[str]:
    problems = []
    if _default_route(found) != props["gateway"]:
        problems.append("the route to the internet is gone")
    if props["subnet"] not in _users(found):
        problems.append("the subnet does not use the route table")
    return problems


def _default_route(found: Thing) -> str | None:
    return next(
        (
            str(row.get("GatewayId", ""))
            for row in found.get("Routes") or ()
            if row.get("DestinationCidrBlock") == WORLD[0]
        ),
        None,
    )


def _users(found: Thing) -> set[str]:
    return {row["SubnetId"] for row in found.get("Associations") or () if row.get("SubnetId")}


def remove_routes(cloud: Cloud, found: Thing) -> None:
    for row in found.get("Associations") or ():
        if not row.get("Main"):
            id_ = row["RouteTableAssociationId"]
            delete_with_retry(partial(cloud.ec2.disassociate_route_table, AssociationId=id_))
    delete_with_retry(lambda: cloud.ec2.delete_route_table(RouteTableId=found["RouteTableId"]))


def remove(cloud: Cloud, kind: ResourceKind, found: Thing) -> None:
    """Delete one resource of the network, as soon as nothing uses it."""
    calls: dict[str, Callable[[], Any]] = {
        kinds.VPC.title: lambda: cloud.ec2.delete_vpc(VpcId=found["VpcId"]),
        kinds.SUBNET.title: lambda: cloud.ec2.delete_subnet(SubnetId=found["SubnetId"]),
        kinds.GATEWAY.title: lambda: remove_gateway(cloud, found),
        kinds.ROUTES.title: lambda: remove_routes(cloud, found),
        kinds.GROUP.title: lambda: cloud.ec2.delete_security_group(GroupId=found["GroupId"]),
        kinds.KEY.title: lambda: cloud.ec2.delete_key_pair(KeyName=found["KeyName"]),
        kinds.INTERFACE.title: lambda: cloud.ec2.delete_network_interface(
            NetworkInterfaceId=found["NetworkInterfaceId"]
        ),
    }
    delete_with_retry(calls[kind.title])


def delete_with_retry(call: Callable[[], Any], *, gone: tuple[str, ...] = ()) -> None:
    """Run a delete call; repeat it while something still uses the resource. A missing resource is no error.

    Args:
        gone: error codes that mean that the resource is gone, in addition to `….NotFound`.
    """
    end = time.monotonic() + DELETE_SECONDS
    while True:
        try:
            call()
        except Exception as error:
            if is_missing(error) or code_of(error) in gone:
                return
            if code_of(error) not in ("DependencyViolation", "InvalidNetworkInterface.InUse"):
                raise
            if time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return
