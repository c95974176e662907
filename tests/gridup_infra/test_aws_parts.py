"""The providers of the AWS target against moto's server, without an engine: what a cloud does to a deploy."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import yaml

from gridup_infra.errors import CredentialsError, GridupError, PreflightError, ResourceError, UsageError
from gridup_infra.naming import NAME_MAX
from gridup_infra.outputs import NOT_COMPLETED
from gridup_infra.spec import NEW_DATA, DeploySpec
from gridup_infra.spec import urn as any_urn
from gridup_infra.targets import target
from gridup_infra.targets.aws import (
    client,
    instances,
    kinds,
    naming,
    networks,
    preflight,
    tags,
    volumes,
)
from gridup_infra.targets.aws.client import configured_region
from gridup_infra.targets.aws.firewall import Rule, rules
from gridup_infra.targets.base import NodeStatus, StackRef
from gridup_infra.targets.dynamic import ProviderError
from gridup_infra.vm import node
from gridup_node.vm.user_data import LIMIT, Host, user_data
from support import ssh_keys
from support.aws_parts import ORDER, Parts, spec
from support.moto_rig import NEWEST, ONE_OF_EACH, REGION, Moto, Things

pytestmark = pytest.mark.tier("gate")


@pytest.fixture
def things(aws: Moto) -> Things:
    return aws.things()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Whoever waits before another attempt says so, and goes on."""
    waited: list[int] = []
    monkeypatch.setattr(client, "pause", waited.append)
    monkeypatch.setattr(client, "POLL_SECONDS", 0.01)
    for module in (instances, volumes, networks):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    yield waited


def only_zones(moto: Moto, *zones: str) -> Callable[[Any], bool]:
    """Whether a launch goes to one of these zones."""
    ec2 = moto.client()

    def within(params: Any) -> bool:
        subnet = ec2.describe_subnets(SubnetIds=[params["NetworkInterface.1.SubnetId"]])["Subnets"][0]
        return subnet["AvailabilityZone"] in zones

    return within


def test_made_found_as_laid_down_and_removed(aws: Moto, things: Things) -> None:
    before = things.snapshot()
    parts = Parts(spec()).deploy()
    assert things.count() == ONE_OF_EACH
    assert parts.refresh() == {}
    calls = len(aws.proxy.calls)
    parts.deploy()
    assert len(aws.proxy.calls) == calls
    parts.destroy()
    assert things.snapshot() == before


def test_what_is_there_with_our_marks_is_taken_and_not_made_again(aws: Moto, things: Things) -> None:
    wanted = spec()
    first = Parts(wanted).deploy()
    second = Parts(wanted).deploy()
    assert things.count() == ONE_OF_EACH
    assert first.ids == second.ids


def test_what_somebody_did_by_hand_is_seen_and_put_right(aws: Moto, things: Things) -> None:
    ec2, parts = things.ec2, Parts(spec()).deploy()
    group, machine = parts.outs["security-group"]["group"], parts.outs["instance"]["instance"]
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]},
            {
                "IpProtocol": "udp",
                "FromPort": 60000,
                "ToPort": 61000,
                "UserIdGroupPairs": [{"GroupId": group}],
            },
        ],
    )
    for change, network in (
        (ec2.revoke_security_group_egress, "0.0.0.0/0"),
        (ec2.authorize_security_group_egress, "10.0.0.0/8"),
    ):
        rule = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": network}]}
        change(GroupId=group, IpPermissions=[rule])
    ec2.modify_instance_metadata_options(InstanceId=machine, HttpTokens="optional")
    ec2.stop_instances(InstanceIds=[machine])
    ec2.modify_instance_attribute(InstanceId=machine, InstanceType={"Value": "t3.nano"})
    table = things.one(kinds.ROUTES)
    ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0")
    address = things.one(kinds.ADDRESS)
    ec2.disassociate_address(AssociationId=address["AssociationId"])
    ec2.detach_volume(VolumeId=parts.outs["instance"]["disk"], InstanceId=machine)
    assert parts.refresh() == {
        "route-table": ["the route to the internet is gone"],
        "security-group": [
            "the firewall also lets in -1 - 2001:db8::/32",
            "the firewall also lets in tcp 22 0.0.0.0/0",
            f"the firewall also lets in udp 60000-61000 {group}",
            "the firewall's rule for the way out -1 - 0.0.0.0/0 is gone",
            "the firewall also lets out -1 - 10.0.0.0/8",
        ],
        "instance": [
            "the instance is stopped",
            "the instance is a t3.nano, not a t3.large",
            "the instance's metadata can be read without a token",
        ],
        "attachment": [
            "the data disk is not attached to the instance",
            "the address does not lead to the instance",
        ],
    }
    parts.deploy()
    assert parts.refresh() == {}
    seen = things.one(kinds.INSTANCE)
    assert (seen["State"]["Name"], seen["InstanceType"]) == ("running", "t3.large")


