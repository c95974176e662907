"""What IAM would say to a call of EC2's, by a policy's statements with their resources and conditions.

moto looks at a policy's actions alone. Which resources a call is judged by is from the Service Authorization
Reference ("Actions, resources, and condition keys for Amazon EC2"); their tags are those that they have then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from gridup_infra.targets.aws import kinds, tags
from support.moto_rig import ACCOUNT, KINDS, REGION, Fault, Things

THERE: Mapping[str, tuple[str, ...]] = {
    "AssociateAddress": ("elastic-ip", "instance", "network-interface"),
    "AssociateRouteTable": ("route-table", "subnet"),
    "AttachInternetGateway": ("internet-gateway", "vpc"),
    "AttachVolume": ("instance", "volume"),
    "AuthorizeSecurityGroupEgress": ("security-group",),
    "AuthorizeSecurityGroupIngress": ("security-group",),
    "CreateRoute": ("route-table",),
    "CreateRouteTable": ("vpc",),
    "CreateSecurityGroup": ("vpc",),
    "CreateSubnet": ("vpc",),
    "CreateTags": tuple(kind.tag for kind in KINDS),
    "DeleteInternetGateway": ("internet-gateway",),
    "DeleteKeyPair": ("key-pair",),
    "DeleteNetworkInterface": ("network-interface",),
    "DeleteRouteTable": ("route-table",),
    "DeleteSecurityGroup": ("security-group",),
    "DeleteSubnet": ("subnet",),
    "DeleteTags": tuple(kind.tag for kind in KINDS),
    "DeleteVolume": ("volume",),
    "DeleteVpc": ("vpc",),
    "DetachInternetGateway": ("internet-gateway", "vpc"),
    "DetachVolume": ("instance", "volume"),
    "DisassociateAddress": ("elastic-ip", "network-interface"),
    "DisassociateRouteTable": ("route-table", "subnet"),
    "GetConsoleOutput": ("instance",),
    "ModifyInstanceAttribute": ("instance", "security-group"),
    "ModifyInstanceCreditSpecification": ("instance",),
    "ModifyInstanceMetadataOptions": ("instance",),
    "ModifyVolume": ("volume",),
    "ReleaseAddress": ("elastic-ip",),
    "ReplaceRoute": ("route-table",),
    "RevokeSecurityGroupEgress": ("security-group",),
    "RevokeSecurityGroupIngress": ("security-group",),
    "RunInstances": ("image", "key-pair", "security-group", "subnet"),
    "StartInstances": ("instance",),
    "StopInstances": ("instance",),
    "TerminateInstances": ("instance",),
}
"""By action, the types of existing resources that it is judged by, with their tags (`aws:ResourceTag`)."""

MADE: Mapping[str, tuple[str, ...]] = {
    "AllocateAddress": ("elastic-ip",),
    "CreateInternetGateway": ("internet-gateway",),
    "CreateRouteTable": ("route-table",),
    "CreateSecurityGroup": ("security-group",),
    "CreateSubnet": ("subnet",),
    "CreateVolume": ("volume",),
    "CreateVpc": ("vpc",),
    "ImportKeyPair": ("key-pair",),
    "RunInstances": ("instance", "network-interface", "volume"),
}
"""By action, the types of what it makes, whose tags are in the call (`aws:RequestTag`)."""

Keys = dict[str, str]


@dataclass(frozen=True)
class Resource:
    """What one decision is about: IAM makes one for each resource of a call, and all must say yes."""

    type: str
    id: str
    keys: Keys = field(default_factory=dict)

    @property
    def arn(self) -> str:
        owner = "" if self.type == "image" else ACCOUNT
        return f"arn:aws:ec2:{REGION}:{owner}:{self.type}/{self.id}"


def resource_tags(marks: Mapping[str, str]) -> Keys:
    return {f"aws:ResourceTag/{key}": text for key, text in marks.items()}


def allows(policy: Mapping[str, Any], action: str, resource: Resource | None = None) -> bool:
    """Whether some statement allows an action, on a resource or, with none, on no particular one."""
    return any(
        f"ec2:{action}" in statement["Action"]
        and any(
            pattern == "*" or (resource is not None and fnmatchcase(resource.arn, pattern))
            for pattern in _list(statement["Resource"])
        )
        and _met(statement.get("Condition", {}), resource.keys if resource else {})
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow"
    )


def _met(condition: Mapping[str, Mapping[str, Any]], keys: Keys) -> bool:
    """Whether all of a condition holds; a key that a call does not have meets none."""
    compare = {"StringEquals": str.__eq__, "StringLike": fnmatchcase}
    return all(
        key in keys and any(compare[operator](keys[key], value) for value in _list(values))
        for operator, wanted in condition.items()
        for key, values in wanted.items()
    )


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


class Judge:
    """Refuses calls as IAM would, in the proxy before moto.

    Attributes:
        policy: the user's, as a document.
        asked: every decision that calls have needed, as (action, resource).
    """

    def __init__(self, policy: Mapping[str, Any], things: Things) -> None:
        self.policy = policy
        self._things = things
        self.asked: list[tuple[str, Resource | None]] = []

    def __call__(self, action: str, params: Mapping[str, str]) -> Fault | None:
        if action not in THERE and action not in MADE:
            known = action.startswith("Describe") or action == "GetCallerIdentity"
            assert known, f"{action} is in no table of {__name__}"
            return None if action == "GetCallerIdentity" else self._fault([(action, None)])
        return self._fault(list(self._decisions(action, params)))

    def _fault(self, decisions: list[tuple[str, Resource | None]]) -> Fault | None:
        self.asked += decisions
        for action, resource in decisions:
            if not allows(self.policy, action, resource):
                what = resource.arn if resource else "*"
                words = f"User gridup is not authorized to perform: ec2:{action} on resource: {what}"
                return Fault(action, "UnauthorizedOperation", words, status=403)
        return None

    def _decisions(self, action: str, params: Mapping[str, str]) -> Iterator[tuple[str, Resource | None]]:
        for type_, id_, marks in self._named(params):
            if type_ in THERE.get(action, ()):
                yield action, Resource(type_, id_, resource_tags(marks))
        for type_ in MADE.get(action, ()):
            marks = _asked_for(params, type_)
            asked = {f"aws:RequestTag/{key}": text for key, text in marks.items()}
            yield action, Resource(type_, "*", asked)
            if marks:
                yield "CreateTags", Resource(type_, "*", {**asked, "ec2:CreateAction": action})

    def _named(self, params: Mapping[str, str]) -> Iterator[tuple[str, str, dict[str, str]]]:
        """The existing things that a call names: directly, by a name, or by what ties two together."""
        named = {text for key, text in params.items() if not key.startswith(("Filter", "Tag"))}
        for text in named:
            if text.startswith("ami-"):
                yield "image", text, {}
        for kind in KINDS:
            rows = getattr(self._things.ec2, kind.operation)().get(kind.key) or []
            if kind is kinds.INSTANCE:
                rows = [one for row in rows for one in row["Instances"]]
            for row in rows:
                known_by = {row[kind.id], row.get("KeyName") if kind is kinds.KEY else None}
                if kind is kinds.ADDRESS:
                    known_by.add(row.get("AssociationId"))
                if kind is kinds.ROUTES:
                    known_by |= {tie["RouteTableAssociationId"] for tie in row["Associations"]}
                if known_by & named:
                    # Interfaces have their tags by another name.
                    marks = {tag["Key"]: tag["Value"] for tag in row.get("TagSet") or ()} or tags.of(row)
                    yield kind.tag, row[kind.id], marks


def _asked_for(params: Mapping[str, str], type_: str) -> dict[str, str]:
    """The tags that a call gives to what it makes of a type."""
    found: dict[str, str] = {}
    for key, text in params.items():
        if (place := re.fullmatch(r"(TagSpecification\.\d+)\.ResourceType", key)) and text == type_:
            for number in range(1, 51):
                if (name := params.get(f"{place[1]}.Tag.{number}.Key")) is None:
                    break
                found[name] = params.get(f"{place[1]}.Tag.{number}.Value", "")
    return found
