"""Microsoft.Compute's virtual machines."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from azure.mgmt.compute import models as compute

from support.arm import logins, placement, refusals, rules
from support.arm.catalogue import Image, Size
from support.arm.disks import DISK, OWNED
from support.arm.ids import Id, parse
from support.arm.interfaces import check_reservation
from support.arm.kinds import Kind, reference
from support.arm.operations import timestamp
from support.arm.world import Link, Thing, World

VERSIONS = (
    "2022-08-01",
    "2022-11-01",
    "2023-03-01",
    "2023-07-01",
    "2023-09-01",
    "2024-03-01",
    "2024-07-01",
    "2024-11-01",
    "2025-04-01",
    "2025-11-01",
    "2026-03-01",
    "2026-04-01",
)
"""As the page of azure-native's VirtualMachine lists them; the last is azure-mgmt-compute's own."""

TYPE = placement.MACHINES

SECRET = ("adminPassword", "customData")
"""What no answer shows of an `osProfile`."""

FIXED = ("computerName", "adminUsername", "adminPassword", "customData", "linuxConfiguration")
"""What can't be changed of it. https://learn.microsoft.com/azure/virtual-machines/custom-data"""


class Machine(Kind):
    """https://learn.microsoft.com/rest/api/compute/virtual-machines"""

    type = TYPE
    model = compute.VirtualMachine
    update = compute.VirtualMachineUpdate
    names = rules.VM_NAMES
    versions = VERSIONS
    dialect = refusals.BAD_BODY_OF_COMPUTE

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        properties = thing.properties
        if old is not None:
            self._unchanged(thing, old)
        size = placement.size(world, thing)
        placement.quota(world, thing, size, old)
        if old is None:
            profile = properties.get("osProfile")
            if not profile:
                raise refusals.MISSING_PARAMETER(
                    "Required parameter 'osProfile' is missing (null).", "osProfile"
                )
            logins.check(profile, thing.id.name)
            image = placement.image(thing)
            placement.fits(thing, size, image)
            self._hide(profile, thing)
            self._interfaces(world, thing)
            self._root(world, thing, image)
        else:
            self._interfaces(world, thing)
        self._data(world, thing, size)
        properties["vmId"] = thing.guid
        properties["timeCreated"] = thing.made
        thing.hidden.setdefault("power", "starting")

    # Disks and interfaces.

    def _root(self, world: World, thing: Thing, image: Image) -> None:
        """The disk with the system, which Azure makes with the machine."""
        asked = thing.properties["storageProfile"].setdefault("osDisk", {"createOption": "FromImage"})
        asked.setdefault("name", f"{thing.id.name}_OsDisk_1_{uuid.uuid4().hex}")
        rules.DISK_NAMES.check(asked["name"])
        gigabytes = asked.setdefault("diskSizeGB", image.gigabytes)
        if gigabytes < image.gigabytes:
            raise refusals.SMALL_ROOT(
                f"The specified disk size {gigabytes} GB is smaller than the size of the corresponding disk "
                f"in the VM image: {image.gigabytes} GB. This is not allowed. Please choose equal or "
                "greater size or do not specify an explicit size.",
                "osDisk.diskSizeGB",
            )
        id_ = Id(thing.id.subscription, thing.id.group, "Microsoft.Compute", ("disks",), (asked["name"],))
        if world.get(id_) is not None:
            raise refusals.DISK_EXISTS(
                f"Disk {id_.name} already exists in resource group {id_.group.upper()}. Only "
                "CreateOption.Attach is supported.",
                str(id_),
            )
        managed = asked.setdefault("managedDisk", {})
        sku = managed.setdefault("storageAccountType", "Premium_LRS")
        managed["id"] = str(id_)
        asked.setdefault("caching", "ReadWrite")
        asked.setdefault("deleteOption", "Detach")
        asked["osType"] = "Linux"
        disk = Thing(
            id_,
            DISK,
            thing.location,
            dict(thing.tags) if thing.tags else None,
            {"sku": {"name": sku}},
            {
                "osType": "Linux",
                "hyperVGeneration": image.generation,
                "creationData": {"createOption": "FromImage"},
                "diskSizeGB": gigabytes,
            },
        )
        DISK.accept(world, disk, None)
        world.add(disk)

    @staticmethod
    def _data(world: World, thing: Thing, size: Size) -> None:
        disks = thing.properties.setdefault("storageProfile", {}).setdefault("dataDisks", [])
        if len(disks) > size.disks:
            raise refusals.TOO_MANY_DISKS(
                "The maximum number of data disks allowed to be attached to a VM of this size is "
                f"{size.disks}.",
                "dataDisks",
            )
        luns = [one.get("lun") for one in disks]
        for one in disks:
            if one.get("lun") is None or not 0 <= one["lun"] < 64 or luns.count(one["lun"]) > 1:
                raise refusals.SAME_LUN(
                    f"The value '{one.get('lun')}' of parameter 'dataDisk.lun' is not valid, or is there "
                    "twice.",
                    "dataDisk.lun",
                )
            target = reference(one.get("managedDisk"))
            disk = world.get(target) if target else None
            if disk is None:
                raise refusals.MISSING_PARAMETER(
                    "Required parameter 'dataDisk.managedDisk.id' is missing (null).",
                    "dataDisk.managedDisk.id",
                )
            for link in world.users(disk.id):
                if link.owner.key != thing.id.key:
                    raise refusals.DISK_TAKEN(
                        f"Disk '{disk.id}' cannot be attached as the disk is already owned by VM "
                        f"'{link.owner}'.",
                        str(disk.id),
                    )
            if not world.users(disk.id):
                disk.properties[OWNED] = timestamp()
            if one.setdefault("name", disk.id.name) != disk.id.name:
                Machine._fixed("dataDisk.name")
            one.setdefault("caching", "None")
            one.setdefault("deleteOption", "Detach")
            one["diskSizeGB"] = disk.properties.get("diskSizeGB")
            one["managedDisk"]["storageAccountType"] = disk.top["sku"]["name"]
            one["toBeDetached"] = False

    @staticmethod
    def _interfaces(world: World, thing: Thing) -> None:
        asked = (thing.properties.get("networkProfile") or {}).get("networkInterfaces") or []
        if not asked:
            raise refusals.MISSING_PARAMETER(
                "Virtual machine must have at least one network interface: "
                "'networkProfile.networkInterfaces' is missing.",
                "networkProfile.networkInterfaces",
            )
        for one in asked:
            nic = world.get(str(one.get("id")))
            for link in world.users(nic.id) if nic else ():
                if link.owner.key != thing.id.key:
                    raise refusals.NIC_TAKEN(
                        f"Network Interface {link.target} is used by existing resource {link.owner}."
                    )
            if nic:
                check_reservation(world, nic, thing.id)

    # Changes.

    @staticmethod
    def _hide(profile: dict[str, Any], thing: Thing) -> None:
        for name in SECRET:
            if name in profile:
                thing.hidden[name] = profile.pop(name)
        profile.setdefault("computerName", thing.id.name)
        profile.setdefault("secrets", [])
        profile.setdefault("allowExtensionOperations", True)
        linux = profile.setdefault("linuxConfiguration", {"disablePasswordAuthentication": False})
        linux.setdefault("provisionVMAgent", True)
        linux.setdefault("patchSettings", {"patchMode": "ImageDefault", "assessmentMode": "ImageDefault"})

    def _unchanged(self, thing: Thing, old: Thing) -> None:
        """What was fixed at the creation is as it was, or left out."""
        before, now = old.properties["osProfile"], thing.properties.get("osProfile") or {}
        for name in FIXED:
            was = old.hidden.get(name) if name in SECRET else before.get(name)
            if now.get(name) is not None and not _within(now[name], was):
                self._fixed(f"osProfile.{name}" if name != "linuxConfiguration" else name)
        thing.properties["osProfile"] = copy.deepcopy(before)
        storage = thing.properties.setdefault("storageProfile", {})
        was = old.properties["storageProfile"]
        image, root = storage.get("imageReference"), storage.get("osDisk") or {}
        if image and not _within(image, was["imageReference"]):
            self._fixed("imageReference")
        for name in ("name", "createOption", "osType"):
            if root.get(name) and str(root[name]).lower() != str(was["osDisk"].get(name)).lower():
                self._fixed(f"osDisk.{name}")
        if (root.get("diskSizeGB") or MOST) < was["osDisk"]["diskSizeGB"]:
            raise refusals.SMALL_ROOT(
                "A disk of a virtual machine can't be made smaller.", "osDisk.diskSizeGB"
            )
        storage["imageReference"] = copy.deepcopy(was["imageReference"])
        storage["osDisk"] = {**copy.deepcopy(was["osDisk"]), **{k: root[k] for k in CHANGEABLE if k in root}}
        security = thing.properties.get("securityProfile") or {}
        kind = (old.properties.get("securityProfile") or {}).get("securityType")
        if kind and str(security.get("securityType", kind)).lower() != str(kind).lower():
            self._fixed("securityProfile.securityType")
        if old.properties.get("securityProfile"):
            thing.properties["securityProfile"] = {**old.properties["securityProfile"], **security}
        if (thing.top.get("zones") or []) != (old.top.get("zones") or []):
            self._fixed("zones")

    @staticmethod
    def _fixed(name: str) -> None:
        raise refusals.FIXED_PROPERTY(f"Changing property '{name}' is not allowed.", name)

    def settled(self, world: World, thing: Thing, old: Thing | None) -> None:
        resized = old is not None and placement.size_of(old) != placement.size_of(thing)
        power = thing.hidden["power"]
        if power == "starting" or (resized and power == "running"):
            boot(thing)

    def abandoned(self, world: World, thing: Thing, old: Thing | None) -> None:
        if old is None:
            for one in thing.properties["networkProfile"]["networkInterfaces"]:
                world.reserved[one["id"].lower()] = (str(thing.id), world.clock() + world.reserves)

    # Reading.

    def links(self, thing: Thing) -> Iterator[Link]:
        """The root disk and those that are attached, and the interfaces."""
        properties = thing.properties
        for one in (properties.get("networkProfile") or {}).get("networkInterfaces") or []:
            if one.get("id"):
                action = "Microsoft.Network/networkInterfaces/join/action"
                yield Link(str(thing.id), one["id"], action, thing.id)
        storage = properties.get("storageProfile") or {}
        for one in [storage.get("osDisk") or {}, *(storage.get("dataDisks") or [])]:
            target = reference(one.get("managedDisk"))
            if target:
                yield Link(str(thing.id), target, "Microsoft.Compute/disks/write", thing.id)

    def view(self, world: World, thing: Thing, **how: Any) -> dict[str, Any]:
        told = super().view(world, thing, **how)
        told["etag"] = f'"{thing.etag[:8]}"'
        if "instanceview" in str(how.get("expand", "")).lower():
            told["properties"]["instanceView"] = instance_view(thing)
        return told

    def removed(self, world: World, thing: Thing) -> None:
        storage = thing.properties["storageProfile"]
        # It no longer uses them, or they could not go.
        world.things.pop(thing.id.key, None)
        owned(world, thing)
        for one in [storage["osDisk"], *storage["dataDisks"]]:
            if str(one.get("deleteOption", "")).lower() == "delete":
                _remove(world, reference(one["managedDisk"]))
        for one in thing.properties["networkProfile"]["networkInterfaces"]:
            option = (one.get("properties") or {}).get("deleteOption") or ""
            if option.lower() == "delete":
                _remove(world, one["id"])


