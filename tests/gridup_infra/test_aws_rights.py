"""The policy of docs/aws.md is enough for a node, none of it is one too many, and it is for nodes alone."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from gridup_infra.errors import GridupError
from gridup_infra.spec import UNLIMITED
from gridup_infra.targets import target
from gridup_infra.targets.aws import client, tags
from gridup_infra.targets.base import StackRef
from gridup_infra.targets.dynamic import ProviderError
from gridup_infra.vm import node
from support.aws_parts import Parts, spec
from support.cli import REPOSITORY
from support.ec2_rights import MADE, THERE, Judge, Resource, allows, resource_tags
from support.moto_rig import NEWEST, REGION, Moto, Things

pytestmark = pytest.mark.tier("gate")

USER = "gridup"
POLICY = json.loads(
    re.findall(r"```json\n(.*?)```", (REPOSITORY / "docs/aws.md").read_text(encoding="utf-8"), re.DOTALL)[0]
)
ACTIONS = sorted({action for statement in POLICY["Statement"] for action in statement["Action"]})


class Iam:
    """The user that deploys, and an administrator who says what that user may."""

    def __init__(self, moto: Moto) -> None:
        self.moto = moto
        self._iam = iam = moto.client("iam")
        for name in (USER, "admin"):
            iam.create_user(UserName=name)
        self.keys = {name: iam.create_access_key(UserName=name)["AccessKey"] for name in (USER, "admin")}
        self._allow(iam, "admin", ["*"])
        self.allow(ACTIONS)
        # moto knows a policy's actions, the judge the rest of it.
        self.judge = Judge(POLICY, Things(self.client("admin", moto.direct)))

    def client(self, name: str, url: str) -> Any:
        """EC2 as a user of that name sees it."""
        keys = self.keys[name]
        return boto3.session.Session(
            aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"]
        ).client("ec2", region_name=REGION, endpoint_url=url)

    def allow(self, actions: list[str]) -> None:
        """What the user may, from now on."""
        # What sets it is asked for no rights; what comes after is.
        self.moto.post("/moto-api/reset-auth", "inf")
        self._allow(self._iam, USER, actions)
        self.moto.post("/moto-api/reset-auth", "0")

    @staticmethod
    def _allow(iam: Any, user: str, actions: list[str]) -> None:
        document = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}],
        }
        iam.put_user_policy(UserName=user, PolicyName="gridup", PolicyDocument=json.dumps(document))


@pytest.fixture
def iam(aws: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iam]:
    made = Iam(aws)
    monkeypatch.setattr(aws.proxy, "judge", made.judge)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made.keys[USER]["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made.keys[USER]["SecretAccessKey"])
    monkeypatch.setattr(client, "pause", lambda _attempt: None)
    client.clear_caches()
    yield made
    aws.post("/moto-api/reset-auth", "inf")


class Life:
    """Everything that may come in a node's life, with what a person does to it in between, step by step.

    A step that failed can be taken again: it goes on where it was.
    """

    def __init__(self, iam: Iam) -> None:
        self.admin = Admin(iam)
        self.user = iam.client(USER, iam.moto.url)
        self.parts = Parts(spec(keep_data=True))
        self.steps: list[Callable[[], object]] = [
            lambda: self.parts.deploy(),
            self.asked_for_more,
            lambda: self.parts.deploy(),
            self.asked_otherwise,
            lambda: self.parts.deploy(),
            self.meddled_with,
            lambda: self.parts.refresh(),
            lambda: self.parts.deploy(),
            self.tidied_up,
            self.boot_log,
            self.looked_at,
            lambda: self.parts.destroy(),
            self.next_one,
            lambda: self.parts.deploy(),
            self.interface_left,
            self.sweep,
        ]

    def go_on(self) -> None:
        """Take the steps that are left, up to the first that fails."""
        while self.steps:
            self.steps[0]()
            self.steps.pop(0)

    def asked_for_more(self) -> None:
        self.parts.spec = replace(self.parts.spec, cpu_credits=UNLIMITED)

    def asked_otherwise(self) -> None:
        how = {"size": "m5.large", "cpu_credits": "", "disk_size": 80, "allow_cidr": ("198.51.100.0/24",)}
        self.parts.spec = replace(self.parts.spec, **how)

    def meddled_with(self) -> None:
        outs = self.parts.outs
        self.admin(
            "modify_instance_metadata_options", InstanceId=outs["instance"]["instance"], HttpTokens="optional"
        )
        group, everything = outs["security-group"]["group"], {"IpProtocol": "-1"}
        for call, network in (("revoke", "0.0.0.0/0"), ("authorize", "10.0.0.0/8")):
            rule = {**everything, "IpRanges": [{"CidrIp": network}]}
            self.admin(f"{call}_security_group_egress", GroupId=group, IpPermissions=[rule])
        self.another = self.admin("create_internet_gateway")["InternetGateway"]["InternetGatewayId"]
        self.admin("attach_internet_gateway", InternetGatewayId=self.another, VpcId=outs["vpc"]["vpc"])
        self.admin(
            "replace_route",
            RouteTableId=outs["route-table"]["table"],
            DestinationCidrBlock="0.0.0.0/0",
            GatewayId=self.another,
        )

    def tidied_up(self) -> None:
        vpc = self.parts.outs["vpc"]["vpc"]
        self.admin("detach_internet_gateway", InternetGatewayId=self.another, VpcId=vpc)
        self.admin("delete_internet_gateway", InternetGatewayId=self.another)

    def boot_log(self) -> None:
        machine = self.parts.outs["instance"]["instance"]
        facts = {"region": REGION, node.MACHINE: machine, "account": ""}
        target("aws").boot_log(node.node_outputs(self.parts.spec, "", {}, facts))

    def looked_at(self) -> None:
        """With the command that the page names."""
        mark = [{"Name": f"tag:{tags.NAME}", "Values": [self.parts.spec.name]}]
        try:
            self.user.describe_tags(Filters=mark)
        except ClientError as error:
            raise ProviderError(f"DescribeTags: {error}") from error

    def next_one(self) -> None:
        """The disk was kept; a node of the same name takes it over."""
        kept = target("aws").retained(spec())
        assert kept
        self.parts = Parts(spec(adopted=kept.id))

    def interface_left(self) -> None:
        """Of the stack, and in no state: only a sweep finds it."""
        marks = [{"Key": "gridup:stack-id", "Value": self.parts.spec.stack_id}]
        self.admin(
            "create_network_interface",
            SubnetId=self.parts.outs["subnet"]["subnet"],
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": marks}],
        )

    def sweep(self) -> None:
        target("aws").delete_all(
            StackRef("inst", self.parts.spec.stack_id, "Inst", "aws", {"region": REGION})
        )


class Admin:
    """Calls of somebody else, who may do anything."""

    def __init__(self, iam: Iam) -> None:
        self.ec2 = iam.client("admin", iam.moto.direct)

    def __call__(self, operation: str, **words: Any) -> Any:
        return getattr(self.ec2, operation)(**words)


def within_a_subnet_of_theirs(iam: Iam) -> None:
    """What --subnet-id comes to: a security group and a machine in a network that bears no node's tag."""
    theirs = Admin(iam)("describe_subnets")["Subnets"][0]
    user, marks = iam.client(USER, iam.moto.url), [{"Key": tags.STACK_ID, "Value": "theirs"}]

    def marked(*types: str) -> list[dict[str, Any]]:
        return [{"ResourceType": type_, "Tags": marks} for type_ in types]

    group = user.create_security_group(
        GroupName="g", Description="g", VpcId=theirs["VpcId"], TagSpecifications=marked("security-group")
    )["GroupId"]
    made = user.run_instances(
        ImageId=NEWEST["x86_64"],
        InstanceType="t3.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=theirs["SubnetId"],
        SecurityGroupIds=[group],
        TagSpecifications=marked("instance", "volume", "network-interface"),
    )
    user.terminate_instances(InstanceIds=[made["Instances"][0]["InstanceId"]])
    user.delete_security_group(GroupId=group)


