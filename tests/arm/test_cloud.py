"""What the hypervisor is told of the VMs."""

from __future__ import annotations

import pytest

from support.arm import Arm
from support.arm.sites import CUSTOM_DATA, Site
from support.azure_cloud import AzureCloud
from support.hypervisor import Power
from support.workers import AZURE_NETWORK, public_address

pytestmark = pytest.mark.tier("deep", proves=("arm",))


def test_a_machine_is_wanted_until_it_is_gone(site: Site, arm: Arm) -> None:
    cloud = AzureCloud(arm)
    assert cloud.wanted() == []
    site.whole()
    (wanted,) = cloud.wanted()
    assert (wanted.power, wanted.address, wanted.user_data) == (
        Power.ON,
        public_address(AZURE_NETWORK, 0),
        CUSTOM_DATA,
    )
    assert wanted.disks == {"/dev/disk/azure/scsi1/lun0": site.id("disks", "data")}
    path = site.path("virtualMachines", "vm")
    site.customer.done(site.customer.send("POST", f"{path}/deallocate"))
    assert [one.power for one in cloud.wanted()] == [Power.OFF]
    site.customer.drop(path)
    assert [(one.identity, one.power) for one in cloud.wanted()] == [(wanted.identity, Power.GONE)]
    # Another one of that name is another machine.
    site.make("virtualMachines", "vm", site.machine_body("nic", "data"))
    assert [one.power for one in cloud.wanted()] == [Power.ON, Power.GONE]


def test_a_machine_that_is_still_being_made_is_not_wanted(site: Site, arm: Arm) -> None:
    site.vnet()
    site.interface()
    arm.lasts = 60
    site.put("virtualMachines", "vm", site.machine_body())
    assert AzureCloud(arm).wanted() == []
