"""A node's host on AWS: the real engine and command line against moto's server."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from gridup_infra.targets.aws import kinds, tags
from gridup_node.vm.user_data import LIMIT
from support import language_host
from support.aws_node import CLOUD, DEPLOY, STAFF, Account, deploy, node
from support.cache import shared_home
from support.checkpoints import checkpoint_path
from support.cli import Cli
from support.containers import stack_id
from support.moto_rig import ACCOUNT, NEWEST, ONE_OF_EACH, Moto
from support.plain_pulumi import Plain

pytestmark = [pytest.mark.tier("gate"), pytest.mark.engine]

OPEN = {
    (22, STAFF),
    (8888, STAFF),
    *((port, who) for port in (80, 443) for who in ("0.0.0.0/0", "::/0")),
}


@pytest.fixture
def account(moto: Moto) -> Account:
    return Account(moto)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_host.install(tmp_path_factory.mktemp("language host"))


def test_the_life_of_a_host(aws_cli: Cli, moto: Moto, account: Account) -> None:
    cli, things = aws_cli, account.things
    made = cli(*DEPLOY, "--json").ok()
    account.one_of_everything(stack_id(cli))
    assert account.rules() == OPEN
    address = things.one(kinds.ADDRESS)["PublicIp"]
    assert made.json["address"] == address
    machine, disk = things.one(kinds.INSTANCE), things.one(kinds.VOLUME)
    _is_as_promised(moto, account, cli)

    # Nothing has changed, and all of them say so.
    assert cli("preview", "--name", "Inst", "--no-node", "--json").ok().json["changes"] == []
    calls = len(moto.proxy.calls)
    assert "Nothing changed" in deploy(cli).err
    assert not [call for call in moto.proxy.calls[calls:] if not _only_looks(call.action)]
    assert cli("refresh", "Inst", "--json").ok().json == {"name": "Inst", "changes": [], "problems": []}

    # A rule that was removed by hand is seen, and put back.
    account.revoke(22, STAFF)
    seen = cli("status", "Inst", "--no-probe", "--json").ok().json[0]
    assert (seen["state"], seen["problems"]) == ("degraded", [f"the firewall's rule tcp 22 {STAFF} is gone"])
    refreshed = cli("refresh", "Inst", "--json").ok().json
    assert [row["resource"] for row in refreshed["changes"]] == ["security-group"]
    assert [row["resource"] for row in json.loads(deploy(cli, "--json").out)["changes"]] == ["security-group"]
    assert account.rules() == OPEN

    # Who is let in, the disk and the size are changed in place.
    group = things.one(kinds.GROUP)["GroupId"]
    cli(
        "deploy", "--name", "Inst", *CLOUD, "--allow-cidr", "2001:db8::/32", "--web-cidr", "198.51.100.0/24"
    ).ok()
    assert account.rules() == {
        *((port, "2001:db8::/32") for port in (22, 8888)),
        *((port, "198.51.100.0/24") for port in (80, 443)),
    }
    cli("deploy", "--name", "Inst", *CLOUD, "--size", "m5.large", "--disk-size", "80").ok()
    account.one_of_everything(stack_id(cli))
    after = things.one(kinds.INSTANCE)
    assert (after["InstanceId"], after["InstanceType"]) == (machine["InstanceId"], "m5.large")
    grown = things.one(kinds.VOLUME)
    assert (grown["VolumeId"], grown["Size"]) == (disk["VolumeId"], 80)
    assert things.one(kinds.GROUP)["GroupId"] == group
    assert "Nothing changed" in cli("deploy", "--name", "Inst", *CLOUD).ok().err

    # Stopped and started; the address stays.
    cli("stop", "Inst").ok()
    assert things.one(kinds.INSTANCE)["State"]["Name"] == "stopped"
    assert cli("status", "Inst", "--no-probe", "--json").ok().json[0]["state"] == "stopped"
    assert cli("start", "Inst", "--timeout", "1").code == 9
    account.wired()
    assert things.one(kinds.ADDRESS)["PublicIp"] == address

    ended = cli("destroy", "Inst", "--yes").ok()
    assert '"Inst" is destroyed' in ended.out
    account.as_before()
    # And at once again.
    deploy(cli)
    account.one_of_everything(stack_id(cli))
    assert things.one(kinds.INSTANCE)["InstanceId"] != machine["InstanceId"]


def _only_looks(action: str) -> bool:
    return action.startswith(("Describe", "Get"))


def _is_as_promised(moto: Moto, account: Account, cli: Cli) -> None:
    """What the machine was made with, and what is told of it."""
    machine, things = account.things.one(kinds.INSTANCE), account.things
    told = next(call.params for call in moto.proxy.calls if call.action == "RunInstances")
    assert told["MetadataOptions.HttpTokens"] == "required"
    assert told["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    assert told["NetworkInterface.1.AssociatePublicIpAddress"] == "false"
    assert {
        name: told[f"BlockDeviceMapping.1.Ebs.{name}"] for name in ("Encrypted", "DeleteOnTermination")
    } == {
        "Encrypted": "true",
        "DeleteOnTermination": "true",
    }
    assert machine["ImageId"] == NEWEST["x86_64"]
    disk = things.one(kinds.VOLUME)
    assert (disk["Encrypted"], disk["VolumeType"], disk["Size"]) == (True, "gp3", 64)
    # Every one is tagged from its first moment: no call but the creating ones sets a tag.
    marked = tags.of(machine)
    assert marked[tags.NAME] == "Inst"
    tagging = [call.params for call in moto.proxy.calls if call.action == "CreateTags"]
    assert [{key for key in params if key.startswith("Tag.")} for params in tagging] == [
        {"Tag.1.Key", "Tag.1.Value"}
    ]
    assert tagging[0]["Tag.1.Key"] == tags.HAS_DATA
    # The machine was told which disk is its own, and nothing secret.
    data = things.user_data(machine["InstanceId"])
    assert data.startswith(b"#cloud-config\n")
    assert len(data) <= LIMIT
    assert disk["VolumeId"].replace("-", "").encode() in data
    assert b"PRIVATE KEY" not in data
    key = things.one(kinds.KEY)
    assert key["KeyType"] == "ed25519"
    facts = node(cli)["facts"]
    assert facts["machine"] == machine["InstanceId"]
    assert facts["account"] == ACCOUNT
    # The private key is in the state, and only encrypted.
    text = checkpoint_path(cli.home / "state", "inst").read_text()
    assert "PRIVATE KEY" not in text
    assert hashlib.sha256(data).hexdigest() not in text


def test_plain_destroy_from_another_folder_leaves_nothing(
    aws_cli: Cli, moto: Moto, account: Account, host: Path, tmp_path: Path
) -> None:
    plain = Plain(aws_cli, host)
    deploy(aws_cli)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "infra").mkdir(parents=True)
    (elsewhere / "Pulumi.yaml").write_text("name: gridup\nruntime: python\nmain: infra/\n")
    plain("destroy", "-s", "inst", "--yes", env=moto.environment, cwd=elsewhere).ok()
    account.as_before()
    assert aws_cli("status", "--json").ok().json == []


def test_kept_data_outlives_plain_destroy_and_is_taken_over_by_the_next_node_where_that_is_said(
    aws_cli: Cli, moto: Moto, account: Account, host: Path
) -> None:
    things = account.things
    deploy(aws_cli, "--keep-data")
    disk = things.one(kinds.VOLUME)
    Plain(aws_cli, host)("destroy", "-s", "inst", "--yes", env=moto.environment).ok()
    left = [(title, row) for title, row in things.marked()]
    assert [(title, row["VolumeId"]) for title, row in left] == [("volume", disk["VolumeId"])]
    assert tags.of(left[0][1])[tags.RETAINED_AT]
    # In whatever zone the newcomer would have gone to: it goes to the disk's.
    for word in ("--yes", "--json"):
        refused = aws_cli(*(one for one in DEPLOY if one != "--yes"), word)
        assert refused.code == 2
        assert disk["VolumeId"] in refused.err
        assert "--adopt" in refused.err
    assert things.marked() == left
    shown = aws_cli("preview", "Inst", "--cloud", "aws", "--allow-cidr", STAFF, "--no-node", "--adopt").ok()
    assert f"It takes over the disk {disk['VolumeId']}" in shown.out
    deploy(aws_cli, "--adopt")
    account.one_of_everything(stack_id(aws_cli))
    taken = things.one(kinds.VOLUME)
    assert taken["VolumeId"] == disk["VolumeId"]
    assert tags.RETAINED_AT not in tags.of(taken)
    # No node has been healthy with it yet: its end keeps it, and a node that does not want it leaves it.
    deploy(aws_cli, "--no-keep-data")
    assert "keeps the disk" in aws_cli("destroy", "Inst", "--yes").ok().err
    deploy(aws_cli, "--new-data")
    aws_cli("destroy", "Inst", "--yes").ok()
    assert [row["VolumeId"] for _, row in things.marked()] == [disk["VolumeId"]]
    things.ec2.delete_volume(VolumeId=disk["VolumeId"])
    account.as_before()


def test_the_region_that_is_asked_for_holds_everything_and_is_remembered(aws_cli: Cli, moto: Moto) -> None:
    there, here = Account(moto, "eu-central-1"), Account(moto, "us-east-1")
    aws_cli.environment |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
    deploy(aws_cli, "--region", "eu-central-1")
    there.one_of_everything()
    here.as_before()
    lookups = {call.region for call in moto.proxy.calls if call.action == "DescribeImages"}
    assert lookups == {"eu-central-1"}
    assert {call.region for call in moto.proxy.calls} == {"eu-central-1"}
    assert "it can't be moved" in aws_cli(*DEPLOY, "--region", "us-east-1").err
    aws_cli("destroy", "Inst", "--yes").ok()
    there.as_before()
    here.as_before()


def test_a_colleagues_stack_of_the_same_name_is_never_touched(
    aws_cli: Cli, moto: Moto, account: Account, tmp_path: Path, cache: Path
) -> None:
    colleague = Cli(shared_home(tmp_path / "colleague", cache), dict(aws_cli.environment))
    deploy(aws_cli)
    ours = Account(moto)
    deploy(colleague)
    assert account.things.count(stack_id(aws_cli)) == account.things.count(stack_id(colleague)) == ONE_OF_EACH
    colleague("destroy", "Inst", "--yes").ok()
    ours.as_before()
    assert "Nothing changed" in deploy(aws_cli).err
    aws_cli("destroy", "Inst", "--yes").ok()
    account.as_before()


def test_a_machine_that_was_terminated_elsewhere_is_gone_and_made_again_with_its_data(
    aws_cli: Cli, moto: Moto, account: Account
) -> None:
    things = account.things
    deploy(aws_cli)
    disk, address = things.one(kinds.VOLUME), things.one(kinds.ADDRESS)
    first = things.one(kinds.INSTANCE)["InstanceId"]
    account.ec2.terminate_instances(InstanceIds=[first])
    seen = aws_cli("status", "Inst", "--json").ok().json[0]
    assert seen["state"] == "missing"
    assert f"the instance {first} is gone" in seen["problems"]
    deploy(aws_cli)
    account.one_of_everything(stack_id(aws_cli))
    assert things.one(kinds.VOLUME)["VolumeId"] == disk["VolumeId"]
    assert things.one(kinds.ADDRESS)["PublicIp"] == address["PublicIp"]
    tokens = [call.params["ClientToken"] for call in moto.proxy.calls if call.action == "RunInstances"]
    assert len(set(tokens)) == len(tokens) == 2
    # And when all of it is gone that can be, destroy ends well too.
    account.ec2.terminate_instances(InstanceIds=[things.one(kinds.INSTANCE)["InstanceId"]])
    aws_cli("destroy", "Inst", "--yes").ok()
    account.as_before()


@pytest.mark.tier("deep")
def test_another_machine_takes_over_the_disk_and_the_address(
    aws_cli: Cli, moto: Moto, account: Account
) -> None:
    things = account.things
    deploy(aws_cli)
    machine, disk, address = (things.one(kind) for kind in (kinds.INSTANCE, kinds.VOLUME, kinds.ADDRESS))
    asked = aws_cli("deploy", "--name", "Inst", "--no-node", "--no-wait", "--new-machine")
    assert asked.code == 2, asked
    assert "--yes" in asked.err
    seen = aws_cli("preview", "--name", "Inst", "--no-node", "--new-machine").ok()
    assert "instance" in seen.out
    assert things.one(kinds.INSTANCE)["InstanceId"] == machine["InstanceId"]
    deploy(aws_cli, "--new-machine")
    account.one_of_everything(stack_id(aws_cli))
    assert things.one(kinds.INSTANCE)["InstanceId"] != machine["InstanceId"]
    assert things.one(kinds.VOLUME)["VolumeId"] == disk["VolumeId"]
    assert things.one(kinds.ADDRESS)["PublicIp"] == address["PublicIp"]
    # The former one was stopped in order before its disk was taken.
    order = [
        call.action
        for call in moto.proxy.calls
        if call.action in ("StopInstances", "DetachVolume", "TerminateInstances")
    ]
    assert order == ["StopInstances", "DetachVolume", "TerminateInstances"]
    # A size of another architecture needs another machine too.
    deploy(aws_cli, "--size", "t4g.large")
    assert things.one(kinds.INSTANCE)["ImageId"] == NEWEST["arm64"]
    assert things.one(kinds.VOLUME)["VolumeId"] == disk["VolumeId"]
    account.one_of_everything(stack_id(aws_cli))


def test_a_persons_own_subnet_and_no_public_address(aws_cli: Cli, moto: Moto) -> None:
    ec2 = moto.client()
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone="eu-west-1c")["Subnet"]
    account = Account(moto)
    made = aws_cli(*DEPLOY, "--subnet-id", subnet["SubnetId"], "--private", "--json").ok()
    machine = account.things.one(kinds.INSTANCE)
    assert machine["SubnetId"] == subnet["SubnetId"]
    assert machine["Placement"]["AvailabilityZone"] == account.things.one(kinds.VOLUME)["AvailabilityZone"]
    assert made.json["address"] == machine["PrivateIpAddress"]
    assert account.things.count() == {"security group": 1, "key pair": 1, "volume": 1, "instance": 1}
    assert "Nothing changed" in deploy(aws_cli).err
    aws_cli("destroy", "Inst", "--yes").ok()
    account.as_before()
    nowhere = aws_cli(
        "deploy", "--name", "Lab", *CLOUD, "--allow-cidr", STAFF, "--subnet-id", "subnet-0123456789abcdef0"
    )
    assert nowhere.code == 1
    assert "There is no subnet subnet-0123456789abcdef0 in eu-west-1" in nowhere.err
    account.as_before()


@pytest.mark.parametrize("name", ["aws: 大学 🎓 2nd_*node?"])
def test_a_name_is_shown_as_typed_and_legal_where_it_has_to_be(
    aws_cli: Cli, account: Account, name: str
) -> None:
    aws_cli("deploy", "--name", name, *CLOUD, "--allow-cidr", STAFF).ok()
    machine = account.things.one(kinds.INSTANCE)
    assert tags.of(machine)[tags.NAME] == ("_" if name.startswith("aws:") else "") + name
    assert re.fullmatch(r"gridup-[a-z0-9-]+-[0-9a-f]{8}", tags.of(machine)["Name"])
    assert name in aws_cli("status", "--no-probe", "--json").ok().out
    aws_cli("destroy", name, "--yes").ok()
    account.as_before()


def test_a_deploy_that_fails_says_why_and_destroy_says_what_is_left_until_nothing_is(
    aws_cli: Cli, moto: Moto
) -> None:
    _without_default_network(moto)
    account = Account(moto)
    moto.proxy.fail("RunInstances", "InsufficientInstanceCapacity", status=500)
    failed = aws_cli(*DEPLOY)
    assert failed.code == 4
    error = next(line for line in failed.err.splitlines() if line.startswith("Error: "))
    assert "AWS has no room for t3.large in eu-west-1 now" in error
    assert "--size" in error
    assert "Traceback" not in failed.err
    assert len(account.things.all(kinds.ADDRESS)) == 1
    moto.proxy.fail("DeleteVolume", "UnauthorizedOperation", status=403)
    refused = aws_cli("destroy", "Inst", "--yes")
    assert refused.code == 3
    assert "does not allow ec2:DeleteVolume" in refused.err
    disk = account.things.one(kinds.VOLUME)["VolumeId"]
    assert f"left: volume {disk} in eu-west-1" in refused.err
    moto.proxy.clear()
    aws_cli("destroy", "Inst", "--yes").ok()
    account.as_before()
    assert account.things.all(kinds.ADDRESS) == []


def _without_default_network(moto: Moto) -> None:
    """As in accounts whose owner has removed it."""
    ec2 = moto.client()
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        ec2.delete_vpc(VpcId=vpc["VpcId"])


def test_without_credentials_or_rights_nothing_is_made_and_the_reason_is_right(
    aws_cli: Cli, moto: Moto, account: Account
) -> None:
    told = {}
    for code in ("", "ExpiredToken", "InvalidClientTokenId"):
        moto.proxy.clear()
        environment = {} if code else {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        if code:
            moto.proxy.fail("GetCallerIdentity", code, status=403)
        ended = aws_cli(*DEPLOY, env=environment)
        assert ended.code == 3, ended
        assert "Traceback" not in ended.err
        told[code] = next(line for line in ended.err.splitlines() if line.startswith("Error: "))
    assert len(set(told.values())) == 3
    assert "no AWS credentials" in told[""]
    assert "expired" in told["ExpiredToken"]
    account.as_before()
    assert aws_cli("status", "--json").ok().json == []


@pytest.mark.tier("deep")
def test_a_zone_without_room_costs_a_deploy_nothing_and_the_state_stays_right(
    aws_cli: Cli, moto: Moto, account: Account
) -> None:
    ec2 = moto.client()

    def in_zone_a(params: Mapping[str, str]) -> bool:
        subnet = ec2.describe_subnets(SubnetIds=[params["NetworkInterface.1.SubnetId"]])["Subnets"][0]
        return bool(subnet["AvailabilityZone"] == "eu-west-1a")

    moto.proxy.fail("RunInstances", "Unsupported", when=in_zone_a)
    deploy(aws_cli)
    disk, machine = account.things.one(kinds.VOLUME), account.things.one(kinds.INSTANCE)
    assert disk["AvailabilityZone"] == machine["Placement"]["AvailabilityZone"] == "eu-west-1b"
    assert disk["Attachments"][0]["InstanceId"] == machine["InstanceId"]
    assert moto.proxy.actions()["RunInstances"] == 2
    assert aws_cli("status", "Inst", "--no-probe", "--json").ok().json[0]["problems"] == []
    aws_cli("refresh", "Inst").ok()
    assert "Nothing changed" in deploy(aws_cli).err
    aws_cli("destroy", "Inst", "--yes").ok()
    account.as_before()
