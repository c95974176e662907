"""A node's instance: launch in the first zone with capacity, resize, stop, start, terminate.

A zone may have no capacity for a size (InsufficientInstanceCapacity, Unsupported). Only the launch itself
shows that. A subnet and a data disk are bound to a zone. So each zone is tried once. In each further zone the
stack gets one more subnet (subnets cost nothing), and a new blank disk replaces a blank disk elsewhere. A
disk that may hold data is never replaced: then its zone is the only one that is tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gridup_infra.errors import ResourceError
from gridup_infra.naming import typed
from gridup_infra.processes import wait_until
from gridup_infra.targets.aws import kinds, naming, networks, tags, volumes
from gridup_infra.targets.aws.client import (
    CAPACITY_ERRORS,
    LIMITS,
    POLL_SECONDS,
    Cloud,
    code_of,
    is_missing,
)
from gridup_infra.targets.aws.kinds import Thing

START_SECONDS = 600.0
STOP_SECONDS = 600.0
"""EC2 gives an instance some minutes, then forces the shutdown (EC2 User Guide, "Stop instances")."""

END_SECONDS = 900.0
VISIBLE_SECONDS = 120.0

TOKENS = 5
"""How many client tokens are tried: a token stays taken for a day after its instance has ended."""

UserData = Callable[[str], bytes]
"""Builds user-data for the id of a data disk."""


def launch(cloud: Cloud, props: Mapping[str, Any], user_data: UserData, say: Callable[[str], None]) -> Thing:
    """Return the stack's live instance; launch one if there is none.

    Returns:
        The instance as EC2 lists it, and `disk`: the id of the data disk in its user-data.

    Raises:
        ResourceError: no zone has capacity for the size, or the launch fails for another reason.
    """
    disk_props = {**props, "urn": props["volume_urn"]}
    with ThreadPoolExecutor(max_workers=3) as pool:
        machines = pool.submit(kinds.list_all, cloud, kinds.INSTANCE, tags.by_urn(props), dead=True)
        disks_there = pool.submit(volumes.list_owned, cloud, disk_props)
        subnets_there = pool.submit(networks.subnets, cloud, {**props, "urn": props["subnet_urn"]})
        every, disks = machines.result(), disks_there.result()
        subnets = {row["AvailabilityZone"]: str(row["SubnetId"]) for row in subnets_there.result()}
    live = [row for row in every if kinds.state_of(row) not in kinds.INSTANCE.dead]
    if live:
        return {**wait_described(cloud, live[0]["InstanceId"]), "disk": _disk_of(cloud, disks, live[0])}
    home = disks[0]["AvailabilityZone"] if disks else ""
    zones = [home] if disks and volumes.holds_data(disks[0]) else _with_first(props["zones"], home)
    dead = sorted(row["InstanceId"] for row in every)
    refused: dict[str, str] = {}
    for zone in zones:
        disk = next((row for row in disks if row["AvailabilityZone"] == zone), None)
        disk = disk or volumes.make(cloud, disk_props, zone)
        subnet = props["subnet_id"] or subnets.get(zone) or _another_subnet(cloud, props, zone)
        say(f"launching {props['size']} in {zone}")
        try:
            made = _run(cloud, props, subnet, user_data(disk["VolumeId"]), dead)
        except Exception as error:
            if code_of(error) not in CAPACITY_ERRORS:
                raise _map_launch_error(error, props) from error
            refused[zone] = code_of(error)
            say(f"{zone} has no room for {props['size']}")
            if zone != home:
                volumes.delete(cloud, disk["VolumeId"])
            continue
        for other in disks:
            if other["VolumeId"] != disk["VolumeId"] and not volumes.holds_data(other):
                volumes.delete(cloud, other["VolumeId"])
        return {**wait_described(cloud, made["InstanceId"]), "disk": disk["VolumeId"]}
    raise no_room(props, refused, data=len(zones) == 1 and bool(disks) and volumes.holds_data(disks[0]))


def no_room(props: Mapping[str, Any], refused: Mapping[str, str], *, data: bool = False) -> ResourceError:
    """Return the error for a size that none of the tried zones has capacity for."""
    tried = ", ".join(f"{zone}: {code}" for zone, code in refused.items())
    where = "; the data disk is there" if data else ""
    return ResourceError(
        f"AWS has no room for {props['size']} in {props['region']} now ({tried}{where}).",
        "Choose another --size" + ("." if data else ", or another --region.") + " Or try again later.",
    )


def _map_launch_error(error: Exception, props: Mapping[str, Any]) -> Exception:
    if code_of(error) in LIMITS:
        return ResourceError(
            f"The AWS account's quota has no room for {props['size']} in {props['region']} "
            f"({code_of(error)}).",
            "Choose a smaller --size or another --region, or ask AWS for a higher quota (Service Quotas).",
        )
    if code_of(error).startswith("InvalidAMIID"):
        return ResourceError(
            f"The image {props['image']['id']} of this node's VM is not there any more.",
            f"`{typed('deploy', props['name'], '--new-machine')}` takes Debian's newest one.",
        )
    return error


def _with_first(zones: list[str], first: str) -> list[str]:
    return [zone for zone in dict.fromkeys([first, *zones]) if zone]


def _disk_of(cloud: Cloud, disks: list[Thing], machine: Thing) -> str:
    """Return the id of the data disk of an instance whose launch was interrupted: the disk in its zone.

    Deletes blank disks in other zones.
    """
    zone = machine["Placement"]["AvailabilityZone"]
    here = [row for row in disks if row["AvailabilityZone"] == zone]
    for row in disks:
        if here and row["AvailabilityZone"] != zone and not volumes.holds_data(row):
            volumes.delete(cloud, row["VolumeId"])
    return str((here or disks or [{"VolumeId": ""}])[0]["VolumeId"])


def _another_subnet(cloud: Cloud, props: Mapping[str, Any], zone: str) -> str:
    """Create a subnet of the stack in one more zone, with the route to the internet. Returns its id."""
    made = networks.subnet(cloud, {**props, "urn": props["subnet_urn"]}, zone)
    networks.associate(cloud, props["routes"], made["SubnetId"])
    return str(made["SubnetId"])


def _run(cloud: Cloud, props: Mapping[str, Any], subnet: str, user_data: bytes, dead: list[str]) -> Thing:
    """Launch an instance with its own client token, so that a lost answer can't create a second instance."""
    for number in range(TOKENS):
        seed = "\n".join([props["stack_id"], props["urn"], subnet, props["size"], *dead, str(number)])
        token = hashlib.sha256(seed.encode()).hexdigest()[:48]
        try:
            return cloud.create_once(
                lambda: kinds.find(cloud, kinds.INSTANCE, props),
                lambda ec2, token=token: ec2.run_instances(  # type: ignore[misc]
                    **request(props, subnet, user_data), ClientToken=token
                )["Instances"][0],
            )
        except Exception as error:
            # The token belongs to another launch, or to an instance that EC2 does not list any more.
            if code_of(error) not in ("IdempotentInstanceTerminated", "IdempotentParameterMismatch"):
                raise
            last = error
    raise last


