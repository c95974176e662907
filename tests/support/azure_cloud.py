"""Azure as the hypervisor asks it: which VMs there are, what each is told, and which disks it has."""

from __future__ import annotations

from collections.abc import Sequence

from support.arm import Arm
from support.arm.things import Machine
from support.hypervisor import Power, Wanted


class AzureCloud:
    """The VMs of the tests' own Azure."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self._seen: set[str] = set()

    def wanted(self) -> Sequence[Wanted]:
        machines = self._arm.things().machines()
        there = {machine.vm_id for machine in machines}
        self._seen |= there
        gone = [Wanted(vm_id, Power.GONE, "", b"") for vm_id in sorted(self._seen - there)]
        return [*(_wanted(machine) for machine in machines), *gone]


def _wanted(machine: Machine) -> Wanted:
    return Wanted(
        # Not the resource's id: a VM that was replaced under its name is another machine.
        machine.vm_id,
        Power.ON if machine.power == "running" else Power.OFF,
        machine.public,
        machine.custom_data,
        {by_lun(lun): disk for lun, disk in machine.disks.items()},
    )


def by_lun(lun: int) -> str:
    """The name that the udev rules of Azure's agent give to a data disk.

    https://learn.microsoft.com/azure/virtual-machines/linux/azure-to-guest-disk-mapping
    """
    return f"/dev/disk/azure/scsi1/lun{lun}"
