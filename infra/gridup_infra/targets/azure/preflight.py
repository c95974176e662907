"""Checks for what would make a deploy to Azure fail, before anything is created."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from gridup_infra.errors import GridupError, PreflightError, ResourceError
from gridup_infra.outputs import NodeOutputs
from gridup_infra.spec import DeploySpec
from gridup_infra.targets.azure import client, kinds, naming
from gridup_infra.targets.azure.client import Arm
from gridup_infra.targets.azure.providers import require_subscription, same_subscription
from gridup_infra.vm import node as machine_node
from gridup_node.vm.user_data import user_data

SAMPLE_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA gridup"
"""A key as long as the management key, which the deploy itself creates."""

NAMESPACES = ("Microsoft.Compute", "Microsoft.Network")
"""Azure's resource providers for which the subscription must be registered."""

NEAR = 8
"""How many similar sizes an error message names."""

ADDRESSES = "StandardSkuPublicIpAddresses"
"""The name in Microsoft.Network of the quota of public addresses."""


def check(spec: DeploySpec, current: NodeOutputs | None) -> None:
    """Check that a deploy can succeed.

    Raises:
        CredentialsError: Azure does not accept the credentials, or not for this subscription.
        PreflightError: the region, the size, the group, the subnet or a quota prevents the deploy.
    """
    _fits(spec)
    had = current.facts.get("subscription", "") if current else ""
    if had:
        same_subscription(had, client.configured_subscription(os.environ))
    try:
        with client.connected(had) as arm:
            if current is None:
                _new(arm, spec)
                return
            require_subscription(arm)
            if spec.size.lower() != current.spec.size.lower():
                _size(arm, spec)
    except ResourceError as error:
        raise PreflightError(error.message, error.suggestion) from None


def _new(arm: Arm, spec: DeploySpec) -> None:
    looks: list[Callable[[Arm, DeploySpec], object]] = [lambda arm, _spec: require_subscription(arm), _region]
    looks += [partial(_registered, namespace) for namespace in NAMESPACES]
    looks += [_size_and_quota, _addresses]
    looks += [_group] if spec.resource_group else []
    looks += [_subnet] if spec.subnet_id else []
    with ThreadPoolExecutor(max_workers=len(looks)) as pool:
        answers = [pool.submit(look, arm, spec) for look in looks]
        errors = [error for error in (answer.exception() for answer in answers) if error]
    if errors:
        # The first in the order above: if the subscription or region is unknown, the other errors mislead.
        raise errors[0]


def _fits(spec: DeploySpec) -> None:
    """Check that the machine's user-data fits.

    Raises:
        PreflightError: the user-data would be too long.
    """
    try:
        user_data(machine_node.host(spec, SAMPLE_KEY, naming.DISK_PATHS))
    except ValueError as error:
        raise PreflightError(f"The machine can't be told all of this: {error}.") from None