def request(props: Mapping[str, Any], subnet: str, user_data: bytes) -> dict[str, Any]:
    """Return the arguments of the launch call.

    Metadata is served by IMDSv2 only, out of reach of containers. The root disk is encrypted and is deleted
    with the instance.
    """
    return {
        "ImageId": props["image"]["id"],
        "InstanceType": props["size"],
        "KeyName": props["key"],
        "MinCount": 1,
        "MaxCount": 1,
        # boto3 encodes it in base64.
        "UserData": user_data,
        "InstanceInitiatedShutdownBehavior": "stop",
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": props["image"]["root"],
                "Ebs": {
                    "VolumeSize": naming.ROOT_GB,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": subnet,
                "Groups": [props["group"]],
                # If a public address is wanted, it is the stack's own elastic IP.
                "AssociatePublicIpAddress": False,
                "DeleteOnTermination": True,
            }
        ],
        "TagSpecifications": tags.tag_spec(props, "instance", "volume", "network-interface"),
        **({"CreditSpecification": {"CpuCredits": props["cpu_credits"]}} if props.get("cpu_credits") else {}),
    }


def wait_described(cloud: Cloud, instance: str) -> Thing:
    """Wait until EC2 lists a new instance with its private address; return the instance."""
    found: list[Thing] = []

    def there() -> bool:
        found[:] = [row for row in [kinds.get(cloud, kinds.INSTANCE, instance)] if row]
        return bool(found and found[0].get("PrivateIpAddress"))

    if not wait_until(there, timeout=VISIBLE_SECONDS, every=POLL_SECONDS):
        raise ResourceError(
            f"AWS did not show the instance {instance} within {VISIBLE_SECONDS:g} s of its launch.",
            "Deploy again: it is found by its tags.",
        )
    return found[0]