@pytest.mark.parametrize("code", ["Unsupported", "InsufficientInstanceCapacity"])
def test_a_zone_without_room_is_left_for_the_next_and_never_tried_again(
    aws: Moto, things: Things, code: str
) -> None:
    before = things.snapshot()
    aws.proxy.fail("RunInstances", code, when=only_zones(aws, "eu-west-1a", "eu-west-1b"), status=500)
    parts = Parts(spec()).deploy()
    subnets = [
        call.params["NetworkInterface.1.SubnetId"]
        for call in aws.proxy.calls
        if call.action == "RunInstances"
    ]
    assert len(subnets) == len(set(subnets)) == 3
    machine, disk = things.one(kinds.INSTANCE), things.one(kinds.VOLUME)
    assert machine["Placement"]["AvailabilityZone"] == disk["AvailabilityZone"] == "eu-west-1c"
    assert disk["Attachments"][0]["InstanceId"] == machine["InstanceId"]
    assert disk["VolumeId"].replace("-", "").encode() in things.user_data(machine["InstanceId"])
    table = things.one(kinds.ROUTES)
    assert machine["SubnetId"] in [row.get("SubnetId") for row in table["Associations"]]
    # The state is told of the disk that it has by now, and nothing is to be done for that.
    assert parts.refresh() == {}
    calls = len(aws.proxy.calls)
    parts.deploy()
    assert len(aws.proxy.calls) == calls
    parts.destroy()
    assert things.snapshot() == before


def test_no_zone_with_room_is_one_line_with_size_region_and_what_to_change(aws: Moto, things: Things) -> None:
    before, parts = things.snapshot(), Parts(spec())
    aws.proxy.fail("RunInstances", "InsufficientInstanceCapacity", status=500)
    with pytest.raises(ProviderError) as caught:
        parts.deploy()
    text = str(caught.value)
    assert "AWS has no room for t3.large in eu-west-1 now" in text
    assert all(zone in text for zone in ("eu-west-1a", "eu-west-1b", "eu-west-1c"))
    assert "--size" in text
    assert "--region" in text
    assert "\n" not in text
    assert aws.proxy.actions()["RunInstances"] == 3
    assert things.count()["volume"] == 1
    # It goes on where it stopped as soon as there is room; the address is released at the end all the same.
    parts.destroy()
    assert things.snapshot() == before


def test_a_disk_that_may_hold_data_never_moves(aws: Moto, things: Things) -> None:
    parts = Parts(spec()).deploy()
    disk = things.one(kinds.VOLUME)
    things.ec2.terminate_instances(InstanceIds=[parts.outs["instance"]["instance"]])
    assert parts.refresh() == {"instance": ["gone"], "attachment": ["gone"]}
    aws.proxy.fail("RunInstances", "InsufficientInstanceCapacity", status=500)
    with pytest.raises(ProviderError, match="the data disk is there"):
        parts.deploy()
    assert things.one(kinds.VOLUME)["VolumeId"] == disk["VolumeId"]
    aws.proxy.clear()
    parts.deploy()
    assert things.one(kinds.INSTANCE)["Placement"]["AvailabilityZone"] == disk["AvailabilityZone"]
    assert things.count() == ONE_OF_EACH


