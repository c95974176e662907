"""The target `azure`: a node on an Azure VM with its own data disk and, by default, its own network."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from gridup_infra.errors import GridupError, ResourceError, UsageError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.base import Capability, DoctorCheck, Inspection, Retained, StackRef
from gridup_infra.vm.target import MachineTarget, data_disk, describe_access, partial_outputs

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pulumi

    from gridup_infra.targets.azure.client import Arm

_SUBNET = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers/Microsoft\.Network/virtualNetworks/[^/]+"
    r"/subnets/[^/]+",
    re.IGNORECASE,
)
_SIZE = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9-]+)*")
_GROUP = re.compile(r"(?=.{1,90}$)[-\w.()]*[-\w()]")
"""Rules for group names: https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules"""

_FAILED = re.compile(r"\bcode\b\W{1,4}(?P<code>[A-Z][A-Za-z]+)\b", re.IGNORECASE)
_MESSAGE = re.compile(r"\bmessage\b\W{1,4}(?P<text>[^\"]+)", re.IGNORECASE)


class AzureTarget(MachineTarget):
    """Target for Azure VMs."""

    name: ClassVar[str] = "azure"
    title: ClassVar[str] = "Azure"
    data_resource: ClassVar[str] = "disk"
    providers: ClassVar[tuple[str, ...]] = (*MachineTarget.providers, "gridup_infra.targets.azure.providers")
    packages: ClassVar[tuple[str, ...]] = ("azure-native",)
    extra: ClassVar[str] = "azure"
    capabilities: ClassVar[frozenset[Capability]] = MachineTarget.capabilities | {
        Capability.SUBNET,
        Capability.RESOURCE_GROUP,
        Capability.BOOT_LOG,
    }

    def resolve(self, spec: DeploySpec, previous: DeploySpec | None) -> DeploySpec:
        from gridup_infra.targets.azure import client, naming

        spec = super().resolve(spec, previous)
        if spec.subnet_id and not _SUBNET.fullmatch(spec.subnet_id):
            raise UsageError(
                f"--subnet-id {spec.subnet_id!r} is not a subnet's whole id.",
                "`az network vnet subnet list` shows it: /subscriptions/…/virtualNetworks/…/subnets/….",
            )
        if spec.resource_group and not _GROUP.fullmatch(spec.resource_group):
            raise UsageError(
                f"--resource-group {spec.resource_group!r}: a group's name has at most 90 letters, digits "
                "and -_.(), and no dot at its end."
            )
        if spec.size and not _SIZE.fullmatch(spec.size):
            raise UsageError(f"--size {spec.size!r}: a size of Azure's is like {naming.DEFAULT_SIZE}.")
        region = spec.region or client.configured_region(os.environ) or naming.DEFAULT_REGION
        spec = replace(
            spec,
            # Users may copy the portal's spelling: "West Europe".
            region=region.replace(" ", "").lower(),
            size=spec.size or naming.DEFAULT_SIZE,
            disk_size=_disk_size(spec, previous),
        )
        if previous:
            _stays(spec, previous)
        # The spec of a deployed node may hold the name that Azure gave, as if the user had asked for it.
        return replace(spec, domain_name="") if naming.is_own_name(spec) else spec

    def preflight(self, spec: DeploySpec, current: NodeOutputs | None) -> None:
        from gridup_infra.targets.azure import preflight

        preflight.check(spec, current)

    def build(self, spec: DeploySpec) -> pulumi.Output[NodeOutputs]:
        from gridup_infra.targets.azure import resources

        return resources.build(spec)

    def summary(self, spec: DeploySpec) -> tuple[str, ...]:
        from gridup_infra.targets.azure import naming

        region = spec.region or "its region"
        size = spec.size or naming.DEFAULT_SIZE
        network = f"in the subnet {spec.subnet_id}" if spec.subnet_id else "with a network of its own"
        address = "no public address" if spec.private else "a public address"
        group = (
            f"in the resource group {spec.resource_group}, which is not Gridup's"
            if spec.resource_group
            else f"the resource group {naming.group(spec)}, with all that is in it"
        )
        return (
            group,
            f"a {size} VM in {region} {network}, {address}",
            describe_access(spec),
        )

    def data(self, spec: DeploySpec) -> str:
        from gridup_infra.targets.azure import naming

        return data_disk(spec.disk_size or naming.DEFAULT_DISK)

    def retained(self, spec: DeploySpec) -> Retained | None:
        from gridup_infra.targets.azure import client, retained_disk

        wanted = {"stack": spec.stack, "name": spec.name, "region": spec.region}
        with client.connected(client.configured_subscription(os.environ)) as arm:
            found = retained_disk.list_retained(arm, wanted)
        if not found:
            return None
        disk, size = found[0], retained_disk.size_of(found[0]) * 1024**3
        group = str(disk["id"]).split("/")[4]
        what = f"the disk {disk['name']} in the resource group {group}"
        return Retained(str(disk["id"]), what, retained_disk.since(disk), size, **retained_disk.noted(disk))

    def inspect(self, outputs: NodeOutputs) -> Inspection:
        from gridup_infra.targets.azure import inspect

        with self._connected(outputs) as arm:
            return inspect.inspect(arm, outputs)

    def leftovers(self, identity: StackRef) -> tuple[str, ...]:
        from gridup_infra.targets.azure import cleanup
        from gridup_infra.targets.azure.client import connected

        with connected(_subscription(identity)) as arm:
            return tuple(cleanup.leftovers(arm, _props(identity)))

    def delete_all(self, identity: StackRef) -> None:
        from gridup_infra.targets.azure import cleanup
        from gridup_infra.targets.azure.client import connected

        with connected(_subscription(identity)) as arm:
            cleanup.delete_all(arm, _props(identity), keep_data=False)

    def recover_interrupted(self, identity: StackRef, known: Mapping[str, str]) -> dict[str, str]:
        from gridup_infra.targets.azure import cleanup
        from gridup_infra.targets.azure.client import connected

        with connected(_subscription(identity)) as arm:
            return cleanup.recover_interrupted(arm, _props(identity), known)

    def translate_error(self, error: ResourceError, spec: DeploySpec) -> GridupError:
        from gridup_infra.targets.azure import client

        text = " ".join((error.message, *error.details))
        if "AADSTS" in text:
            return client.not_let_in(text, {})
        found = list(_FAILED.finditer(text))
        if not found:
            return error
        code = found[-1]["code"]
        said = _MESSAGE.search(text, found[-1].start())
        plain = client.error_of_code(
            code, said["text"].strip().rstrip("\\").rstrip() if said else error.message
        )
        where = error.message.partition(": ")[0]
        message = f"{where}, {spec.size} in {spec.region}: {plain.message}"
        return type(plain)(message, plain.suggestion or error.suggestion)

    def destructive_changes(self, spec: DeploySpec, current: NodeOutputs) -> tuple[str, ...]:
        before = current.spec
        lines = []
        if spec.machine_revision != before.machine_revision:
            lines.append(
                "the VM is replaced (--new-machine): all that is not on the data disk is lost; "
                "the data disk stays"
            )
        if spec.private and not before.private:
            lines.append(f"the public address {current.facts.get('ip') or current.address} is given back")
        return tuple(lines)

    def partial_outputs(
        self, identity: StackRef, spec: DeploySpec, states: Mapping[str, Mapping[str, Any]]
    ) -> NodeOutputs | None:
        from gridup_infra.targets.azure import naming

        def state(name: str) -> Mapping[str, Any]:
            return states.get(naming.azure_urn(identity.stack, naming.TYPES[name], name)) or {}

        machine = state("machine")
        # /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Compute/virtualMachines/NAME
        _, *parts = str(machine.get("id") or "").split("/")
        if len(parts) < 8:
            return None
        facts = {
            **naming.facts(spec, {"subscription": parts[1], "machine": machine.get("vmId") or ""}),
            "group": parts[3],
            "vm": parts[7],
            "project": _props(identity)["project"],
        }
        address = str(state("address").get("ipAddress") or "")
        dns_name = naming.dns_name(state("address").get("dnsSettings"))
        if spec.private:
            rows = state("interface").get("ipConfigurations") or ()
            address = next((str(row.get("privateIPAddress") or "") for row in rows), "")
        return partial_outputs(identity, spec, address, facts, states, dns_name)

    def place(self, outputs: NodeOutputs) -> dict[str, str]:
        from gridup_infra.targets.azure import naming

        facts = outputs.facts
        found = {
            "instance": facts.get("vm", ""),
            "volume": naming.data_disk_of(facts["project"]) if facts.get("project") else "",
            "resource_group": facts.get("group", ""),
        }
        return {**super().place(outputs), **{key: text for key, text in found.items() if text}}

    def boot_log(self, outputs: NodeOutputs) -> str:
        from gridup_infra.targets.azure import machines

        with self._connected(outputs) as arm:
            return machines.boot_log(arm, outputs.facts, outputs.spec.name)

    def start(self, outputs: NodeOutputs) -> None:
        from gridup_infra.targets.azure import machines

        with self._connected(outputs) as arm:
            machines.start(arm, outputs.facts, outputs.spec.name)

    def stop(self, outputs: NodeOutputs) -> None:
        from gridup_infra.targets.azure import machines

        with self._connected(outputs) as arm:
            machines.stop(arm, outputs.facts, outputs.spec.name)

    def doctor(self) -> Iterator[DoctorCheck]:
        from gridup_infra.targets.azure import client

        if not client.is_there():
            yield DoctorCheck("Azure", None, f"Python's Azure library is not installed. {client.NO_SDK}")
            return
        try:
            found = _glance()
        except GridupError as error:
            yield DoctorCheck("Azure", None, f"{error.message} {error.suggestion}".strip())
        else:
            yield DoctorCheck(
                "Azure", True, f"subscription {found.get('displayName')} ({found['subscriptionId']})"
            )

    @staticmethod
    def _connected(outputs: NodeOutputs) -> AbstractContextManager[Arm]:
        from gridup_infra.targets.azure.client import connected

        return connected(outputs.facts["subscription"])


def _glance() -> dict[str, Any]:
    from gridup_infra.targets.azure import client
    from gridup_infra.targets.azure.providers import require_subscription

    with client.connected() as arm:
        return require_subscription(arm)


def _disk_size(spec: DeploySpec, previous: DeploySpec | None) -> int:
    from gridup_infra.targets.azure import naming

    disk = spec.disk_size or naming.DEFAULT_DISK
    if disk > naming.DISK_MAX:
        raise UsageError(f"--disk-size {disk}: a disk has at most {naming.DISK_MAX} GB.")
    if previous and disk < previous.disk_size:
        raise UsageError(
            f"--disk-size {disk}: the data disk has {previous.disk_size} GB, and a disk can't shrink."
        )
    return disk


def _stays(spec: DeploySpec, previous: DeploySpec) -> None:
    """Refuse changes that would replace the whole node: of region, resource group or subnet.

    Raises:
        UsageError: one of them changed.
    """
    for flag, was, now in (
        ("--region", previous.region, spec.region),
        ("--resource-group", previous.resource_group, spec.resource_group),
        ("--subnet-id", previous.subnet_id, spec.subnet_id),
    ):
        known = bool(previous.region)  # Empty if a first deploy was interrupted elsewhere.
        if known and was.lower() != now.lower():
            raise UsageError(
                f'{flag}: "{spec.name}" is in {was or "one of its own"}; it can\'t be moved.',
                "Deploy it there under another name, or destroy it first.",
            )


def _subscription(identity: StackRef) -> str:
    """Return the stack's subscription: from its outputs, else from the inputs of its owner; else empty."""
    return identity.facts.get("subscription") or identity.facts.get("default_subscription") or ""


def _props(identity: StackRef) -> dict[str, str]:
    """Return the values by which a stack's resources are found."""
    from gridup_infra.targets.azure import naming

    project = identity.facts.get("project") or naming.name_prefix(identity.stack, identity.stack_id)
    return {
        "stack": identity.stack,
        "stack_id": identity.stack_id,
        "project": project,
        "group": identity.facts.get("group") or project,
        "resource_group": identity.facts.get("resource_group", ""),
    }
