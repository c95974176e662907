"""What every kind of resource has in common, and the resource group."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from azure.mgmt.resource.resources import models as resources

from support.arm import refusals, rules
from support.arm.errors import Refusal
from support.arm.ids import RESOURCE_GROUP, Id
from support.arm.world import Link, Thing, World

VERSIONS_OF_ARM = (
    "2020-10-01",
    "2021-01-01",
    "2021-04-01",
    "2022-09-01",
    "2023-07-01",
    "2024-03-01",
    "2024-07-01",
    "2024-11-01",
    "2025-03-01",
    "2025-04-01",
)
"""Of resource groups, as the page of azure-native's ResourceGroup lists them."""


class Kind:
    """A kind of resource.

    Attributes:
        type: as in an id.
        model, update: Microsoft's models of the bodies of PUT and PATCH.
        names: what its names may be.
        versions: the api-versions it knows.
        dialect: how a wrong body is refused.
        children: the kinds below it, by the property that has them in its own body.
        keeps_children_from: the api-version from which on a body without that property leaves them alone.
        tracked: whether it has a location and tags.
        asynchronous, patched_at_once: whether a PUT takes its time; whether a PATCH does not.
        accepted: the status of the answer to a PUT, where it is not 201 (made) or 200 (changed).
    """

    type: ClassVar[str]
    model: ClassVar[type]
    update: ClassVar[type]
    names: ClassVar[rules.Names]
    versions: ClassVar[tuple[str, ...]]
    dialect: ClassVar[Refusal]
    children: ClassVar[Mapping[str, str]] = {}
    keeps_children_from: ClassVar[str] = "never"
    tracked: ClassVar[bool] = True
    etagged: ClassVar[bool] = False
    making: ClassVar[str] = "Creating"
    changing: ClassVar[str] = "Updating"
    asynchronous: ClassVar[bool] = True
    patched_at_once: ClassVar[bool] = False
    accepted: ClassVar[int | None] = None

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        """Refuse what Azure would, and fill in what Azure fills in.

        Raises:
            ArmError: what is wrong with it.
        """

    def put(self, world: World, id_: Id, body: Mapping[str, Any]) -> None:
        """Refuse what Azure refuses of the body of a PUT, and not of a PATCH.

        Raises:
            ArmError: what is wrong with it.
        """

    def settled(self, world: World, thing: Thing, old: Thing | None) -> None:
        """The operation that made or changed it is over."""

    def abandoned(self, world: World, thing: Thing, old: Thing | None) -> None:
        """The operation that was to make or change it has failed."""

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        """Refuse to delete it, where something that stays uses it.

        Args:
            going: what is deleted with it: itself, or its group.
        """

    def removed(self, world: World, thing: Thing) -> None:
        """It is about to be forgotten: take along what goes with it."""

    def links(self, thing: Thing) -> Iterator[Link]:
        """What it uses."""
        return iter(())

    def refresh(self, world: World, thing: Thing, properties: dict[str, Any]) -> None:
        """Add to an answer what is known only by looking at others."""

    def written(self, thing: Thing) -> dict[str, Any]:
        """Its properties as a customer would send them, for a PATCH to change."""
        return copy.deepcopy(thing.properties)

    def view(self, world: World, thing: Thing, **_: Any) -> dict[str, Any]:
        """What a GET answers."""
        properties = copy.deepcopy(thing.properties)
        properties["provisioningState"] = thing.state
        self.refresh(world, thing, properties)
        told: dict[str, Any] = {"name": thing.id.name, "id": str(thing.id), "type": self.type}
        if self.etagged:
            told["etag"] = f'W/"{thing.etag}"'
        if thing.location is not None:
            told["location"] = thing.location
        if thing.tags is not None:
            told["tags"] = dict(thing.tags)
        return {**told, **copy.deepcopy(thing.top), "properties": properties}

    def item(self, thing: Thing) -> dict[str, Any]:
        """What a listing of all resources has of it.

        https://learn.microsoft.com/rest/api/resources/resources/list
        """
        told = {"id": str(thing.id), "name": thing.id.name, "type": self.type, "location": thing.location}
        if thing.tags:
            told["tags"] = dict(thing.tags)
        return {
            **told,
            **{name: thing.top[name] for name in ("sku", "zones", "managedBy") if name in thing.top},
        }


class Group(Kind):
    """https://learn.microsoft.com/rest/api/resources/resource-groups"""

    type = RESOURCE_GROUP
    model = resources.ResourceGroup
    update = resources.ResourceGroupPatchable
    names = rules.GROUP_NAMES
    versions = VERSIONS_OF_ARM
    dialect = refusals.BAD_JSON
    asynchronous = False

    def accept(self, world: World, thing: Thing, old: Thing | None) -> None:
        if old is not None and rules.region(thing.location or "") != old.location:
            raise refusals.MOVED_GROUP(
                f"Invalid resource group location '{thing.location}'. The Resource group already exists in "
                f"location '{old.location}'."
            )

    def removable(self, world: World, thing: Thing, going: Id) -> None:
        blocked = []
        for inner in world.below(thing.id):
            users = [link for link in world.users(inner.id) if not link.owner.within(thing.id)]
            if users:
                blocked.append(inner)
        if blocked:
            named = ",".join(f"{inner.id.type}/{inner.id.name}" for inner in blocked)
            raise refusals.GROUP_STAYS(
                f"Deletion of resource group '{thing.id.name}' failed as resources with identifiers "
                f"'{named}' could not be deleted. The provisioning state of the resource group will be "
                "rolled back."
            )


GROUP = Group()


def properties_of(body: Mapping[str, Any]) -> dict[str, Any]:
    return dict(body.get("properties") or {})


def reference(value: Any) -> str | None:
    """The id in a `{"id": …}`."""
    return value.get("id") if isinstance(value, Mapping) else None