def credits_of(cloud: Cloud, found: Thing) -> str:
    """Return the CPU credit mode of an instance; empty if its size has no credits."""
    if not naming.has_credits(found["InstanceType"]):
        return ""
    rows = cloud.ec2.describe_instance_credit_specifications(InstanceIds=[found["InstanceId"]])
    return str((rows.get("InstanceCreditSpecifications") or [{}])[0].get("CpuCredits", ""))


def _set_credits(cloud: Cloud, found: Thing, props: Mapping[str, Any]) -> None:
    """Set the CPU credit mode of an instance. AWS allows this while the instance runs.

    Args:
        found: the instance as it was before it got the wanted size.
    """
    wanted, sized = props.get("cpu_credits"), {**found, "InstanceType": props["size"]}
    if wanted and credits_of(cloud, sized) != wanted:
        cloud.ec2.modify_instance_credit_specification(
            InstanceCreditSpecifications=[{"InstanceId": found["InstanceId"], "CpuCredits": wanted}]
        )


def drift(found: Thing, props: Mapping[str, Any], mode: str = "") -> list[str]:
    """Return the drift of an instance, one line each.

    Args:
        mode: its CPU credit mode, see `credits_of`; empty if it is not known.
    """
    problems = []
    state = kinds.state_of(found)
    if state in ("stopped", "stopping"):
        problems.append("the instance is stopped")
    if found["InstanceType"] != props["size"]:
        problems.append(f"the instance is a {found['InstanceType']}, not a {props['size']}")
    if found.get("MetadataOptions", {}).get("HttpTokens") != "required":
        problems.append("the instance's metadata can be read without a token")
    wanted = props.get("cpu_credits")
    if mode and wanted and mode != wanted:
        problems.append(f"the instance's CPU credits are {mode}, not {wanted}")
    if _groups(found) != {props["group"]}:
        problems.append("the instance has other security groups")
    return problems


def _groups(found: Thing) -> set[str]:
    """Return the ids of the instance's security groups: they belong to its first network interface."""
    interfaces = found.get("NetworkInterfaces") or [{}]
    groups = found.get("SecurityGroups") or interfaces[0].get("Groups") or ()
    return {row["GroupId"] for row in groups}