def wrong_ones() -> Iterator[tuple[str, dict[str, Any]]]:
    """The policy with one thing in it that fits nothing: a condition's key, or a resource."""
    for number, statement in enumerate(POLICY["Statement"]):
        for operator, wanted in statement.get("Condition", {}).items():
            for key in wanted:
                wrong = copy.deepcopy(POLICY)
                condition = wrong["Statement"][number]["Condition"][operator]
                condition[f"{key}s"] = condition.pop(key)
                yield f"{statement['Sid']}: {key}", wrong
        for pattern in statement["Resource"] if isinstance(statement["Resource"], list) else ():
            wrong = copy.deepcopy(POLICY)
            wrong["Statement"][number]["Resource"].remove(pattern)
            yield f"{statement['Sid']}: {pattern}", wrong


def test_the_policy_is_enough_for_a_whole_life_and_without_any_of_its_actions_some_part_fails(
    iam: Iam,
) -> None:
    Life(iam).go_on()
    order = dict.fromkeys(f"ec2:{call.action}" for call in iam.moto.proxy.calls)
    order.pop("ec2:GetCallerIdentity", None)
    assert set(order) == set(ACTIONS)
    within_a_subnet_of_theirs(iam)
    for title, wrong in wrong_ones():
        refused = [action for action, resource in iam.judge.asked if not allows(wrong, action, resource)]
        assert refused, f"nothing in a node's life needs {title}"
    assert all(allows(POLICY, action, resource) for action, resource in iam.judge.asked)
    life = Life(iam)
    # Both are under way at the same time; only the second is called again whatever came of the first.
    each = list(order)
    each.remove("ec2:AttachVolume")
    each.insert(each.index("ec2:AssociateAddress"), "ec2:AttachVolume")
    for action in each:
        iam.allow([other for other in ACTIONS if other != action])
        with pytest.raises((ProviderError, GridupError), match=rf"{action}\b"):
            life.go_on()
            pytest.fail(f"nothing failed without {action}")
        iam.allow(ACTIONS)
    life.go_on()
    iam.moto.post("/moto-api/reset-auth", "inf")
    assert iam.moto.things().marked() == []