def test_a_quota_is_one_line_and_no_other_zone_is_tried(aws: Moto) -> None:
    aws.proxy.fail("RunInstances", "VcpuLimitExceeded", message="You have requested more vCPU capacity …")
    with pytest.raises(
        ProviderError, match=r"quota has no room for t3\.large in eu-west-1.*--size.*--region"
    ):
        Parts(spec()).deploy()
    assert aws.proxy.actions()["RunInstances"] == 1


def test_an_image_that_is_gone_is_said_to_be_and_not_waited_for(aws: Moto) -> None:
    aws.proxy.fail("RunInstances", "InvalidAMIID.NotFound")
    with pytest.raises(
        ProviderError,
        match=f"{NEWEST['x86_64']} of this node's VM is not there any more.*--name Inst --new-ma",
    ):
        Parts(spec()).deploy()
    assert aws.proxy.actions()["RunInstances"] == 1


def test_cpu_credits_cost_nothing_more_unless_asked_and_change_while_the_machine_runs(
    aws: Moto, things: Things
) -> None:
    parts = Parts(spec()).deploy()
    machine = things.one(kinds.INSTANCE)["InstanceId"]
    assert aws.proxy.credits == {machine: "standard"}
    assert parts.refresh() == {}
    parts.spec = replace(parts.spec, cpu_credits="unlimited")
    parts.deploy()
    assert aws.proxy.credits == {machine: "unlimited"}
    assert aws.proxy.actions()["StopInstances"] == 0
    # Changed by somebody else.
    aws.proxy.credits[machine] = "standard"
    assert parts.refresh() == {"instance": ["the instance's CPU credits are standard, not unlimited"]}
    parts.deploy()
    assert (aws.proxy.credits, parts.refresh()) == ({machine: "unlimited"}, {})


def test_a_machine_of_before_gridup_set_its_credits_gets_the_mode_and_is_not_made_anew(
    aws: Moto, things: Things
) -> None:
    parts = Parts(spec(cpu_credits="")).deploy()
    assert (aws.proxy.credits, parts.refresh()) == ({}, {})
    machine = things.one(kinds.INSTANCE)["InstanceId"]
    parts.spec = replace(parts.spec, cpu_credits="standard")
    parts.deploy()
    assert aws.proxy.credits == {machine: "standard"}


def test_a_size_without_credits_is_asked_and_told_nothing_of_them(aws: Moto, things: Things) -> None:
    parts = Parts(spec(size="m5.large")).deploy()
    assert parts.refresh() == {}
    told = [call for call in aws.proxy.calls if any("Credit" in key for key in (call.action, *call.params))]
    assert told == []
    # And gets its mode with a size that has them.
    parts.spec = replace(parts.spec, size="t3.large", cpu_credits="standard")
    parts.deploy()
    assert aws.proxy.credits == {things.one(kinds.INSTANCE)["InstanceId"]: "standard"}