MOST = 1 << 20

CHANGEABLE = ("deleteOption", "caching", "diskSizeGB", "writeAcceleratorEnabled")
"""Of a root disk that is there."""

MACHINE = Machine()


def _within(new: Any, old: Any) -> bool:
    """Whether what is sent says nothing else than what is there, which may say more."""
    if isinstance(new, Mapping):
        known = old if isinstance(old, Mapping) else {}
        return all(_within(value, known.get(name)) for name, value in new.items() if value is not None)
    if isinstance(new, list):
        return isinstance(old, list) and len(new) == len(old) and all(map(_within, new, old))
    if isinstance(new, str) and isinstance(old, str):
        return new.strip() == old.strip()
    return bool(new == old)


def _remove(world: World, target: str | None) -> None:
    """Something that goes with the machine."""
    id_ = parse(target or "")
    thing = world.get(id_) if id_ else None
    if thing is not None:
        world.things.pop(thing.id.key, None)
        thing.kind.removed(world, thing)


def owned(world: World, thing: Thing) -> None:
    """Note on its disks that they were attached or detached, or that it was started or deallocated."""
    storage = thing.properties["storageProfile"]
    for one in [storage["osDisk"], *storage["dataDisks"]]:
        disk = world.get(str(reference(one["managedDisk"])))
        if disk is not None:
            disk.properties[OWNED] = timestamp()


def boot(thing: Thing) -> None:
    """Have it run, from the start."""
    thing.hidden["power"] = "running"
    thing.hidden["boots"] = thing.hidden.get("boots", 0) + 1


def instance_view(thing: Thing) -> dict[str, Any]:
    """https://learn.microsoft.com/rest/api/compute/virtual-machines/instance-view"""
    state = {"Succeeded": "succeeded", "Creating": "creating", "Updating": "updating", "Deleting": "deleting"}
    power = thing.hidden.get("power", "starting")
    told: dict[str, Any] = {
        "computerName": thing.properties["osProfile"]["computerName"],
        "osName": "debian",
        "hyperVGeneration": "V2",
        "disks": [],
        "statuses": [
            {
                "code": f"ProvisioningState/{state.get(thing.state, 'failed')}",
                "level": "Info",
                "displayStatus": f"Provisioning {state.get(thing.state, 'failed')}",
                "time": timestamp(),
            },
            {"code": f"PowerState/{power}", "level": "Info", "displayStatus": f"VM {power}"},
        ],
    }
    if thing.properties.get("diagnosticsProfile"):
        told["bootDiagnostics"] = {}
    return told
