"""The policy of docs/aws.md is enough for a node's life, and none of its actions is one too many."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest

from gridup_infra.errors import GridupError
from gridup_infra.targets import target
from gridup_infra.targets.aws import client
from gridup_infra.targets.base import Identity
from gridup_infra.targets.dynamic import FailedError
from gridup_infra.vm import node
from support.aws_parts import Parts, spec
from support.cli import REPOSITORY
from support.moto_rig import REGION, Moto

pytestmark = pytest.mark.tier("gate")

USER = "gridup"
POLICY = json.loads(
    re.findall(r"```json\n(.*?)```", (REPOSITORY / "docs/aws.md").read_text(encoding="utf-8"), re.DOTALL)[0]
)
ACTIONS = sorted(action for statement in POLICY["Statement"] for action in statement["Action"])


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
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", made.keys[USER]["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made.keys[USER]["SecretAccessKey"])
    monkeypatch.setattr(client, "pause", lambda _attempt: None)
    client.forget()
    yield made
    aws.post("/moto-api/reset-auth", "inf")


class Life:
    """Everything that may come in a node's life, with what a person does to it in between, step by step.

    A step that failed can be taken again: it goes on where it was.
    """

    def __init__(self, iam: Iam) -> None:
        self.admin = Admin(iam)
        self.parts = Parts(spec(keep_data=True))
        self.steps: list[Callable[[], object]] = [
            lambda: self.parts.deploy(),
            self.asked_otherwise,
            lambda: self.parts.deploy(),
            self.meddled_with,
            lambda: self.parts.refresh(),
            lambda: self.parts.deploy(),
            self.tidied_up,
            self.boot_log,
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

    def asked_otherwise(self) -> None:
        how = {"size": "m5.large", "disk_size": 80, "allow_cidr": ("198.51.100.0/24",)}
        self.parts.spec = replace(self.parts.spec, **how)

    def meddled_with(self) -> None:
        outs = self.parts.outs
        self.admin(
            "modify_instance_metadata_options", InstanceId=outs["instance"]["instance"], HttpTokens="optional"
        )
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

    def next_one(self) -> None:
        """The disk was kept; a node of the same name takes it over."""
        self.parts = Parts(spec())

    def interface_left(self) -> None:
        """Of the stack, and in no state: only a sweep finds it."""
        marks = [{"Key": "gridup:stack-id", "Value": self.parts.spec.stack_id}]
        self.admin(
            "create_network_interface",
            SubnetId=self.parts.outs["subnet"]["subnet"],
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": marks}],
        )

    def sweep(self) -> None:
        target("aws").sweep(Identity("inst", self.parts.spec.stack_id, "Inst", "aws", {"region": REGION}))


class Admin:
    """Calls of somebody else, who may do anything."""

    def __init__(self, iam: Iam) -> None:
        keys = iam.keys["admin"]
        self.ec2 = boto3.session.Session(
            aws_access_key_id=keys["AccessKeyId"], aws_secret_access_key=keys["SecretAccessKey"]
        ).client("ec2", region_name=REGION, endpoint_url=iam.moto.direct)

    def __call__(self, operation: str, **words: Any) -> Any:
        return getattr(self.ec2, operation)(**words)


def test_the_policy_is_enough_for_a_whole_life_and_without_any_of_its_actions_some_part_fails(
    iam: Iam,
) -> None:
    Life(iam).go_on()
    order = dict.fromkeys(f"ec2:{call.action}" for call in iam.moto.proxy.calls)
    order.pop("ec2:GetCallerIdentity", None)
    assert set(order) == set(ACTIONS)
    life = Life(iam)
    # Both are under way at the same time; only the second is called again whatever came of the first.
    each = list(order)
    each.remove("ec2:AttachVolume")
    each.insert(each.index("ec2:AssociateAddress"), "ec2:AttachVolume")
    for action in each:
        iam.allow([other for other in ACTIONS if other != action])
        with pytest.raises((FailedError, GridupError), match=rf"{action}\b"):
            life.go_on()
            pytest.fail(f"nothing failed without {action}")
        iam.allow(ACTIONS)
    life.go_on()
    iam.moto.post("/moto-api/reset-auth", "inf")
    assert iam.moto.things().marked() == []