def test_the_mode_of_cpu_credits_is_chosen_and_told_with_what_it_costs() -> None:
    aws_target, before = target("aws"), spec()
    mine = {"region": REGION, "target": "aws"}
    assert aws_target.resolve(DeploySpec("Inst", **mine), None).cpu_credits == "standard"
    for size in ("t2.micro", "t3a.large", "t4g.large"):
        assert aws_target.resolve(DeploySpec("Inst", size=size, **mine), None).cpu_credits == "standard"
    assert aws_target.resolve(DeploySpec("Inst", size="m5.large", **mine), None).cpu_credits == ""
    asked = DeploySpec("Inst", size="trn1.2xlarge", cpu_credits="unlimited", **mine)
    with pytest.raises(UsageError, match=r"trn1\.2xlarge has no CPU credits"):
        aws_target.resolve(asked, None)
    # One that is only remembered goes with the size that had it.
    assert aws_target.resolve(replace(before, size="m5.large"), before).cpu_credits == ""
    dear = replace(before, cpu_credits="unlimited")
    assert any("AWS bills" in line for line in aws_target.summary(dear))
    assert any("never billed for more" in line for line in aws_target.summary(before))
    current = node.node_outputs(before, "", {}, {})
    (line,) = aws_target.warnings(dear, current)
    assert '"Inst" now has CPU credits: unlimited' in line
    assert "AWS bills" in line
    assert aws_target.warnings(before, current) == ()


def test_a_size_without_room_in_the_zone_gives_the_former_one_back(aws: Moto, things: Things) -> None:
    parts = Parts(spec()).deploy()
    aws.proxy.fail("StartInstances", "InsufficientInstanceCapacity", count=1)
    parts.spec = replace(parts.spec, size="m5.large")
    with pytest.raises(ProviderError, match=r"no room for m5\.large in eu-west-1"):
        parts.deploy()
    machine = things.one(kinds.INSTANCE)
    assert (machine["InstanceType"], machine["State"]["Name"]) == ("t3.large", "running")


def test_what_shows_up_late_and_calls_that_are_limited_end_well_with_one_of_each(
    aws: Moto, things: Things, no_pauses: list[int]
) -> None:
    launched: list[bool] = []

    def after_launch(_params: object) -> bool:
        launched.append(any(call.action == "RunInstances" for call in aws.proxy.calls))
        return launched[-1]

    late = aws.proxy.fail("DescribeInstances", "InvalidInstanceID.NotFound", count=2, when=after_launch)
    for action in ("CreateVpc", "RunInstances", "CreateVolume"):
        aws.proxy.fail(action, "RequestLimitExceeded", count=3, status=503)
    unknown = aws.proxy.fail("CreateSubnet", "InvalidVpcID.NotFound", count=2)
    rules_late = aws.proxy.fail("AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound", count=2)
    Parts(spec()).deploy()
    assert (late.met, unknown.met, rules_late.met) == (2, 2, 2)
    assert things.count() == ONE_OF_EACH
    assert len(things.all(kinds.INSTANCE)) == 1
    assert tags.of(things.one(kinds.INSTANCE))[tags.NAME] == "Inst"
    assert no_pauses


def test_tagging_that_is_limited_is_tried_again(aws: Moto, things: Things) -> None:
    aws.proxy.fail("CreateTags", "RequestLimitExceeded", count=3, status=503)
    Parts(spec()).deploy()
    assert tags.HAS_DATA in tags.of(things.one(kinds.VOLUME))


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("UnauthorizedOperation", CredentialsError, r"does not allow ec2:CreateVpc .*docs/aws\.md"),
        ("ExpiredToken", CredentialsError, "credentials have expired"),
        ("RequestExpired", CredentialsError, "credentials have expired"),
        ("AuthFailure", CredentialsError, "does not accept these credentials"),
        ("VpcLimitExceeded", ResourceError, "VpcLimitExceeded.*Service Quotas"),
        ("Blocked", ResourceError, "CreateVpc in eu-west-1: It was made to fail. .Blocked"),
    ],
)
def test_what_aws_refuses_is_told_for_what_it_is(
    aws: Moto, code: str, error: type[GridupError], said: str
) -> None:
    aws.proxy.fail("CreateVpc", code, status=403)
    with pytest.raises(ProviderError, match=said) as caught:
        Parts(spec()).deploy()
    assert "\n" not in str(caught.value)


