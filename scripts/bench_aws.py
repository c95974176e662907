"""The benchmark of a host on AWS: on moto's server behind the tests' proxy, with 200 ms of delay per call."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from bench_kit import ROOT, Bench, bare_up, ratio
from support.moto_rig import REGION, Moto

DELAY = 0.2
NAME = "Bench"
WORDS = ("--cloud", "aws", "--no-node", "--no-wait", "--allow-cidr", "203.0.113.7/32", "--yes")

SCRIPT = """
import json, re, sys
import boto3
told = json.load(sys.stdin)
region, size, image = told["region"], told["size"], told["image"]
ec2 = boto3.client("ec2", region_name=region)
others = {"GetCallerIdentity": "sts", "GetServiceQuota": "service-quotas"}
words = {
    "GetCallerIdentity": {},
    "GetServiceQuota": {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"},
    "DescribeAccountAttributes": {"AttributeNames": ["vpc-max-elastic-ips"]},
    "DescribeInstanceTypes": {"InstanceTypes": [size]},
    "DescribeInstanceTypeOfferings": {
        "LocationType": "availability-zone", "Filters": [{"Name": "instance-type", "Values": [size]}]
    },
    "DescribeAvailabilityZones": {},
    "DescribeImages": {"Owners": [told["owner"]]},
}
filters = {"Filters": [{"Name": "tag:bench", "Values": ["yes"]}]}
def tagged(kind):
    return [{"ResourceType": kind, "Tags": [{"Key": "bench", "Value": "yes"}]}]
for action, count in told["looks"].items():
    client = boto3.client(others[action], region_name=region) if action in others else ec2
    call = getattr(client, re.sub("(?<!^)(?=[A-Z])", "_", action).lower())
    for _ in range(count):
        try:
            call(**words.get(action, filters))
        except client.exceptions.ClientError:
            pass  # moto does not tell of this quota, which it does not tell the deploy either.
vpc = ec2.create_vpc(CidrBlock="10.54.0.0/16", TagSpecifications=tagged("vpc"))["Vpc"]["VpcId"]
subnet = ec2.create_subnet(
    VpcId=vpc, CidrBlock="10.54.0.0/24", AvailabilityZone=region + "a", TagSpecifications=tagged("subnet")
)["Subnet"]["SubnetId"]
gateway = ec2.create_internet_gateway(TagSpecifications=tagged("internet-gateway"))
gateway = gateway["InternetGateway"]["InternetGatewayId"]
ec2.attach_internet_gateway(VpcId=vpc, InternetGatewayId=gateway)
table = ec2.create_route_table(VpcId=vpc, TagSpecifications=tagged("route-table"))
table = table["RouteTable"]["RouteTableId"]
ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
group = ec2.create_security_group(
    GroupName="bench", Description="bench", VpcId=vpc, TagSpecifications=tagged("security-group")
)["GroupId"]
ec2.authorize_security_group_ingress(
    GroupId=group,
    IpPermissions=[
        {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}
        for port in (22, 80, 443, 8888)
    ],
)
ec2.import_key_pair(
    KeyName="bench", PublicKeyMaterial=told["key"].encode(), TagSpecifications=tagged("key-pair")
)
address = ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))["AllocationId"]
disk = ec2.create_volume(
    AvailabilityZone=region + "a", Size=64, VolumeType="gp3", Encrypted=True,
    TagSpecifications=tagged("volume"),
)["VolumeId"]
machine = ec2.run_instances(
    ImageId=image, InstanceType=size, KeyName="bench", MinCount=1, MaxCount=1, UserData="#cloud-config",
    NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group]}],
    TagSpecifications=tagged("instance"),
)["Instances"][0]["InstanceId"]
ec2.create_tags(Resources=[disk], Tags=[{"Key": "used", "Value": "yes"}])
ec2.attach_volume(VolumeId=disk, InstanceId=machine, Device="/dev/sdf")
ec2.associate_address(AllocationId=address, InstanceId=machine)
"""
"""A script as a user would write it: the calls of a deploy, one after the other."""


def bench_aws(bench: Bench) -> dict[str, Any]:
    """Measure a host on AWS."""
    folder = bench.folder / "moto"
    folder.mkdir()
    with Moto(folder) as moto:
        return {"deploy_seconds": bench_deploy(bench, moto)}


def bench_deploy(bench: Bench, moto: Moto) -> dict[str, Any]:
    """Compare a deploy, without the engine's start, with a plain script of the same calls."""
    calls: dict[str, Counter[str]] = {}

    def ours() -> float:
        moto.reset()
        moto.proxy.delay = DELAY
        took = bench.run("deploy", "--name", NAME, *WORDS, **moto.environment)
        calls["deploy"] = moto.proxy.actions()
        moto.proxy.delay = 0
        bench.run("destroy", NAME, "--yes", **moto.environment)
        return took

    def script() -> float:
        moto.reset()
        moto.proxy.delay = DELAY
        took = straight(bench, moto, calls["deploy"])
        calls["script"] = moto.proxy.actions()
        moto.proxy.delay = 0
        return took

    found = bench.in_turns(deploy=ours, bare_up=lambda: bare_up(bench, new=True), script=script)
    found["deploy_without_engine"] = round(found["deploy"] - found["bare_up"], 3)
    return {
        **ratio(found, "deploy_without_engine", found["script"], 0.8),
        "calls": calls["deploy"].total(),
        "same_calls": calls["deploy"] == calls["script"],
    }


def straight(bench: Bench, moto: Moto, calls: Counter[str]) -> float:
    """Return the seconds that the plain script takes."""
    from gridup_infra.targets.aws.naming import DEFAULT_SIZE
    from gridup_infra.targets.aws.placement import DEBIAN_OWNER
    from gridup_infra.targets.aws.preflight import SAMPLE_KEY
    from support.moto_rig import NEWEST

    told = {
        "region": REGION,
        "size": DEFAULT_SIZE,
        "image": NEWEST["x86_64"],
        "owner": DEBIAN_OWNER,
        "key": SAMPLE_KEY,
        "looks": {action: count for action, count in calls.items() if action.startswith(("Describe", "Get"))},
    }
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(told).encode(),
        env={**bench.env, **moto.environment},
        check=True,
        timeout=180,
        cwd=ROOT,
    )
    return time.perf_counter() - began
