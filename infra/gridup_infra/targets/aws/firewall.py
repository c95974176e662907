"""Who may reach a node, and whom it may: the rules of its security group, from the table of services."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from gridup_infra.targets.aws import kinds, tags
from gridup_infra.targets.aws.client import Cloud, code_of
from gridup_infra.targets.aws.kinds import Thing
from gridup_node.services import Audience, firewall_ports

WORLD = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, order=True)
class Rule:
    """What is let in, or out. Its text, `tcp 443 0.0.0.0/0`, is what the state holds.

    Attributes:
        protocol: `tcp`, or what else somebody let in by hand; `-1` for each there is.
        ports: `443` or `8000-8010`; `-` where the protocol has none.
        who: a network, or the id of a group or a prefix list.
    """

    protocol: str
    ports: str
    who: str

    def __str__(self) -> str:
        return f"{self.protocol} {self.ports} {self.who}"

    @classmethod
    def parse(cls, text: str) -> Rule:
        return cls(*text.split(" "))

    def permission(self) -> dict[str, Any]:
        """As the API takes it."""
        row: dict[str, Any] = {"IpProtocol": self.protocol}
        if self.ports != "-":
            first, _, last = self.ports.rpartition("-") if self.ports[0] != "-" else ("", "", self.ports)
            row |= {"FromPort": int(first or last), "ToPort": int(last)}
        if self.who.startswith("sg-"):
            row["UserIdGroupPairs"] = [{"GroupId": self.who}]
        elif self.who.startswith("pl-"):
            row["PrefixListIds"] = [{"PrefixListId": self.who}]
        elif ":" in self.who:
            row["Ipv6Ranges"] = [{"CidrIpv6": self.who}]
        else:
            row["IpRanges"] = [{"CidrIp": self.who}]
        return row


WAY_OUT = frozenset({Rule("-1", "-", WORLD[0])})
"""What EC2 gives each new group: what of the node may connect to the outside is kept on its machine. The node
has no IPv6 address."""

INGRESS, EGRESS = "IpPermissions", "IpPermissionsEgress"
"""The keys of a group's rules."""


def rules(allow: Iterable[str], web: Iterable[str]) -> list[str]:
    """The rules of a node, as text.

    Args:
        allow: `--allow-cidr`.
        web: `--web-cidr`; empty is the world.
    """
    who = {Audience.STAFF: tuple(allow), Audience.WEB: tuple(web) or WORLD}
    wanted = {
        Rule("tcp", str(port), str(ipaddress.ip_network(cidr)))
        for port, audience in firewall_ports()
        for cidr in who.get(audience, ())
    }
    return [str(rule) for rule in sorted(wanted)]


def let_through(group: Mapping[str, Any], key: str = INGRESS) -> set[Rule]:
    """What a security group lets in or, with `EGRESS`, out."""
    found = set()
    for row in group.get(key) or ():
        first, last = row.get("FromPort"), row.get("ToPort")
        ports = "-" if first is None else str(first) if first == last else f"{first}-{last}"
        who = [entry["CidrIp"] for entry in row.get("IpRanges") or ()]
        who += [str(ipaddress.ip_network(entry["CidrIpv6"])) for entry in row.get("Ipv6Ranges") or ()]
        who += [entry["GroupId"] for entry in row.get("UserIdGroupPairs") or ()]
        who += [entry["PrefixListId"] for entry in row.get("PrefixListIds") or ()]
        found |= {Rule(str(row["IpProtocol"]), ports, one) for one in who}
    return found


def drift(group: Mapping[str, Any], props: Mapping[str, Any]) -> list[str]:
    """The drift of the rules, a line each."""
    wanted, has = {Rule.parse(text) for text in props["rules"]}, let_through(group)
    out = let_through(group, EGRESS)
    return [
        *(f"the firewall's rule {rule} is gone" for rule in sorted(wanted - has)),
        *(f"the firewall also lets in {rule}" for rule in sorted(has - wanted)),
        *(f"the firewall's rule for the way out {rule} is gone" for rule in sorted(WAY_OUT - out)),
        *(f"the firewall also lets out {rule}" for rule in sorted(out - WAY_OUT)),
    ]


def ensure(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    """The security group, with just the rules that are wanted."""

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.create_security_group(
            GroupName=props["project"],
            Description=f"Gridup node {props['stack']}",
            VpcId=props["vpc"],
            TagSpecifications=tags.tag_spec(props, "security-group"),
        )
        return made

    def find() -> Thing | None:
        # By its network too: in a change of that, the former group is still there.
        filters = [*tags.by_urn(props), {"Name": "vpc-id", "Values": [props["vpc"]]}]
        return next(iter(kinds.list_all(cloud, kinds.GROUP, filters)), None)

    found = cloud.create_once(find, make)
    ec2, wanted = cloud.ec2, {Rule.parse(text) for text in props["rules"]}
    for key, asked, revoke, authorize in (
        (INGRESS, wanted, ec2.revoke_security_group_ingress, ec2.authorize_security_group_ingress),
        (EGRESS, WAY_OUT, ec2.revoke_security_group_egress, ec2.authorize_security_group_egress),
    ):
        # Of one that was just made, its rules are not told.
        has = let_through(found, key) if EGRESS in found else WAY_OUT if key == EGRESS else frozenset()
        # What is let through and should not be goes first.
        _change(revoke, cloud, found, has - asked, "InvalidPermission.NotFound")
        _change(authorize, cloud, found, asked - has, "InvalidPermission.Duplicate")
    return found


def _change(
    call: Callable[..., Any], cloud: Cloud, group: Thing, rules: AbstractSet[Rule], already: str
) -> None:
    """Change rules in one call, or one by one where some are `already` so: EC2 then refuses all of them."""

    def change(some: list[Rule]) -> bool:
        try:
            call(GroupId=group["GroupId"], IpPermissions=[rule.permission() for rule in some])
        except Exception as error:
            if code_of(error) == already:
                return False
            raise
        return True

    each = sorted(rules)
    if each and not cloud.retry_not_found(lambda: change(each)):
        for rule in each:
            change([rule])