def test_the_action_that_is_missing_is_named_even_when_it_is_not_the_call(aws: Moto) -> None:
    message = "You are not authorized to perform: ec2:CreateTags on resource: x. Encoded authorization …"
    aws.proxy.fail("RunInstances", "UnauthorizedOperation", message=message, status=403)
    with pytest.raises(ProviderError, match="does not allow ec2:CreateTags to"):
        Parts(spec()).deploy()


def test_the_credentials_of_another_account_see_nothing_and_change_nothing(aws: Moto, things: Things) -> None:
    parts = Parts(spec()).deploy()
    for outs in parts.outs.values():
        outs["account"] = "999999999999"
    with pytest.raises(
        ProviderError, match="in the AWS account 999999999999, and the credentials are of 1234"
    ):
        parts.refresh()
    with pytest.raises(ProviderError, match="AWS_PROFILE"):
        parts.destroy()
    assert things.count() == ONE_OF_EACH


def test_a_kept_disk_is_taken_over_by_its_name_and_where_it_was_chosen_and_grown(
    aws: Moto, things: Things
) -> None:
    had = {"admin_email": "ada@inst.example", "node_type": "network"}
    first = Parts(spec(keep_data=True, **had)).deploy()
    disk = things.one(kinds.VOLUME)["VolumeId"]
    first.destroy()
    assert [title for title, _ in things.marked()] == ["volume"]
    found = target("aws").retained(spec())
    assert found is not None
    assert (found.id, found.size) == (disk, 64 * 1024**3)
    assert (found.admin_email, found.node_type) == ("ada@inst.example", "network")
    assert found.what == f"the disk {disk} in eu-west-1a"
    assert datetime.fromisoformat(found.since)
    # A name of the same slug is another's, and nobody gets what was not chosen.
    assert target("aws").retained(spec("INST")) is None
    for other in (spec("INST", adopted=disk), spec(), spec(adopted=NEW_DATA), spec(adopted="vol-0")):
        made = Parts(other).deploy()
        assert made.outs["volume"]["volume"] != disk
        made.destroy()
    # Until it was healthy, its end keeps them.
    Parts(spec(adopted=disk, adopting=True)).deploy().destroy()
    assert [row["VolumeId"] for _, row in things.marked()] == [disk]
    next_one = Parts(spec(disk_size=100, adopted=disk)).deploy()
    assert next_one.outs["volume"]["volume"] == disk
    assert things.one(kinds.VOLUME)["Size"] == 100
    assert set(tags.of(things.one(kinds.VOLUME))) >= {tags.STACK_ID, tags.HAS_DATA}
    next_one.destroy()
    assert things.marked() == []


def test_owners_delete_takes_all_that_no_state_knows_of_and_keeps_data_where_that_is_wanted(
    aws: Moto, things: Things
) -> None:
    before = things.snapshot()
    parts = Parts(spec(keep_data=True)).deploy()
    owner = Parts(parts.spec)
    owner.outs, owner.ids = {"owner": parts.outs["owner"]}, {"owner": parts.ids["owner"]}
    owner.destroy()
    assert [title for title, _ in things.marked()] == ["volume"]
    identity = StackRef("inst", parts.spec.stack_id, "Inst", "aws", {"region": REGION})
    assert target("aws").leftovers(identity) == ()
    things.ec2.delete_volume(VolumeId=parts.outs["volume"]["volume"])
    assert things.snapshot() == before


def test_a_targets_sweep_finds_and_removes_everything(aws: Moto, things: Things) -> None:
    before = things.snapshot()
    parts = Parts(spec(keep_data=True)).deploy()
    identity = StackRef("inst", parts.spec.stack_id, "Inst", "aws", {"region": REGION})
    left = target("aws").leftovers(identity)
    assert {line.rpartition(" in ")[0].rpartition(" ")[0] for line in left} >= set(ONE_OF_EACH)
    assert all(line.endswith(" in eu-west-1") for line in left)
    for _ in range(2):
        target("aws").delete_all(identity)
    assert things.snapshot() == before


