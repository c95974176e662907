"""What a node on Azure is called, what marks its resources bear, and what it exports. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gridup_infra.spec import PROJECT, DeploySpec
from gridup_infra.spec import urn as any_urn
from gridup_infra.targets.azure import firewall
from gridup_infra.vm.node import MACHINE

DEFAULT_REGION = "eastus"
"""Where neither --region nor the environment nor `az configure` names one."""

DEFAULT_SIZE = "Standard_D2s_v5"
"""2 vCPUs and 8 GB: the node and JupyterLab take 1 GB, the rest is for people's data."""

DEFAULT_DISK = 64
DISK_MAX = 32767
"""GB of a Premium or Standard SSD (https://learn.microsoft.com/azure/virtual-machines/disks-types)."""

DISK_SKU = "StandardSSD_LRS"
"""Of both disks; there is no size of machine that does not take it."""

DISK_ACCESS = {"networkAccessPolicy": "DenyAll", "publicNetworkAccess": "Disabled"}
"""Of the data disk: nobody can export it."""

ROOT_GB = 30
"""Debian, Docker, and two versions of the node's image beside each other; the image itself has 30."""

NETWORK = "10.53.0.0/16"
SUBNET = "10.53.0.0/24"
SUBNET_NAME = "node"

IMAGE = {"publisher": "debian", "offer": "debian-13", "sku": "13-gen2", "version": "latest"}
"""Debian's own image in the marketplace (https://wiki.debian.org/Cloud/MicrosoftAzure); needs no terms.
`latest` is looked up when a VM is made, and never again for it."""

LUN = 0
DISK_PATHS = (
    f"/dev/disk/azure/data/by-lun/{LUN}",
    f"/dev/disk/azure/scsi1/lun{LUN}",
    f"/dev/disk/by-path/*-vmbus-f8b3781b1e824818a1c363d806ec15bb-lun-{LUN}",
)
"""Where the machine finds its data disk: as azure-vm-utils names it (SCSI and NVMe alike), as the Linux agent
does, and by the controller that all data disks of a generation 2 VM hang from
(https://learn.microsoft.com/azure/virtual-machines/azure-vm-utilities)."""

_RESERVED = re.compile(r"microsoft|windows|(^|-)(login|xbox)|(^|-)(azure|office|skype|exchange)(-|$)")
"""Words that Azure refuses in names of what can be reached
(https://learn.microsoft.com/azure/azure-resource-manager/templates/error-reserved-resource-name)."""

PREFIX = "gridup:"
STACK_ID = f"{PREFIX}stack-id"
URN = f"{PREFIX}urn"
STACK = f"{PREFIX}stack"
NAME = f"{PREFIX}name"
KEPT = f"{PREFIX}kept"
"""On a data disk, and its group, that outlived their stack (`--keep-data`): whose they were."""
NOTED = {"admin_email": f"{PREFIX}admin-email", "node_type": f"{PREFIX}node-type"}
"""On such a disk: of the node that had it, by the names of a spec."""
NOBODY = "kept"
"""The stack id of such a disk: it is of no stack any more."""

VALUE_MAX = 256
"""Characters of a tag's value
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
"""Of each resource that is Azure's own, by its name in the program: its type in the SDK."""

SUBNET_RESOURCE, RULE_RESOURCE = "subnet", "rule-"
SUBNET_TYPE, RULE_TYPE = "network:Subnet", "network:SecurityRule"
"""Of those that are part of another and bear no tags: their names in the program (a rule's own follows), and
types."""


def name_prefix(stack: str, stack_id: str) -> str:
    """What a node's things are called: letters, digits and hyphens, a letter first, at most 56 of them.

    That is a legal name for each of them, for a host and for a DNS label (63), which is shared with all other
    customers of the region
    (https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules).
    """
    word = "node" if _RESERVED.search(stack) else stack
    return f"{PROJECT}-{word}-{stack_id[:8]}".rstrip("-")


def project(spec: DeploySpec) -> str:
    """As `name_prefix`."""
    return name_prefix(spec.stack, spec.stack_id)


def group(spec: DeploySpec) -> str:
    """The resource group that a node is in."""
    return spec.resource_group or project(spec)


def machine(spec: DeploySpec) -> str:
    """The VM's name: another one for another VM, of which the former may not be gone yet."""
    return project(spec) + (f"-{spec.machine_revision}" if spec.machine_revision else "")


def dns_name(settings: Mapping[str, Any] | None) -> str:
    """The name that a public address has in DNS, as Azure gave it; empty where it has none.

    Each cloud has its own suffix, and only Azure knows it.

    Args:
        settings: the address's `dnsSettings`.
    """
    return str((settings or {}).get("fqdn") or "").rstrip(".").lower()


def is_own_name(spec: DeploySpec) -> bool:
    """Whether a node's name is the one of its DNS label and not a person's own."""
    return spec.domain_name.startswith(f"{project(spec)}.{spec.region}.")


def common(spec: DeploySpec) -> dict[str, Any]:
    """The inputs that all of our own resources of a node share."""
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
    """A text as a tag's value; we count as UTF-16 does, to be safe."""
    while len(text.encode("utf-16-le")) // 2 > VALUE_MAX:
        text = text[:-1]
    return text


def tags(spec: DeploySpec, name: str) -> dict[str, str]:
    """The tags of one of Azure's own resources.

    Args:
        name: in the program, a key of `TYPES`.
    """
    return {
        STACK_ID: spec.stack_id,
        URN: value(azure_urn(spec.stack, TYPES[name], name)),
        STACK: spec.stack,
        NAME: value(spec.name),
    }


def kept_tags(known: Mapping[str, str], props: Mapping[str, Any]) -> dict[str, str]:
    """Those of a thing that outlives the stack whose owner has these inputs."""
    noted = {tag: value(str(props[key])) for key, tag in NOTED.items() if props.get(key)}
    return {**known, STACK_ID: NOBODY, KEPT: props["stack_id"], **noted}


def azure_urn(stack: str, type_: str, name: str) -> str:
    """The URN of one of Azure's own resources.

    Args:
        type_: in the SDK, such as `network:Subnet`.
    """
    return any_urn(stack, f"azure-native:{type_}", name)


def part_urn(stack: str, parts: str, name: str) -> str:
    """The URN of a part of one of Azure's own resources, by what Azure calls it; empty where it is not ours.

    Args:
        parts: `subnets` or `securityRules`.
    """
    if parts == "securityRules":
        return azure_urn(stack, RULE_TYPE, RULE_RESOURCE + name) if name in firewall.NAMES else ""
    return azure_urn(stack, SUBNET_TYPE, SUBNET_RESOURCE) if name == SUBNET_NAME else ""


def urn(stack: str, kind: str, name: str) -> str:
    """The URN of one of our own resources."""
    return any_urn(stack, f"pulumi-python:dynamic/gridup-azure:{kind}", name)


def facts(spec: DeploySpec, known: Mapping[str, Any]) -> dict[str, str]:
    """What the target finds the node by again."""
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
    """The VM's own disk, which Azure makes with it."""
    return machine(spec) + ROOT_SUFFIX


def data_disk(spec: DeploySpec) -> str:
    """The disk with the node's data."""
    return data_disk_of(project(spec))


def data_disk_of(project: str) -> str:
    """As `data_disk`, by what the node's things are called."""
    return f"{project}-data"
