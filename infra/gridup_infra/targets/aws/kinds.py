"""The kinds of EC2 resources of a node, and how to find them. One table for all modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gridup_infra.targets.aws import tags
from gridup_infra.targets.aws.client import Cloud, is_missing

Thing = dict[str, Any]


@dataclass(frozen=True)
class ResourceKind:
    """A kind of EC2 resource.

    Attributes:
        title: its name in messages.
        tag: its name in `TagSpecifications`.
        operation: boto3's name of the describe call.
        key: the key of the list in the call's answer.
        id: the field with the resource's id.
        filter: the name of the filter for that id.
        dead: states in which the resource counts as gone.
    """

    title: str
    tag: str
    operation: str
    key: str
    id: str
    filter: str
    dead: tuple[str, ...] = ()


VPC = ResourceKind("VPC", "vpc", "describe_vpcs", "Vpcs", "VpcId", "vpc-id")
SUBNET = ResourceKind("subnet", "subnet", "describe_subnets", "Subnets", "SubnetId", "subnet-id")
GATEWAY = ResourceKind(
    "internet gateway",
    "internet-gateway",
    "describe_internet_gateways",
    "InternetGateways",
    "InternetGatewayId",
    "internet-gateway-id",
)
ROUTES = ResourceKind(
    "route table", "route-table", "describe_route_tables", "RouteTables", "RouteTableId", "route-table-id"
)
GROUP = ResourceKind(
    "security group", "security-group", "describe_security_groups", "SecurityGroups", "GroupId", "group-id"
)
KEY = ResourceKind("key pair", "key-pair", "describe_key_pairs", "KeyPairs", "KeyPairId", "key-pair-id")
ADDRESS = ResourceKind(
    "elastic IP", "elastic-ip", "describe_addresses", "Addresses", "AllocationId", "allocation-id"
)
VOLUME = ResourceKind(
    "volume", "volume", "describe_volumes", "Volumes", "VolumeId", "volume-id", ("deleting", "deleted")
)
INSTANCE = ResourceKind(
    "instance",
    "instance",
    "describe_instances",
    "Reservations",
    "InstanceId",
    "instance-id",
    ("shutting-down", "terminated"),
)
INTERFACE = ResourceKind(
    "network interface",
    "network-interface",
    "describe_network_interfaces",
    "NetworkInterfaces",
    "NetworkInterfaceId",
    "network-interface-id",
)


def list_all(cloud: Cloud, kind: ResourceKind, filters: list[Thing], *, dead: bool = False) -> list[Thing]:
    """Return all resources of a kind that pass the filters, the oldest first; with `dead`, also gone ones."""
    call = getattr(cloud.ec2, kind.operation)
    words: dict[str, Any] = {"Filters": filters}
    rows: list[Thing] = []
    while True:
        try:
            answer = call(**words)
        except Exception as error:
            if is_missing(error):
                return []
            raise
        for row in answer.get(kind.key) or ():
            rows += row["Instances"] if kind is INSTANCE else [row]
        if not answer.get("NextToken"):
            break
        words["NextToken"] = answer["NextToken"]
    rows.sort(key=lambda row: str(row.get("CreateTime") or row.get("LaunchTime") or ""))
    return rows if dead else [row for row in rows if state_of(row) not in kind.dead]


def state_of(thing: Mapping[str, Any]) -> str:
    """Return the state, such as `running` or `available`; empty for a resource without states."""
    state = thing.get("State") or ""
    return str(state.get("Name", "")) if isinstance(state, Mapping) else str(state)


def find(cloud: Cloud, kind: ResourceKind, props: Mapping[str, Any]) -> Thing | None:
    """Return the live resource with this stack's id and this URN; None if there is none."""
    found = list_all(cloud, kind, tags.by_urn(props))
    return found[0] if found else None


def get(cloud: Cloud, kind: ResourceKind, id_: str) -> Thing | None:
    """Return the live resource with this id; None if it is gone."""
    found = list_all(cloud, kind, [{"Name": kind.filter, "Values": [id_]}]) if id_ else []
    return found[0] if found else None