def test_the_user_data_arrives_byte_for_byte(aws: Moto, things: Things) -> None:
    parts = Parts(spec("大学 🎓 “quoted” \\ name")).deploy()
    told = parts.inputs("instance")["host"]
    disk = naming.disk_paths(parts.outs["volume"]["volume"])
    sent = user_data(Host(**{**told, "disk": disk}))
    arrived = things.user_data(parts.outs["instance"]["instance"])
    assert hashlib.sha256(arrived).hexdigest() == hashlib.sha256(sent).hexdigest()
    call = next(call for call in aws.proxy.calls if call.action == "RunInstances")
    assert base64.b64decode(call.params["UserData"]) == sent


def test_the_longest_name_and_every_option_fit_into_the_user_data(aws: Moto, things: Things) -> None:
    """Case G27."""
    # The most bytes that as many characters can take. People's keys do not travel in it.
    most = replace(
        spec("𝕀" * NAME_MAX),
        ssh_keys=tuple(ssh_keys.rsa4096(f"a b: c #{number}") for number in range(10)),
        domain_name=f"{'n' * 63}.{'n' * 63}.example.org",
        admin_email=f"{'a' * 64}@inst.example",
        web_cidr=("0.0.0.0/0", "::/0"),
        disk_size=16384,
    )
    parts = Parts(most).deploy()
    sent = things.user_data(parts.outs["instance"]["instance"])
    assert len(sent) <= LIMIT
    text = sent.decode()
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text)["users"][0]["ssh_authorized_keys"] == [parts.inputs("key-pair")["public_key"]]
    (motd,) = [file for file in yaml.safe_load(text)["write_files"] if file["path"] == "/etc/motd"]
    raw = base64.b64decode(motd["content"]) if motd.get("encoding") else motd["content"].encode()
    assert most.name in (gzip.decompress(raw) if motd.get("encoding") else raw).decode()


def test_an_image_is_looked_up_in_each_region_and_the_newest_of_debians_own_is_taken(aws: Moto) -> None:
    for region in (REGION, "us-west-2"):
        parts = Parts(spec(region=region)).deploy()
        assert parts.outs["placement"]["image"]["id"] == NEWEST["x86_64"]
        parts.destroy()
    arm = Parts(spec(size="t4g.large")).deploy()
    assert arm.outs["placement"]["image"]["id"] == NEWEST["arm64"]
    lookups = [call.region for call in aws.proxy.calls if call.action == "DescribeImages"]
    assert lookups == [REGION, "us-west-2", REGION]


def test_a_client_token_is_never_one_of_a_machine_that_has_ended(aws: Moto, things: Things) -> None:
    parts = Parts(spec()).deploy()
    things.ec2.terminate_instances(InstanceIds=[parts.outs["instance"]["instance"]])
    parts.refresh()
    # EC2 forgets what ended an hour ago, and remembers its token for a day.
    taken = aws.proxy.fail("RunInstances", "IdempotentParameterMismatch", count=1)
    parts.deploy()
    tokens = [call.params["ClientToken"] for call in aws.proxy.calls if call.action == "RunInstances"]
    assert taken.met == 1
    assert len(tokens) == len(set(tokens)) == 3


def test_an_instance_that_ends_by_itself_says_why(aws: Moto, things: Things) -> None:
    parts = Parts(spec()).deploy()
    machine = parts.outs["instance"]["instance"]
    things.ec2.terminate_instances(InstanceIds=[machine])
    with (
        client.connected(REGION) as cloud,
        pytest.raises(ResourceError, match=f"{machine} ended by itself: "),
    ):
        instances.running(cloud, machine)


def check(wanted: Any) -> None:
    preflight.check(wanted, None)


def test_the_preflight_is_quiet_and_makes_nothing(aws: Moto, things: Things) -> None:
    before = things.snapshot()
    check(spec())
    assert things.snapshot() == before
    assert all(call.action.startswith(("Describe", "Get")) for call in aws.proxy.calls)


