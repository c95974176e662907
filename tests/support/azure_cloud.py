"""Azure as the hypervisor asks it: which VMs there are, what each is told, and which disks it has.

And as the story of a node on a cloud does: with DNS for the labels, and a certificate authority that finds
what has such a name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridup_infra.targets.azure import naming
from support import azure_native
from support.arm import PRINCIPAL, Arm
from support.arm.customer import Customer
from support.arm.things import Machine
from support.cli import Cli
from support.hosts import Hosts
from support.hypervisor import Hypervisor, Power, Wanted
from support.pebble_rig import Pebble, pebble
from support.vm_network import GATEWAY


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

    def printed(self, identity: str, text: str) -> None:
        things = self._arm.things()
        for machine in things.machines():
            if machine.vm_id == identity:
                things.console(machine.id, text.encode())


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


NETWORK, COMPUTE = "Microsoft.Network", "Microsoft.Compute"

ADDRESSES = f"{NETWORK}/publicIPAddresses"

OFF = frozenset(
    {
        f"{COMPUTE}/virtualMachines/deallocate/action",
        f"{COMPUTE}/virtualMachines/delete",
        "Microsoft.Resources/subscriptions/resourceGroups/delete",
    }
)


class AzureTenancy:
    """See `support.tenancy.CloudRig`.

    Args:
        hosts: this machine's DNS for the labels of addresses.
        authority: gives out the certificates for them.
        plugins: a folder with the provider, for PATH.
    """

    words = ("--cloud", "azure", "--region", "westeurope")
    issuer = "Pebble Intermediate CA"
    boot_log = "Unable to locate package no-such-package"

    def __init__(self, arm: Arm, hosts: Hosts, authority: Pebble, plugins: Path) -> None:
        self.arm, self._hosts = arm, hosts
        self._environment = {
            **arm.environment,
            "PATH": os.pathsep.join([str(plugins), os.environ["PATH"]]),
            "GRIDUP_ACME_URL": authority.url,
            "GRIDUP_ACME_CA": str(authority.ca),
        }
        self.machines = AzureCloud(arm)
        self.secrets = (PRINCIPAL.secret,)

    def cli(self, home: Path) -> Cli:
        return Cli(home, dict(self._environment), self._hosts.around)

    def obey(self, hypervisor: Hypervisor) -> None:
        def after(action: str) -> None:
            if action in OFF:
                hypervisor.settle()
            if action == f"{ADDRESSES}/write":
                self._name()

        self.arm.after = after

    def _name(self) -> None:
        """Have the labels of all addresses lead to them."""
        for address in self.arm.things().all(ADDRESSES):
            told = address["properties"]
            self._hosts.add(told["dnsSettings"]["fqdn"], told["ipAddress"])

    def user_data(self, identity: str) -> bytes:
        return self._machine(identity).custom_data

    def address(self) -> str:
        return str(self._address()["ipAddress"])

    def name(self) -> str:
        return str(self._address()["dnsSettings"]["fqdn"])

    def _address(self) -> dict[str, Any]:
        told: dict[str, Any] = self.arm.things().one(ADDRESSES)["properties"]
        return told

    def said(self) -> str:
        return json.dumps([call.body for call in self.arm.calls])

    def marked(self) -> Sequence[str]:
        return [str(row["id"]) for row in self.arm.things().tagged(naming.STACK_ID)]

    def stop(self, identity: str) -> None:
        with Customer(self.arm) as customer:
            customer.done(customer.send("POST", f"{self._machine(identity).id}/deallocate"))

    def delete(self, identity: str) -> None:
        with Customer(self.arm) as customer:
            customer.drop(self._machine(identity).id)

    def _machine(self, identity: str) -> Machine:
        [found] = [one for one in self.arm.things().machines() if one.vm_id == identity]
        return found


@contextmanager
def azure_tenancy(folder: Path, cache: Path) -> Iterator[AzureTenancy]:
    """In an Azure of its own."""
    plugins = folder / "plugins"
    plugins.mkdir()
    azure_native.install(plugins)
    hosts = Hosts(folder / "hosts")
    authority = pebble(cache, folder, find=hosts.find, http=80, https=443, host=GATEWAY)
    with Arm(folder / "arm") as arm, authority as asked:
        yield AzureTenancy(arm, hosts, asked, plugins)
