"""Microsoft.Compute's disks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azure.mgmt.compute import models as compute

from support.arm import refusals, rules
from support.arm.ids import Id
from support.arm.kinds import Kind, properties_of
from support.arm.world import Link, Thing, World

VERSIONS = ("2022-07-02", "2023-01-02", "2023-04-02", "2023-10-02", "2024-03-02", "2025-01-02", "2026-03-02")
"""As the page of azure-native's Disk lists them."""

MOST = 32767
"""GiB. https://learn.microsoft.com/azure/virtual-machines/disks-types"""

OWNED = "LastOwnershipUpdateTime"
"""When the disk was last attached or detached, spelled as the page of disks does."""

TYPE = "Microsoft.Compute/disks"


class Disk(Kind):
    """https://learn.microsoft.com/rest/api/compute/disks"""

    type = TYPE
    model = compute.Disk
    update = compute.DiskUpdate
    names = rules.DISK_NAMES
    versions = VERSIONS
    dialect = refusals.BAD_BODY_OF_COMPUTE
    accepted = 202

    def put(self, world: World, id_: Id, body: Mapping[str, Any]) -> None:
        """The source of a copy is looked at each time that it is sent, though the disk be long made
        (https://github.com/kubernetes/kubernetes/issues/93020)."""
        source = (properties_of(body).get("creationData") or {}).get("sourceResourceId")
        if source and world.get(source) is None:
            raise refusals.NO_LINKED_RIGHT(
                f"The client has permission to perform action '{TYPE}/write' on scope '{id_}'; however, it "
                f"does not have permission to perform action '{TYPE}/beginGetAccess/action' on the linked "
                f"scope(s) '{source}' or the linked scope(s) are invalid."
            )

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        properties = thing.properties
        creation = properties.setdefault("creationData", {})
        size = properties.get("diskSizeGB")
        if str(creation.get("createOption", "")).lower() == "empty" and size is None:
            raise refusals.DISK_NO_SIZE(
                "Required parameter 'disk.diskSizeGB' is missing (null).", "disk.diskSizeGB"
            )
        if size is not None and not 1 <= size <= MOST:
            raise refusals.DISK_NO_SIZE(
                f"The value '{size}' of parameter 'disk.diskSizeGB' is out of range: 1 to {MOST}.",
                "disk.diskSizeGB",
            )
        if old is not None:
            self._changed(thing, old)
        sku = thing.top.setdefault("sku", {"name": "Standard_LRS"})
        sku.setdefault("tier", str(sku["name"]).split("_")[0])
        thing.top.pop("managedBy", None)
        properties.setdefault("encryption", {"type": "EncryptionAtRestWithPlatformKey"})
        properties.setdefault("networkAccessPolicy", "AllowAll")
        properties.setdefault("publicNetworkAccess", "Enabled")
        properties.setdefault("dataAccessAuthMode", "None")
        properties["timeCreated"] = thing.made
        properties["uniqueId"] = thing.guid
        if old is not None and OWNED in old.properties:
            properties[OWNED] = old.properties[OWNED]
        if size is not None:
            properties["diskSizeBytes"] = size << 30

    @staticmethod
    def _changed(thing: Thing, old: Thing) -> None:
        properties = thing.properties
        if (properties.get("diskSizeGB") or MOST) < (old.properties.get("diskSizeGB") or 0):
            raise refusals.DISK_SHRUNK(
                f"Disk {thing.id.name} can't be made smaller: its size is {old.properties['diskSizeGB']} "
                "GB, and shrinking an existing disk isn't supported.",
                "disk.diskSizeGB",
            )
        was = old.properties["creationData"].get("createOption")
        now = properties["creationData"].setdefault("createOption", was)
        if str(was).lower() != str(now).lower():
            raise refusals.FIXED_PROPERTY(
                "Changing property 'disk.creationData.createOption' is not allowed.",
                "disk.creationData.createOption",
            )
        # https://github.com/ansible/ansible/issues/38883
        if _source(properties) != _source(old.properties):
            raise refusals.FIXED_PROPERTY("Changing property 'creationData' is not allowed.", "creationData")
        if properties.get("diskSizeGB") is None and old.properties.get("diskSizeGB") is not None:
            properties["diskSizeGB"] = old.properties["diskSizeGB"]

    def owner(self, world: World, thing: Thing) -> Link | None:
        return next(iter(world.users(thing.id)), None)

    def refresh(self, world: World, thing: Thing, properties: dict[str, Any]) -> None:
        owner = self.owner(world, thing)
        machine = world.get(owner.owner) if owner else None
        power = machine.hidden.get("power") if machine else None
        properties["diskState"] = {None: "Unattached", "deallocated": "Reserved"}.get(power, "Attached")

    def view(self, world: World, thing: Thing, **how: Any) -> dict[str, Any]:
        told = super().view(world, thing, **how)
        owner = self.owner(world, thing)
        return {**told, "managedBy": str(owner.owner)} if owner else told

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        owner = self.owner(world, thing)
        if owner is not None and not owner.owner.within(going):
            raise refusals.DISK_IN_USE(f"Disk {thing.id.name} is attached to VM {owner.owner}.")


def _source(properties: Mapping[str, Any]) -> str:
    return str((properties.get("creationData") or {}).get("sourceResourceId") or "").lower()


DISK = Disk()