@pytest.mark.parametrize(
    ("how", "said", "hint"),
    [
        ({"region": "eu-west-9"}, "'eu-west-9' is not a region of AWS", "eu-west-"),
        ({"size": "t3.lagre"}, r"eu-west-1 has no size 't3.lagre'", r"t3\.large"),
        ({"subnet_id": "subnet-0123456789abcdef0"}, "There is no subnet subnet-0123", "--subnet-id"),
    ],
)
def test_what_is_in_the_way_is_said_before_anything_is_made(
    aws: Moto, how: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(PreflightError, match=said) as caught:
        check(spec(**how))
    assert re.search(hint, caught.value.suggestion)


def test_no_credentials_expired_ones_and_unknown_ones_are_three_things(
    aws: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = set()
    for code in ("ExpiredToken", "InvalidClientTokenId", "AccessDenied"):
        aws.proxy.clear()
        client.clear_caches()
        aws.proxy.fail("GetCallerIdentity", code, status=403)
        with pytest.raises(CredentialsError) as caught:
            check(spec())
        said.add(caught.value.message)
        assert caught.value.suggestion
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    client.clear_caches()
    with pytest.raises(CredentialsError, match="There are no AWS credentials here") as caught:
        check(spec())
    assert "aws configure" in caught.value.suggestion
    assert len(said) == 3


def test_a_quota_that_is_used_up_is_said_and_one_that_is_not_told_is_no_obstacle(aws: Moto) -> None:
    ec2 = aws.client()
    for _ in range(5):
        ec2.allocate_address(Domain="vpc")
    with pytest.raises(PreflightError, match="5 of 5 elastic IPs in eu-west-1"):
        check(spec())
    check(spec(private=True))
    aws.proxy.fail("DescribeAccountAttributes", "UnauthorizedOperation", status=403)
    check(spec())


def test_a_size_that_the_nodes_zone_does_not_have_is_refused(aws: Moto) -> None:
    with client.connected(REGION) as cloud, pytest.raises(PreflightError, match=r"does not offer t3\.large"):
        preflight._size(cloud, spec(), "eu-west-1z")


def test_what_was_made_before_a_deploy_was_broken_off_is_known(aws: Moto) -> None:
    parts = Parts(spec(no_node=False)).deploy()
    stack = parts.spec.stack
    states: dict[str, Any] = {
        naming.urn(stack, kind, name): {**parts.outs[name], "id": parts.ids[name]} for kind, name, _ in ORDER
    }
    who = StackRef(stack, parts.spec.stack_id, "Inst", "aws", {"region": REGION})
    aws_target = target("aws")
    found = aws_target.partial_outputs(who, parts.spec, states)
    assert found is not None
    assert aws_target.inspect(found).power is NodeStatus.RUNNING
    assert aws_target.place(found) == {
        "public_ip": parts.outs["address"]["address"],
        "region": REGION,
        "instance": parts.outs["instance"]["instance"],
        "size": parts.spec.size,
        "volume": parts.outs["volume"]["volume"],
    }
    assert (found.facts["ip"], found.facts.get("host_key")) == (parts.outs["address"]["address"], None)
    assert set(found.not_offered.values()) == {NOT_COMPLETED}
    aws_target.stop(found)
    assert aws_target.inspect(found).power is NodeStatus.STOPPED
    # The key that it was met with is pinned; another machine's is not.
    met = any_urn(stack, "pulumi-python:dynamic/gridup-vm:ContainerHost", "container-host")
    for machine, key in ((found.facts["machine"], "ssh-ed25519 AAAA"), ("i-0", "")):
        more = {**states, met: {"machine": machine, "host_key": "ssh-ed25519 AAAA"}}
        again = aws_target.partial_outputs(who, parts.spec, more)
        assert again is not None and again.facts.get("host_key", "") == key
    assert aws_target.partial_outputs(who, parts.spec, {}) is None
    parts.destroy()


def test_the_region_is_asked_for_or_configured(tmp_path: Any) -> None:
    file = tmp_path / "config"
    file.write_text("[default]\nregion = eu-north-1\n[profile lab]\nregion = sa-east-1\n")
    settings = {"AWS_CONFIG_FILE": str(file)}
    assert configured_region(settings) == "eu-north-1"
    assert configured_region({**settings, "AWS_PROFILE": "lab"}) == "sa-east-1"
    assert configured_region({**settings, "AWS_DEFAULT_REGION": "us-east-2"}) == "us-east-2"
    assert configured_region({"AWS_DEFAULT_REGION": "us-east-2", "AWS_REGION": "us-west-2"}) == "us-west-2"
    secrets = tmp_path / "credentials"
    secrets.write_text("[lab]\naws_access_key_id = AKIA\nregion = eu-south-1\n")
    settings |= {"AWS_SHARED_CREDENTIALS_FILE": str(secrets)}
    assert configured_region({**settings, "AWS_PROFILE": "lab"}) == "eu-south-1"
    assert configured_region(settings) == "eu-north-1"
    assert configured_region({"AWS_CONFIG_FILE": str(tmp_path / "none")}) == ""


def test_what_the_target_refuses_of_a_spec(aws: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    aws_target, before = target("aws"), spec()
    assert aws_target.resolve(before, before) == before
    for changed, said in (
        ({"region": "us-east-1"}, "can't be moved to us-east-1"),
        ({"disk_size": 10}, "a disk can't shrink"),
        ({"disk_size": 99999}, "at most 16384 GB"),
        ({"subnet_id": "my-subnet"}, "--subnet-id"),
    ):
        with pytest.raises(UsageError, match=said):
            aws_target.resolve(replace(before, **changed), before)
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(UsageError, match="Which region") as caught:
        aws_target.resolve(replace(before, region=""), None)
    assert "--region" in caught.value.suggestion


def test_the_firewall_comes_from_the_table_of_services() -> None:
    assert rules(["203.0.113.7/32", "2001:db8::/32"], []) == [
        "tcp 22 2001:db8::/32",
        "tcp 22 203.0.113.7/32",
        "tcp 443 0.0.0.0/0",
        "tcp 443 ::/0",
        "tcp 80 0.0.0.0/0",
        "tcp 80 ::/0",
        "tcp 8888 2001:db8::/32",
        "tcp 8888 203.0.113.7/32",
    ]
    assert rules([], ["198.51.100.0/24"]) == ["tcp 443 198.51.100.0/24", "tcp 80 198.51.100.0/24"]
    for text in ("tcp 22 203.0.113.7/32", "udp 1-2 sg-1", "-1 - ::/0", "icmpv6 -1 pl-1"):
        assert str(Rule.parse(text)) == text
        assert Rule.parse(text).permission()["IpProtocol"] == text.split()[0]


def test_a_tags_value_is_what_aws_takes() -> None:
    assert tags.value("aws:x") == "_aws:x"
    assert tags.value("Inst") == "Inst"
    assert len(tags.value("🎓" * 200).encode("utf-16-le")) // 2 == 256
    assert tags.escape_filter("a*b?c\\d") == "a\\*b\\?c\\\\d"


def test_the_doctor_tells_of_the_credentials_and_needs_no_boto3(
    aws: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = target("aws").doctor()
    assert (found.ok, found.detail.split(",")[0]) == (True, "account 123456789012")
    aws.proxy.fail("GetCallerIdentity", "ExpiredToken", status=403)
    (found,) = target("aws").doctor()
    assert found.ok is None
    assert "expired" in found.detail
    monkeypatch.setattr(client, "is_there", lambda: False)
    (found,) = target("aws").doctor()
    assert found.ok is None
    assert "not installed" in found.detail
