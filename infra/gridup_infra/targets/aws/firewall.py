"""The rules of a node's security group, from the service table: what they let in and what they let out."""

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
    """One rule that lets traffic in or out. The state stores it as text: `tcp 443 0.0.0.0/0`.

    Attributes:
        protocol: `tcp`, or another protocol that somebody allowed by hand; `-1` for all protocols.
        ports: `443` or `8000-8010`; `-` if the protocol has no ports.
        who: a network (CIDR), or the id of a security group or a prefix list.
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
        """Return the rule in the API's format."""
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
"""EC2's default egress rule of a new group. Limits on what the node may connect to are enforced on its
machine, not here. The node has no IPv6 address."""

INGRESS, EGRESS = "IpPermissions", "IpPermissionsEgress"
"""The keys of the rules in a group, as the API lists it."""


def rules(allow: Iterable[str], web: Iterable[str]) -> list[str]:
    """Return the rules of a node, as text.

    Args:
        allow: `--allow-cidr`.
        web: `--web-cidr`; empty for everybody.
    """
    who = {Audience.STAFF: tuple(allow), Audience.WEB: tuple(web) or WORLD}
    wanted = {
        Rule("tcp", str(port), str(ipaddress.ip_network(cidr)))
        for port, audience in firewall_ports()
        for cidr in who.get(audience, ())
    }
    return [str(rule) for rule in sorted(wanted)]


def let_through(group: Mapping[str, Any], key: str = INGRESS) -> set[Rule]:
    """Return the rules of a security group: what it lets in or, with `EGRESS`, out."""
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
    """Return the drift of the rules, one line each."""
    wanted, has = {Rule.parse(text) for text in props["rules"]}, let_through(group)
    out = let_through(group, EGRESS)
    return [
        *(f"the firewall's rule {rule} is gone" for rule in sorted(wanted - has)),
        *(f"the firewall also lets in {rule}" for rule in sorted(has - wanted)),
        *(f"the firewall's rule for the way out {rule} is gone" for rule in sorted(WAY_OUT - out)),
        *(f"the firewall also lets out {rule}" for rule in sorted(out - WAY_OUT)),
    ]


def ensure(cloud: Cloud, props: Mapping[str, Any]) -> Thing:
    """Return the security group with exactly the wanted rules; create it if it does not exist."""

    def make(ec2: Any) -> Thing:
        made: Thing = ec2.create_security_group(
            GroupName=props["project"],
            Description=f"Gridup node {props['stack']}",
            VpcId=props["vpc"],
            TagSpecifications=tags.tag_spec(props, "security-group"),
        )
        return made

    def find() -> Thing | None:
        # Filter by network too: while the network changes, the former group still exists.
        filters = [*tags.by_urn(props), {"Name": "vpc-id", "Values": [props["vpc"]]}]
        return next(iter(kinds.list_all(cloud, kinds.GROUP, filters)), None)

    found = cloud.create_once(find, make)
    ec2, wanted = cloud.ec2, {Rule.parse(text) for text in props["rules"]}
    for key, asked, revoke, authorize in (
        (INGRESS, wanted, ec2.revoke_security_group_ingress, ec2.authorize_security_group_ingress),
        (EGRESS, WAY_OUT, ec2.revoke_security_group_egress, ec2.authorize_security_group_egress),
    ):
        # The answer of a create call does not contain the rules.
        has = let_through(found, key) if EGRESS in found else WAY_OUT if key == EGRESS else frozenset()
        # Revoke unwanted rules first.
        _change(revoke, cloud, found, has - asked, "InvalidPermission.NotFound")
        _change(authorize, cloud, found, asked - has, "InvalidPermission.Duplicate")
    return found


def _change(
    call: Callable[..., Any], cloud: Cloud, group: Thing, rules: AbstractSet[Rule], already: str
) -> None:
    """Change rules in one call. If EC2 refuses it because some are changed already, change them one by one.

    Args:
        already: the error code of that refusal.
    """

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