def converge(cloud: Cloud, instance: str, props: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Apply the wanted size, security groups, metadata options and CPU credits, and start the instance.

    A new size stops the instance first.
    """
    found = kinds.get(cloud, kinds.INSTANCE, instance)
    if found is None:
        raise _gone(instance, props["name"])
    if _groups(found) != {props["group"]}:
        cloud.ec2.modify_instance_attribute(InstanceId=instance, Groups=[props["group"]])
    if found.get("MetadataOptions", {}).get("HttpTokens") != "required":
        cloud.ec2.modify_instance_metadata_options(
            InstanceId=instance, HttpTokens="required", HttpPutResponseHopLimit=1, HttpEndpoint="enabled"
        )
    if found["InstanceType"] == props["size"]:
        _set_credits(cloud, found, props)
        start(cloud, instance, props["name"])
        return
    say("stopping it for the new size")
    stop(cloud, instance, props["name"])
    _resize(cloud, instance, props["size"])
    _set_credits(cloud, found, props)
    say(f"starting it as {props['size']}")
    try:
        start(cloud, instance, props["name"])
    except Exception as error:
        if code_of(error) not in CAPACITY_ERRORS | LIMITS:
            raise
        # The former size is better than no node.
        _resize(cloud, instance, found["InstanceType"])
        start(cloud, instance, props["name"])
        if code_of(error) in LIMITS:
            raise _map_launch_error(error, props) from error
        raise no_room(props, {found["Placement"]["AvailabilityZone"]: code_of(error)}, data=True) from error


def _resize(cloud: Cloud, instance: str, size: str) -> None:
    cloud.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": size})


def start(cloud: Cloud, instance: str, name: str) -> None:
    """Start an instance and wait until it runs. Does nothing if it runs already.

    Args:
        name: the node's name.

    Raises:
        ResourceError: the instance is gone, or does not run in time.
    """
    state = _state(cloud, instance, name)
    if state == "stopping":
        _wait(cloud, instance, ("stopped",), STOP_SECONDS)
        state = "stopped"
    if state == "stopped":
        cloud.ec2.start_instances(InstanceIds=[instance])
    running(cloud, instance)


def running(cloud: Cloud, instance: str) -> Thing:
    """Wait until an instance runs; return the instance.

    Raises:
        ResourceError: the instance ends instead (the message has AWS's reason), or does not run in time.
    """
    return _wait(cloud, instance, ("running",), START_SECONDS)


def stop(cloud: Cloud, instance: str, name: str) -> None:
    """Shut down an instance and wait until it is stopped. Does nothing if it is stopped already.

    Args:
        name: the node's name.

    Raises:
        ResourceError: the instance is gone, or does not stop in time.
    """
    state = _state(cloud, instance, name)
    if state == "pending":
        running(cloud, instance)
    if state != "stopped":
        if state != "stopping":
            cloud.ec2.stop_instances(InstanceIds=[instance])
        _wait(cloud, instance, ("stopped",), STOP_SECONDS)


def terminate(cloud: Cloud, instance: str) -> None:
    """Terminate an instance and wait until it is gone: only then its network is free.

    Does nothing if it is gone already.

    Raises:
        ResourceError: the instance is protected from termination, or does not end in time.
    """
    try:
        cloud.ec2.terminate_instances(InstanceIds=[instance])
    except Exception as error:
        if is_missing(error):
            return
        if code_of(error) == "OperationNotPermitted":
            raise ResourceError(
                f"The instance {instance} is protected from termination.",
                "Take the protection away in the AWS console, and run the same command again.",
            ) from error
        raise
    _wait(cloud, instance, ("terminated", ""), END_SECONDS)


def _state(cloud: Cloud, instance: str, name: str) -> str:
    found = kinds.list_all(
        cloud, kinds.INSTANCE, [{"Name": kinds.INSTANCE.filter, "Values": [instance]}], dead=True
    )
    state = kinds.state_of(found[0]) if found else ""
    if state in ("", *kinds.INSTANCE.dead):
        raise _gone(instance, name)
    return state


def _gone(instance: str, name: str) -> ResourceError:
    return ResourceError(f"The instance {instance} is gone.", f"`{typed('deploy', name)}` makes another one.")


def _wait(cloud: Cloud, instance: str, states: tuple[str, ...], seconds: float) -> Thing:
    seen: list[Thing] = []

    def reached() -> bool:
        filters = [{"Name": kinds.INSTANCE.filter, "Values": [instance]}]
        seen[:] = kinds.list_all(cloud, kinds.INSTANCE, filters, dead=True)
        now = kinds.state_of(seen[0]) if seen else ""
        if now in states:
            return True
        if now in kinds.INSTANCE.dead and "terminated" not in states:
            reason = seen[0].get("StateReason", {}).get("Message") or "AWS gives no reason"
            raise ResourceError(f"The instance {instance} ended by itself: {reason}.")
        return False

    if not wait_until(reached, timeout=seconds, every=POLL_SECONDS):
        state = kinds.state_of(seen[0]) if seen else "not to be seen"
        raise ResourceError(
            f"The instance {instance} was not {states[0]} within {seconds:g} s; it is {state}.",
            "Run the same command again to go on waiting.",
        )
    return seen[0] if seen else {}
