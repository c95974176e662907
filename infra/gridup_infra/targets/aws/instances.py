"""A node's machine: launched in the first zone that has room, resized, stopped, started, ended.

A zone may have no room for a size (InsufficientInstanceCapacity, Unsupported), and only the launch itself
tells. Subnet and data disk are bound to a zone. So each zone is tried once: for the second and later ones the
stack gets one more subnet (they cost nothing), and a blank disk moves along; a disk that may hold data does
not, and then its zone is the only one.
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
"""A machine is given some minutes to shut down before EC2 forces it (EC2 User Guide, "Stop instances")."""

END_SECONDS = 900.0
VISIBLE_SECONDS = 120.0

TOKENS = 5
"""Client tokens that are tried: one stays taken for a day after its machine has ended."""

UserData = Callable[[str], bytes]
"""What a machine is told, by the id of its data disk."""


def launch(cloud: Cloud, props: Mapping[str, Any], user_data: UserData, say: Callable[[str], None]) -> Thing:
    """The stack's machine: the live one that it has, else a new one.

    Returns:
        It, as EC2 lists it, with `disk`, the id of the data disk that it was told.

    Raises:
        ResourceError: no zone has room for its size, or something else is in the way.
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
    """The error when each zone has been tried."""
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
    """The data disk of a machine whose launch was interrupted: the one in its zone."""
    zone = machine["Placement"]["AvailabilityZone"]
    here = [row for row in disks if row["AvailabilityZone"] == zone]
    for row in disks:
        if here and row["AvailabilityZone"] != zone and not volumes.holds_data(row):
            volumes.delete(cloud, row["VolumeId"])
    return str((here or disks or [{"VolumeId": ""}])[0]["VolumeId"])


def _another_subnet(cloud: Cloud, props: Mapping[str, Any], zone: str) -> str:
    """A subnet of the stack's in one more zone, with the way out."""
    made = networks.subnet(cloud, {**props, "urn": props["subnet_urn"]}, zone)
    networks.associate(cloud, props["routes"], made["SubnetId"])
    return str(made["SubnetId"])


def _run(cloud: Cloud, props: Mapping[str, Any], subnet: str, user_data: bytes, dead: list[str]) -> Thing:
    """Launch, with a client token of this machine's own, so that a lost answer makes no second one."""
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
            # Another's, or of a machine that has ended so long ago that EC2 does not list it any more.
            if code_of(error) not in ("IdempotentInstanceTerminated", "IdempotentParameterMismatch"):
                raise
            last = error
    raise last


def request(props: Mapping[str, Any], subnet: str, user_data: bytes) -> dict[str, Any]:
    """The launch: IMDSv2 alone, which no container reaches; an encrypted root disk that goes with it."""
    return {
        "ImageId": props["image"]["id"],
        "InstanceType": props["size"],
        "KeyName": props["key"],
        "MinCount": 1,
        "MaxCount": 1,
        # boto3 does the base64.
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
                # The public one is an address of the stack's own, where one is wanted.
                "AssociatePublicIpAddress": False,
                "DeleteOnTermination": True,
            }
        ],
        "TagSpecifications": tags.tag_spec(props, "instance", "volume", "network-interface"),
        **({"CreditSpecification": {"CpuCredits": props["cpu_credits"]}} if props.get("cpu_credits") else {}),
    }


def wait_described(cloud: Cloud, instance: str) -> Thing:
    """A machine that was just launched, as soon as EC2 lists it with its private address."""
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
    """A machine's mode of CPU credits; empty when its size has none."""
    if not naming.has_credits(found["InstanceType"]):
        return ""
    rows = cloud.ec2.describe_instance_credit_specifications(InstanceIds=[found["InstanceId"]])
    return str((rows.get("InstanceCreditSpecifications") or [{}])[0].get("CpuCredits", ""))


def _set_credits(cloud: Cloud, found: Thing, props: Mapping[str, Any]) -> None:
    """Bring a machine's mode of CPU credits to what is asked: AWS changes it while the machine runs.

    Args:
        found: the machine, as it was before it got the size that is asked for.
    """
    wanted, sized = props.get("cpu_credits"), {**found, "InstanceType": props["size"]}
    if wanted and credits_of(cloud, sized) != wanted:
        cloud.ec2.modify_instance_credit_specification(
            InstanceCreditSpecifications=[{"InstanceId": found["InstanceId"], "CpuCredits": wanted}]
        )


def drift(found: Thing, props: Mapping[str, Any], mode: str = "") -> list[str]:
    """The drift of a machine, a line each.

    Args:
        mode: its CPU credits, see `credits_of`; empty where they are not known.
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
    """Of its first interface, to which those of the instance belong."""
    interfaces = found.get("NetworkInterfaces") or [{}]
    groups = found.get("SecurityGroups") or interfaces[0].get("Groups") or ()
    return {row["GroupId"] for row in groups}


def converge(cloud: Cloud, instance: str, props: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Bring a machine to what is asked: its size (stopped for that), groups, metadata; and have it run."""
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
        # Better the former size than no node.
        _resize(cloud, instance, found["InstanceType"])
        start(cloud, instance, props["name"])
        if code_of(error) in LIMITS:
            raise _map_launch_error(error, props) from error
        raise no_room(props, {found["Placement"]["AvailabilityZone"]: code_of(error)}, data=True) from error


def _resize(cloud: Cloud, instance: str, size: str) -> None:
    cloud.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": size})


def start(cloud: Cloud, instance: str, name: str) -> None:
    """Start a machine and wait until it runs; nothing when it does.

    Args:
        name: of its node.

    Raises:
        ResourceError: it is gone, or did not run in time.
    """
    state = _state(cloud, instance, name)
    if state == "stopping":
        _wait(cloud, instance, ("stopped",), STOP_SECONDS)
        state = "stopped"
    if state == "stopped":
        cloud.ec2.start_instances(InstanceIds=[instance])
    running(cloud, instance)


def running(cloud: Cloud, instance: str) -> Thing:
    """A machine, as soon as it runs.

    Raises:
        ResourceError: it ended instead, with AWS's reason; or it took too long.
    """
    return _wait(cloud, instance, ("running",), START_SECONDS)


def stop(cloud: Cloud, instance: str, name: str) -> None:
    """Stop a machine in order, and wait until it is; nothing when it is stopped.

    Args:
        name: of its node.

    Raises:
        ResourceError: it is gone, or did not stop in time.
    """
    state = _state(cloud, instance, name)
    if state == "pending":
        running(cloud, instance)
    if state != "stopped":
        if state != "stopping":
            cloud.ec2.stop_instances(InstanceIds=[instance])
        _wait(cloud, instance, ("stopped",), STOP_SECONDS)


def terminate(cloud: Cloud, instance: str) -> None:
    """Terminate a machine and wait until it is gone: only then is its network free. Nothing when it is.

    Raises:
        ResourceError: it is protected, or took too long.
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
