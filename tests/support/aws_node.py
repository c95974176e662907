"""Deploying a node's host to moto, and what must be true of the account afterwards."""

from __future__ import annotations

import json
from typing import Any

from gridup_infra.targets.aws import kinds, tags
from support.checkpoints import checkpoint_path
from support.cli import Cli, Ended
from support.moto_rig import ONE_OF_EACH, REGION, Moto

CLOUD = ("--cloud", "aws", "--no-node", "--no-wait", "--yes")
STAFF = "203.0.113.7/32"
DEPLOY = ("deploy", "--name", "Inst", *CLOUD, "--allow-cidr", STAFF)


class Account:
    """One region of the account, and what was there before the test."""

    def __init__(self, moto: Moto, region: str = REGION) -> None:
        self.moto = moto
        self.things = moto.things(region)
        self.ec2 = self.things.ec2
        self._before = self.things.snapshot()

    def one_of_everything(self, stack_id: str = "") -> None:
        """One of each kind, all of one stack, and a machine that runs and has disk and address."""
        assert self.things.count() == ONE_OF_EACH
        ids = {tags.of(row)[tags.STACK_ID] for _, row in self.things.marked()}
        assert len(ids) == 1
        assert not stack_id or ids == {stack_id}
        self.wired()

    def wired(self) -> None:
        """The machine runs, and has disk, address, network and firewall."""
        machine, disk = self.things.one(kinds.INSTANCE), self.things.one(kinds.VOLUME)
        assert machine["State"]["Name"] == "running"
        assert disk["Attachments"][0]["InstanceId"] == machine["InstanceId"]
        assert self.things.one(kinds.ADDRESS)["InstanceId"] == machine["InstanceId"]
        table, subnet = self.things.one(kinds.ROUTES), self.things.one(kinds.SUBNET)
        gateway = self.things.one(kinds.GATEWAY)["InternetGatewayId"]
        assert [
            row["GatewayId"] for row in table["Routes"] if row["DestinationCidrBlock"] == "0.0.0.0/0"
        ] == [gateway]
        assert subnet["SubnetId"] in [row.get("SubnetId") for row in table["Associations"]]
        assert self.rules()

    def as_before(self) -> None:
        """All that was there before, and nothing else."""
        assert self.things.snapshot() == self._before

    def rules(self) -> set[tuple[int, str]]:
        """What the node's firewall lets in: (port, network)."""
        group = self.things.one(kinds.GROUP)
        return {
            (row["FromPort"], who)
            for row in group["IpPermissions"]
            for who in (
                *(entry["CidrIp"] for entry in row["IpRanges"]),
                *(entry["CidrIpv6"] for entry in row["Ipv6Ranges"]),
            )
        }

    def revoke(self, port: int, cidr: str) -> None:
        """Take a rule away by hand."""
        self.ec2.revoke_security_group_ingress(
            GroupId=self.things.one(kinds.GROUP)["GroupId"],
            IpPermissions=[
                {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": cidr}]}
            ],
        )


def deploy(cli: Cli, *words: str) -> Ended:
    return cli(*DEPLOY, *words).ok()


def node(cli: Cli, stack: str = "inst") -> dict[str, Any]:
    """What the stack exports."""
    state = json.loads(checkpoint_path(cli.home / "state", stack).read_text())
    resources = state["checkpoint"]["latest"]["resources"]
    outputs = next(row["outputs"] for row in resources if row["type"] == "pulumi:pulumi:Stack")
    exported: dict[str, Any] = json.loads(outputs["node"])
    return exported
