"""Names, tags and exported facts of a node on Azure. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gridup_infra.spec import PROJECT, DeploySpec
from gridup_infra.spec import urn as any_urn
from gridup_infra.targets.azure import firewall
from gridup_infra.vm.node import MACHINE

DEFAULT_REGION = "eastus"
"""The region if neither --region, the environment nor `az configure` names one."""

DEFAULT_SIZE = "Standard_D2s_v5"
"""2 vCPUs and 8 GB of memory: the node and JupyterLab take 1 GB, the rest is for users' data."""

DEFAULT_DISK = 64
DISK_MAX = 32767
"""Maximum GB of a Premium or Standard SSD (https://learn.microsoft.com/azure/virtual-machines/disks-types)."""

DISK_SKU = "StandardSSD_LRS"
"""The SKU of both disks; every VM size supports it."""

DISK_ACCESS = {"networkAccessPolicy": "DenyAll", "publicNetworkAccess": "Disabled"}
"""Properties of the data disk, so that nobody can export it."""

ROOT_GB = 30
"""Enough for Debian, Docker, and two versions of the node's image at once; Debian's image alone is 30 GB."""

NETWORK = "10.53.0.0/16"
SUBNET = "10.53.0.0/24"
SUBNET_NAME = "node"

IMAGE = {"publisher": "debian", "offer": "debian-13", "sku": "13-gen2", "version": "latest"}
"""Debian's own image in the marketplace (https://wiki.debian.org/Cloud/MicrosoftAzure); it has no terms to
accept. Azure resolves `latest` when it creates a VM, and never again for that VM."""

LUN = 0
DISK_PATHS = (
    f"/dev/disk/azure/data/by-lun/{LUN}",
    f"/dev/disk/azure/scsi1/lun{LUN}",
    f"/dev/disk/by-path/*-vmbus-f8b3781b1e824818a1c363d806ec15bb-lun-{LUN}",
)
"""Paths of the data disk on the VM: the name from azure-vm-utils (for SCSI and NVMe), the name from the Linux
agent, and the path of the controller to which all data disks of a generation 2 VM are attached
(https://learn.microsoft.com/azure/virtual-machines/azure-vm-utilities)."""

_RESERVED = re.compile(r"microsoft|windows|(^|-)(login|xbox)|(^|-)(azure|office|skype|exchange)(-|$)")
"""Words that Azure refuses in names of resources that can be reached
(https://learn.microsoft.com/azure/azure-resource-manager/templates/error-reserved-resource-name)."""

PREFIX = "gridup:"
STACK_ID = f"{PREFIX}stack-id"
URN = f"{PREFIX}urn"
STACK = f"{PREFIX}stack"
NAME = f"{PREFIX}name"
KEPT = f"{PREFIX}kept"
"""Tag of a retained disk and its group (`--keep-data`): the id of the stack that owned them."""
NOTED = {"admin_email": f"{PREFIX}admin-email", "node_type": f"{PREFIX}node-type"}
"""Tags of a retained disk that describe its last node, by the field's name in the spec."""
NOBODY = "kept"
"""The stack id of a retained disk: no stack owns it."""

VALUE_MAX = 256
"""Maximum characters of a tag's value
(https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations)."""

TYPES = {
    "group": "resources:ResourceGroup",
    "network": "network:VirtualNetwork",
    "security-group": "network:NetworkSecurityGroup",
    "address": "network:PublicIPAddress",
    "interface": "network:NetworkInterface",
    "disk": "compute:Disk",
    "machine": "compute:VirtualMachine",
}
"""The type in the SDK of each azure-native resource, by its name in the Pulumi program."""

SUBNET_RESOURCE, RULE_RESOURCE = "subnet", "rule-"
SUBNET_TYPE, RULE_TYPE = "network:Subnet", "network:SecurityRule"
"""Child resources, which have no tags: their names in the Pulumi program (for a rule, a prefix of its own
name), and their types in the SDK."""


def name_prefix(stack: str, stack_id: str) -> str:
    """Return the name of a node's resources: letters, digits and hyphens, a letter first, at most 56.

    It is valid for each of these resources, for a host and for a DNS label (63). A DNS label must be unique
    among all customers in the region
    (https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules).
    """
    word = "node" if _RESERVED.search(stack) else stack
    return f"{PROJECT}-{word}-{stack_id[:8]}".rstrip("-")


