"""A node's VM: power state, start, stop and boot log."""

from __future__ import annotations

from collections.abc import Mapping

from gridup_infra.errors import ResourceError
from gridup_infra.naming import typed
from gridup_infra.targets.azure import client, kinds
from gridup_infra.targets.azure.client import Arm
from gridup_infra.targets.azure.kinds import Thing
from gridup_infra.targets.base import NodeStatus

POWERS = {
    "starting": NodeStatus.STARTING,
    "running": NodeStatus.RUNNING,
    "stopping": NodeStatus.STOPPED,
    "stopped": NodeStatus.STOPPED,
    "deallocating": NodeStatus.STOPPED,
    "deallocated": NodeStatus.STOPPED,
}
"""Node status by the code after `PowerState/`
(https://learn.microsoft.com/azure/virtual-machines/states-billing#power-states-and-billing)."""


def get(arm: Arm, group: str, name: str) -> Thing | None:
    """Return the VM with its power state; None if it does not exist."""
    return arm.get(kinds.path(arm, group, kinds.MACHINE, name), client.COMPUTE, **{"$expand": "instanceView"})


def power_of(vm: Thing) -> NodeStatus:
    """Return the node status for the VM's power state."""
    view = (vm.get("properties") or {}).get("instanceView") or {}
    codes = [str(row.get("code")) for row in view.get("statuses") or ()]
    state = next((code.partition("/")[2] for code in codes if code.startswith("PowerState/")), "")
    if not state:
        return NodeStatus.STARTING if kinds.state_of(vm) in ("Creating", "Updating") else NodeStatus.DEGRADED
    return POWERS.get(state, NodeStatus.DEGRADED)


def is_billed(vm: Thing) -> bool:
    """Return whether the VM is stopped but not deallocated, so that it costs as if it ran."""
    view = (vm.get("properties") or {}).get("instanceView") or {}
    return any(row.get("code") == "PowerState/stopped" for row in view.get("statuses") or ())


def start(arm: Arm, facts: Mapping[str, str], name: str) -> None:
    """Start the VM, unless it runs already.

    Args:
        facts: `group` and `vm`, the names of the resource group and the VM.
        name: the node's name.

    Raises:
        ResourceError: the VM is gone, or Azure has no capacity for it.
    """
    if power_of(_get(arm, facts, name)) not in (NodeStatus.RUNNING, NodeStatus.STARTING):
        arm.post(_path(arm, facts, "start"), client.COMPUTE)


def stop(arm: Arm, facts: Mapping[str, str], name: str) -> None:
    """Stop and deallocate the VM, so that only its disks cost; do nothing if it is deallocated already.

    Args:
        facts: `group` and `vm`, the names of the resource group and the VM.
        name: the node's name.

    Raises:
        ResourceError: the VM is gone.
    """
    vm = _get(arm, facts, name)
    codes = ((vm.get("properties") or {}).get("instanceView") or {}).get("statuses") or ()
    # A VM that was only shut down stays allocated, and costs as before.
    if not any(row.get("code") == "PowerState/deallocated" for row in codes):
        arm.post(_path(arm, facts, "deallocate"), client.COMPUTE)


def boot_log(arm: Arm, facts: Mapping[str, str], name: str) -> str:
    """Return what the VM printed on its serial console; empty if Azure has nothing yet.

    Args:
        facts: `group` and `vm`, the names of the resource group and the VM.
        name: the node's name.

    Raises:
        ResourceError: the VM is gone, or Azure does not return the log.
    """
    import requests

    _get(arm, facts, name)
    told = arm.post(_path(arm, facts, "retrieveBootDiagnosticsData"), client.COMPUTE)
    url = str(told.get("serialConsoleLogBlobUri") or "")
    if not url.startswith("https://"):
        return ""
    # The URL itself grants read access for some minutes: send no token.
    try:
        answer = requests.get(
            url, timeout=(client.CONNECT_SECONDS, client.READ_SECONDS), verify=client.verify()
        )
    except requests.RequestException:
        raise ResourceError("The boot log can't be fetched from Azure's storage.", "Try it again.") from None
    if answer.status_code == 404:
        return ""  # Nothing was printed yet.
    if not answer.ok:
        raise ResourceError(f"The boot log can't be fetched from Azure's storage ({answer.status_code}).")
    return answer.content.decode(errors="replace").replace("\x00", "")


def _path(arm: Arm, facts: Mapping[str, str], act: str) -> str:
    return f"{kinds.path(arm, facts['group'], kinds.MACHINE, facts['vm'])}/{act}"


def _get(arm: Arm, facts: Mapping[str, str], name: str) -> Thing:
    found = get(arm, facts["group"], facts["vm"])
    if found is None:
        raise ResourceError(
            f"The VM {facts['vm']} is gone.", f"`{typed('deploy', name)}` makes another, on its data disk."
        )
    return found