def _region(arm: Arm, spec: DeploySpec) -> None:
    rows = arm.every(f"{arm.root}/locations", client.SUBSCRIPTIONS)
    every = [str(row["name"]) for row in rows if (row.get("metadata") or {}).get("regionType") != "Logical"]
    if every and spec.region not in every:
        near = difflib.get_close_matches(spec.region, every, n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`az account list-locations` names them."
        raise PreflightError(f"{spec.region!r} is not a region of this Azure subscription.", hint)


def _registered(namespace: str, arm: Arm, _spec: DeploySpec) -> None:
    found = arm.get(f"{arm.root}/providers/{namespace}", client.RESOURCES) or {}
    if found.get("registrationState") not in ("Registered", None):
        raise PreflightError(
            f"The Azure subscription is not registered for {namespace}.",
            f"Register it: az provider register --namespace {namespace} --wait",
        )


def sizes(arm: Arm, region: str) -> list[dict[str, Any]]:
    """Return the VM sizes of a region.

    Raises:
        PreflightError: Azure lists none, so that no size can be checked.
    """
    rows = arm.every(
        f"{arm.root}/providers/Microsoft.Compute/skus", client.SKUS, **{"$filter": f"location eq '{region}'"}
    )
    found = [row for row in rows if row.get("resourceType") == "virtualMachines"]
    if not found:
        raise PreflightError(
            f"Azure names no sizes of VMs in {region} for this subscription.",
            "Choose another --region, or ask whoever manages the subscription; --no-preflight skips it.",
        )
    return found


def _size(arm: Arm, spec: DeploySpec) -> dict[str, Any]:
    """Return Azure's description of the node's VM size.

    Raises:
        PreflightError: the region does not have the size, the subscription may not use it, or a node can't
            run on it.
    """
    rows = sizes(arm, spec.region)
    found = next((row for row in rows if str(row["name"]).lower() == spec.size.lower()), None)
    if found is None:
        raise _unknown_size(spec, [str(row["name"]) for row in rows])
    for limit in found.get("restrictions") or ():
        if limit.get("type") == "Location":
            raise PreflightError(
                f"{spec.size} is not to be had in {spec.region} for this Azure subscription "
                f"({limit.get('reasonCode') or 'restricted'}).",
                "Choose another --size, or another --region.",
            )
    can = capabilities(found)
    why = ""
    if can.get("CpuArchitectureType", "x64").lower() != "x64":
        why = f"is of the architecture {can['CpuArchitectureType']}, and the node's image of x64"
    elif "V2" not in can.get("HyperVGenerations", "V2"):
        why = "runs no generation 2 VM"
    elif can.get("TrustedLaunchDisabled", "False").lower() == "true":
        why = "has no trusted launch"
    if why:
        raise PreflightError(f"{spec.size} {why}.", f"For example --size {naming.DEFAULT_SIZE}.")
    return found


def capabilities(size: dict[str, Any]) -> dict[str, str]:
    """Return the capabilities of a size: {name: value}."""
    return {str(row["name"]): str(row["value"]) for row in size.get("capabilities") or ()}


def _unknown_size(spec: DeploySpec, every: list[str]) -> PreflightError:
    folded = {name.lower(): name for name in every}
    near = [folded[key] for key in difflib.get_close_matches(spec.size.lower(), folded, n=NEAR, cutoff=0.6)]
    hint = f"Near it: {', '.join(near)}." if near else f"For example --size {naming.DEFAULT_SIZE}."
    return PreflightError(f"{spec.region} has no size {spec.size!r}.", hint)


def _size_and_quota(arm: Arm, spec: DeploySpec) -> None:
    where = f"{arm.root}/providers/Microsoft.Compute/locations/{spec.region}/usages"
    with ThreadPoolExecutor(max_workers=1) as pool:
        told = pool.submit(_told, arm, where, client.COMPUTE)
        found = _size(arm, spec)
    cores = int(capabilities(found).get("vCPUs", "0"))
    usages = {str(row["name"]["value"]).lower(): row for row in told.result()}
    for name in ("cores", str(found.get("family") or "")):
        row = usages.get(name.lower())
        if row and int(row["currentValue"]) + cores > int(row["limit"]):
            raise PreflightError(
                f"The Azure subscription may run {row['limit']} vCPUs in {spec.region} "
                f"({row['name'].get('localizedValue') or name}) and runs {row['currentValue']}: "
                f"{spec.size} needs {cores}.",
                "Choose a smaller --size or another --region, or ask Azure for more (Quotas).",
            )


def _addresses(arm: Arm, spec: DeploySpec) -> None:
    if spec.private:
        return
    where = f"{arm.root}/providers/Microsoft.Network/locations/{spec.region}/usages"
    for row in _told(arm, where, client.NETWORK):
        if row["name"]["value"] == ADDRESSES and int(row["currentValue"]) >= int(row["limit"]):
            raise PreflightError(
                f"The Azure subscription has {row['currentValue']} of {row['limit']} public addresses "
                f"in {spec.region}.",
                "Release one, ask Azure for more (Quotas), or choose another --region.",
            )


def _told(arm: Arm, path: str, api: str) -> list[dict[str, Any]]:
    """Return Azure's quotas; none if they can't be read: a deploy does not need the right to read them."""
    try:
        return arm.every(path, api)
    except GridupError:
        return []


def _group(arm: Arm, spec: DeploySpec) -> None:
    if kinds.resource_group(arm, spec.resource_group) is None:
        raise PreflightError(
            f"There is no resource group {spec.resource_group!r} in the Azure subscription.",
            "--resource-group takes one that exists; without it the node gets one of its own.",
        )


def _subnet(arm: Arm, spec: DeploySpec) -> None:
    network = spec.subnet_id.rpartition("/subnets/")[0]
    found = arm.get(network, client.NETWORK)
    if found is None or arm.get(spec.subnet_id, client.NETWORK) is None:
        raise PreflightError(
            f"There is no subnet {spec.subnet_id}.", "`az network vnet subnet list` shows their ids."
        )
    place = str(found.get("location") or "").replace(" ", "").lower()
    if place != spec.region:
        raise PreflightError(
            f"The subnet is in {place}, and the node shall be in {spec.region}.",
            f"Give --region {place}, or a subnet of {spec.region}.",
        )