def project(spec: DeploySpec) -> str:
    """Return the `name_prefix` of a node."""
    return name_prefix(spec.stack, spec.stack_id)


def group(spec: DeploySpec) -> str:
    """Return the name of the node's resource group."""
    return spec.resource_group or project(spec)


def machine(spec: DeploySpec) -> str:
    """Return the VM's name. A new VM gets a new name, because the former one may not be gone yet."""
    return project(spec) + (f"-{spec.machine_revision}" if spec.machine_revision else "")


def dns_name(settings: Mapping[str, Any] | None) -> str:
    """Return the DNS name that Azure gave to a public address; empty if it has none.

    Each cloud has its own suffix, and only Azure knows it.

    Args:
        settings: `dnsSettings` of the address.
    """
    return str((settings or {}).get("fqdn") or "").rstrip(".").lower()


def is_own_name(spec: DeploySpec) -> bool:
    """Return whether the node's domain name comes from its DNS label and not from the user."""
    return spec.domain_name.startswith(f"{project(spec)}.{spec.region}.")


def common(spec: DeploySpec) -> dict[str, Any]:
    """Return the inputs that all of Gridup's own resources of a node share."""
    return {
        "region": spec.region,
        "stack": spec.stack,
        "stack_id": spec.stack_id,
        "name": spec.name,
        "project": project(spec),
        "group": group(spec),
        "resource_group": spec.resource_group,
    }


def value(text: str) -> str:
    """Cut a text to the maximum length of a tag's value. Counts UTF-16 units, to be safe."""
    while len(text.encode("utf-16-le")) // 2 > VALUE_MAX:
        text = text[:-1]
    return text


def tags(spec: DeploySpec, name: str) -> dict[str, str]:
    """Return the tags of an azure-native resource.

    Args:
        name: its name in the Pulumi program, a key of `TYPES`.
    """
    return {
        STACK_ID: spec.stack_id,
        URN: value(azure_urn(spec.stack, TYPES[name], name)),
        STACK: spec.stack,
        NAME: value(spec.name),
    }


def kept_tags(known: Mapping[str, str], props: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a resource that outlives its stack.

    Args:
        known: its tags until now.
        props: the inputs of the stack's owner.
    """
    noted = {tag: value(str(props[key])) for key, tag in NOTED.items() if props.get(key)}
    return {**known, STACK_ID: NOBODY, KEPT: props["stack_id"], **noted}


def azure_urn(stack: str, type_: str, name: str) -> str:
    """Return the URN of an azure-native resource.

    Args:
        type_: its type in the SDK, such as `network:Subnet`.
    """
    return any_urn(stack, f"azure-native:{type_}", name)


def part_urn(stack: str, parts: str, name: str) -> str:
    """Return the URN of a child resource; empty if it is not one of Gridup's.

    Args:
        parts: `subnets` or `securityRules`.
        name: its name in Azure.
    """
    if parts == "securityRules":
        return azure_urn(stack, RULE_TYPE, RULE_RESOURCE + name) if name in firewall.NAMES else ""
    return azure_urn(stack, SUBNET_TYPE, SUBNET_RESOURCE) if name == SUBNET_NAME else ""


def urn(stack: str, kind: str, name: str) -> str:
    """Return the URN of one of Gridup's own resources."""
    return any_urn(stack, f"pulumi-python:dynamic/gridup-azure:{kind}", name)


def facts(spec: DeploySpec, known: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts by which the target finds the node again."""
    return {
        "subscription": str(known["subscription"]),
        "region": spec.region,
        "group": group(spec),
        "resource_group": spec.resource_group,
        "project": project(spec),
        "vm": machine(spec),
        MACHINE: str(known["machine"]),
    }


ROOT_SUFFIX = "-root"


def root_disk(spec: DeploySpec) -> str:
    """Return the name of the VM's root disk, which Azure creates with the VM."""
    return machine(spec) + ROOT_SUFFIX


def data_disk(spec: DeploySpec) -> str:
    """Return the name of the node's data disk."""
    return data_disk_of(project(spec))


def data_disk_of(project: str) -> str:
    """Return the name of the data disk, from the `name_prefix` of its node."""
    return f"{project}-data"