def test_nothing_that_has_no_nodes_tag_may_be_changed_or_removed_or_be_given_one() -> None:
    used = {("RunInstances", "image"), ("RunInstances", "subnet"), ("CreateSecurityGroup", "vpc")}
    asked = {f"aws:RequestTag/{tags.STACK_ID}": "x"}
    may = {
        (action, type_)
        for action, types in THERE.items()
        for type_ in types
        for marks in ({}, {"Name": "web"}, {"gridup": "stack-id"})
        for keys in (
            resource_tags(marks),
            {**resource_tags(marks), **(asked if action == "CreateTags" else {})},
        )
        if allows(POLICY, action, Resource(type_, "x", keys))
    }
    assert may == used
    assert {f"ec2:{action}" for action in (*THERE, *MADE)} <= set(ACTIONS)


def test_nothing_may_be_made_without_a_nodes_tag() -> None:
    for action, types in MADE.items():
        for type_ in types:
            assert allows(POLICY, action, Resource(type_, "*", {f"aws:RequestTag/{tags.STACK_ID}": "x"}))
            assert not allows(POLICY, action, Resource(type_, "*", {"aws:RequestTag/Name": "web"})), action


def test_a_colleagues_volume_is_refused_over_the_wire(iam: Iam) -> None:
    volume = Admin(iam)("create_volume", AvailabilityZone=f"{REGION}a", Size=8)["VolumeId"]
    user = iam.client(USER, iam.moto.url)
    mark = [{"Key": tags.STACK_ID, "Value": "mine"}]
    for call in (
        lambda: user.delete_volume(VolumeId=volume),
        lambda: user.create_tags(Resources=[volume], Tags=mark),
        lambda: user.create_volume(AvailabilityZone=f"{REGION}a", Size=8),
    ):
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            call()
