"""The target `aws`: a node on an EC2 instance, with its own network and data disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from gridup_infra.errors import GridupError, ResourceError, UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import STANDARD, UNLIMITED, DeploySpec
from gridup_infra.targets.base import Capability, DoctorCheck, Inspection, Retained, StackRef
from gridup_infra.vm.target import MachineTarget, data_disk, describe_access, partial_outputs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pulumi

    from gridup_infra.targets.aws.client import Cloud

_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
_SIZE = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")

DOCTOR_SECONDS = 3


COSTS = {
    STANDARD: "slower once they are used up, and never billed for more",
    UNLIMITED: "as fast once they are used up, and AWS bills that by the vCPU hour, without a limit",
}
"""CPU credit mode -> what happens, and what AWS bills, when the credits are used up."""


class AwsTarget(MachineTarget):
    """Amazon EC2."""

    name: ClassVar[str] = "aws"
    title: ClassVar[str] = "AWS"
    data_resource: ClassVar[str] = "volume"
    providers: ClassVar[tuple[str, ...]] = (*MachineTarget.providers, "gridup_infra.targets.aws.providers")
    extra: ClassVar[str] = "aws"
    capabilities: ClassVar[frozenset[Capability]] = MachineTarget.capabilities | {
        Capability.CPU_CREDITS,
        Capability.SUBNET,
        Capability.BOOT_LOG,
    }

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        from gridup_infra.targets.aws import naming

        spec = super().resolve(spec, previous)
        if previous and previous.region and spec.region != previous.region:
            raise UsageError(
                f'"{spec.name}" is in {previous.region}; it can\'t be moved to {spec.region}.',
                "Deploy it there under another name, or destroy it first.",
            )
        if spec.subnet_id and not _SUBNET.fullmatch(spec.subnet_id):
            raise UsageError(
                f"--subnet-id {spec.subnet_id!r}: a subnet's id is like subnet-0a1b2c3d4e5f67890."
            )
        disk = spec.disk_size or naming.DEFAULT_DISK
        if disk > naming.DISK_MAX:
            raise UsageError(f"--disk-size {disk}: a disk has at most {naming.DISK_MAX} GB.")
        if previous and disk < previous.disk_size:
            raise UsageError(
                f"--disk-size {disk}: the data disk has {previous.disk_size} GB, and a disk can't shrink."
            )
        size = spec.size.lower() or naming.DEFAULT_SIZE
        return replace(
            spec, region=_region(spec), size=size, disk_size=disk, cpu_credits=_credits(spec, size, previous)
        )

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        from gridup_infra.targets.aws import preflight

        preflight.check(spec, current)

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        from gridup_infra.targets.aws import resources

        return resources.build(spec)

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        from gridup_infra.targets.aws import naming

        region = spec.region or "its region"
        size = spec.size or naming.DEFAULT_SIZE
        network = f"in the subnet {spec.subnet_id}" if spec.subnet_id else "with a network of its own"
        address = "no public address" if spec.private else "a public address"
        return (
            f"a {size} instance in {region} {network}, {address}; all is called {naming.name_prefix(spec)}",
            *_told_credits(spec.cpu_credits),
            describe_access(spec),
        )

    def warnings(self, spec: DeploySpec, current: NodeOutputs | None) -> tuple[str, ...]:
        lines = super().warnings(spec, current)
        if current and current.spec.cpu_credits != spec.cpu_credits:
            lines += tuple(f'"{spec.name}" now has {line}.' for line in _told_credits(spec.cpu_credits))
        return lines

    def data(self, spec: DeploySpec) -> str:
        from gridup_infra.targets.aws import naming

        return data_disk(spec.disk_size or naming.DEFAULT_DISK)

    def retained(self, spec: DeploySpec) -> Retained | None:
        from gridup_infra.targets.aws import tags, volumes
        from gridup_infra.targets.aws.client import connected

        with connected(spec.region) as cloud:
            found = volumes.list_retained(cloud, {"stack": spec.stack, "name": spec.name})
        if not found:
            return None
        disk = found[0]
        return Retained(
            str(disk["VolumeId"]),
            f"the disk {disk['VolumeId']} in {disk['AvailabilityZone']}",
            tags.of(disk).get(tags.RETAINED_AT, ""),
            int(disk["Size"]) * 1024**3,
            **{key: tags.of(disk).get(tag, "") for key, tag in tags.NOTED.items()},
        )

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        from gridup_infra.targets.aws import inspect

        with self._connected(outputs) as cloud:
            return inspect.inspect(cloud, outputs)

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        from gridup_infra.targets.aws import cleanup
        from gridup_infra.targets.aws.client import connected

        with connected(_region_of(identity)) as cloud:
            return tuple(cleanup.leftovers(cloud, identity.stack_id))

    def delete_all(self, identity: StackRef) -> None:
        from gridup_infra.targets.aws import cleanup, naming
        from gridup_infra.targets.aws.client import connected

        props = {
            "stack": identity.stack,
            "stack_id": identity.stack_id,
            "name": identity.name,
            "volume_urn": naming.volume_urn(identity.stack),
        }
        with connected(_region_of(identity)) as cloud:
            cleanup.delete_all(cloud, props, keep_data=False)

    def destructive_changes(self, spec: DeploySpec, current: NodeOutputs) -> tuple[str, ...]:
        before = current.spec
        lines = []
        if why := self._replaced_for(spec, before):
            lines.append(
                f"the VM is replaced ({why}): all that is not on the data disk is lost; the data disk stays"
            )
        if spec.private and not before.private:
            lines.append(f"the public address {current.facts.get('ip') or current.address} is given back")
        return tuple(lines)

    def partial_outputs(
        self, identity: StackRef, spec: DeploySpec, states: Mapping[str, Mapping[str, Any]]
    ) -> NodeOutputs | None:
        from gridup_infra.targets.aws import naming

        def told(kind: str, name: str, key: str) -> str:
            return str((states.get(naming.urn(identity.stack, kind, name)) or {}).get(key) or "")

        instance = told("Instance", "instance", "instance")
        if not instance:
            return None
        known = {
            "account": told("Owner", "owner", "account"),
            "instance": instance,
            "volume": told("Instance", "instance", "disk"),
            "zone": told("Instance", "instance", "zone"),
            "group": told("SecurityGroup", "security-group", "group"),
            "allocation": told("Address", "address", "allocation"),
        }
        facts = {**naming.facts(spec, known), "region": _region_of(identity)}
        address = told("Address", "address", "address")
        if spec.private:
            address = told("Instance", "instance", "private_address")
        return partial_outputs(identity, spec, address, facts, states)

    def place(self, outputs: NodeOutputs) -> dict[str, str]:
        volume = outputs.facts.get("volume")
        return {**super().place(outputs), **({"volume": volume} if volume else {})}

    def boot_log(self, outputs: NodeOutputs) -> str:
        from gridup_infra.targets.aws.client import code_of
        from gridup_infra.vm.node import MACHINE

        machine = outputs.facts[MACHINE]
        with self._connected(outputs) as cloud:
            try:
                answer = cloud.ec2.get_console_output(InstanceId=machine, Latest=True)
            except Exception as error:
                # Only Nitro instances return the latest output; others return that of the last boot.
                if code_of(error) not in ("UnsupportedOperation", "InvalidParameterCombination"):
                    raise
                answer = cloud.ec2.get_console_output(InstanceId=machine)
        return str(answer.get("Output") or "")

    def start(self, outputs: NodeOutputs) -> None:
        from gridup_infra.targets.aws import instances
        from gridup_infra.vm.node import MACHINE

        with self._connected(outputs) as cloud:
            instances.start(cloud, outputs.facts[MACHINE], outputs.spec.name)

    def stop(self, outputs: NodeOutputs) -> None:
        from gridup_infra.targets.aws import instances
        from gridup_infra.vm.node import MACHINE

        with self._connected(outputs) as cloud:
            instances.stop(cloud, outputs.facts[MACHINE], outputs.spec.name)

    def sign_in(self, ask: Callable[[str], str | None]) -> dict[str, str]:
        from gridup_infra.targets.aws import signing_in

        return signing_in.sign_in(os.environ, ask)

    def doctor(self) -> Iterator[DoctorCheck]:
        from gridup_infra.targets.aws import client

        if not client.is_there():
            yield DoctorCheck("AWS", None, f"Python's AWS library is not installed. {client.NO_SDK}")
            return
        try:
            account, who = client.whoami(client.configured_region(os.environ), DOCTOR_SECONDS)
        except GridupError as error:
            yield DoctorCheck("AWS", None, f"{error.message} {error.suggestion}".strip())
        else:
            yield DoctorCheck("AWS", True, f"account {account}, as {who}")

    @staticmethod
    def _connected(outputs: NodeOutputs) -> AbstractContextManager[Cloud]:
        from gridup_infra.targets.aws.client import connected

        return connected(outputs.facts["region"], outputs.facts.get("account", ""))

    @staticmethod
    def _replaced_for(spec: DeploySpec, before: DeploySpec) -> str:
        """Return why a deploy replaces the VM; empty if it does not."""
        if spec.machine_revision != before.machine_revision:
            return "--new-machine"
        if spec.subnet_id != before.subnet_id:
            return "it moves to another network"
        if spec.size == before.size:
            return ""
        from gridup_infra.targets.aws import placement
        from gridup_infra.targets.aws.client import connected

        with connected(spec.region) as cloud:
            kinds = [
                placement.architecture_of(size, placement.size_of(cloud, size))
                for size in (before.size, spec.size)
            ]
        return f"{spec.size} is of another architecture than {before.size}" if kinds[0] != kinds[1] else ""


def _credits(spec: DeploySpec, size: str, previous: DeploySpec | None) -> str:
    """Return the CPU credit mode: by default the one without extra cost; empty if the size has no credits."""
    from gridup_infra.targets.aws import naming

    if naming.has_credits(size):
        return spec.cpu_credits or STANDARD
    if spec.cpu_credits and not (previous and previous.cpu_credits == spec.cpu_credits):
        raise UsageError(
            f"--cpu-credits: {size} has no CPU credits.",
            "The sizes t2, t3, t3a and t4g have, such as t3.large.",
        )
    return ""


def _told_credits(mode: str) -> tuple[str, ...]:
    return (f"CPU credits: {mode}, {COSTS[mode]}",) if mode else ()


def _region(spec: DeploySpec) -> str:
    from gridup_infra.targets.aws.client import configured_region

    region = spec.region or configured_region(os.environ)
    if not region:
        raise UsageError("Which region of AWS?", "Give --region, for example --region eu-west-1.")
    return region.lower()


def _region_of(identity: StackRef) -> str:
    from gridup_infra.targets.aws.client import configured_region

    region = identity.facts.get("region") or configured_region(os.environ)
    if not region:
        raise ResourceError(f"The region of {identity.name} is not known.", "Set AWS_REGION to it.")
    return region
