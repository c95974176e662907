"""What there is, seen past the API: for tests, and for who plays the hypervisor."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from typing import Any

from support.arm.addresses import PublicAddress
from support.arm.ids import parse
from support.arm.interfaces import Interface
from support.arm.machines import TYPE as MACHINES
from support.arm.world import Thing, World


@dataclass(frozen=True)
class Machine:
    """A VM, as a hypervisor would want to know it.

    Attributes:
        id: of the resource; `vm_id` is another one's when the VM was replaced under the same name.
        power: `running`, `stopped`, `deallocated`, or `starting` before the first.
        boots: how often it was started.
        custom_data: the bytes that it finds at its first boot.
        public, private: its addresses; the first is empty where it has none.
        disks: ids of the data disks, by LUN.
    """

    id: str
    vm_id: str
    power: str
    boots: int
    size: str
    user: str
    custom_data: bytes
    public: str
    private: str
    disks: dict[int, str]


class Things:
    """All of it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _all(self) -> list[Thing]:
        with self._world.lock:
            self._world.settle()
            return list(self._world.things.values())

    def snapshot(self) -> dict[str, list[str]]:
        """All there is, ours or not: ids by type."""
        found: dict[str, list[str]] = {}
        for thing in self._all():
            found.setdefault(thing.kind.type, []).append(str(thing.id))
        return {type_: sorted(ids) for type_, ids in sorted(found.items())}

    def all(self, type_: str = "") -> list[dict[str, Any]]:
        """What a GET of each of a type (of all) would answer."""
        things = [thing for thing in self._all() if not type_ or thing.kind.type.lower() == type_.lower()]
        with self._world.lock:
            return [thing.kind.view(self._world, thing) for thing in things]

    def tagged(self, name: str, value: str | None = None) -> list[dict[str, Any]]:
        """Those that have a tag; with a value, or with any."""
        return [
            row
            for row in self.all()
            if name in (row.get("tags") or {}) and value in (None, row["tags"][name])
        ]

    def count(self, name: str, value: str | None = None) -> Counter[str]:
        """How many of each type have a tag."""
        return Counter(str(row["type"]) for row in self.tagged(name, value))

    def one(self, type_: str) -> dict[str, Any]:
        """The only one of a type."""
        rows = self.all(type_)
        assert len(rows) == 1, rows
        return rows[0]

    def machines(self) -> list[Machine]:
        """The VMs whose creation is over."""
        found = [thing for thing in self._all() if thing.kind.type == MACHINES and thing.state != "Creating"]
        with self._world.lock:
            return [self._machine(thing) for thing in found]

    def console(self, id_: str, text: bytes) -> None:
        """What a VM has written to its serial console so far."""
        with self._world.lock:
            self._thing(id_).hidden["console"] = text

    def power(self, id_: str, state: str) -> None:
        """What a VM has done by itself: `stopped` when it was shut down from within."""
        with self._world.lock:
            self._thing(id_).hidden["power"] = state

    def remove(self, id_: str) -> None:
        """As somebody does who deletes it in the portal, whatever uses it."""
        with self._world.lock:
            thing = self._thing(id_)
            self._world.things.pop(thing.id.key)
            thing.kind.removed(self._world, thing)
            self._world.remove(thing.id)

    def _thing(self, id_: str) -> Thing:
        thing = self._world.get(id_)
        assert thing is not None, id_
        return thing

    def _machine(self, thing: Thing) -> Machine:
        properties, hidden = thing.properties, thing.hidden
        public, private = self._addresses(properties)
        return Machine(
            str(thing.id),
            thing.guid,
            str(hidden["power"]),
            int(hidden.get("boots", 0)),
            str(properties["hardwareProfile"]["vmSize"]),
            str(properties["osProfile"]["adminUsername"]),
            base64.b64decode(hidden.get("customData", "")),
            public,
            private,
            {one["lun"]: one["managedDisk"]["id"] for one in properties["storageProfile"]["dataDisks"]},
        )

    def _addresses(self, properties: dict[str, Any]) -> tuple[str, str]:
        public = private = ""
        for reference in properties["networkProfile"]["networkInterfaces"]:
            nic = self._world.get(reference["id"])
            if nic is None or not isinstance(nic.kind, Interface):
                continue
            for one in nic.properties["ipConfigurations"]:
                private = private or one["properties"]["privateIPAddress"]
                target = parse((one["properties"].get("publicIPAddress") or {}).get("id", ""))
                address = self._world.get(target) if target else None
                if address is not None and isinstance(address.kind, PublicAddress):
                    public = public or address.properties["ipAddress"]
        return public, private
