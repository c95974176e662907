"""PUT, GET, PATCH and DELETE of a resource of any kind."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from support.arm import refusals, rules
from support.arm.errors import ArmError
from support.arm.ids import Id
from support.arm.kinds import GROUP, Kind
from support.arm.requests import Answer, Request
from support.arm.world import Thing, World

BESIDE = ("id", "name", "type", "location", "tags", "properties", "etag")
"""What a body has that is no part of `Thing.top`."""


class Lifecycle:
    """The kinds that there are, and what may be done with each."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = {kind.type.lower(): kind for kind in kinds}

    def kind(self, type_: str) -> Kind:
        kind = self.kinds.get(type_.lower())
        if kind is None:
            namespace, _, name = type_.partition("/")
            raise refusals.NO_TYPE(
                f"The resource type '{name}' could not be found in the namespace '{namespace}' for api "
                "version."
            )
        return kind

    # Reading.

    def existing(self, world: World, id_: Id) -> Thing:
        thing = world.get(id_)
        if thing is None:
            raise self.missing(world, id_)
        return thing

    def missing(self, world: World, id_: Id) -> ArmError:
        """The error that says so: the topmost thing that isn't there decides."""
        if world.get(Id(id_.subscription, id_.group)) is None:
            return refusals.NO_GROUP(f"Resource group '{id_.group}' could not be found.")
        if len(id_.types) > 1 and world.get(id_.parent) is not None:
            return refusals.NO_CHILD(f"Resource {id_} not found.")
        top = Id(id_.subscription, id_.group, id_.namespace, id_.types[:1], id_.names[:1])
        return refusals.NO_RESOURCE(
            f"The Resource '{top.type}/{top.name}' under resource group '{id_.group}' was not found. For "
            "more details please go to https://aka.ms/ARMResourceNotFoundFix"
        )

    def get(self, request: Request, id_: Id) -> Answer:
        thing = self.existing(request.world, id_)
        body = thing.kind.view(request.world, thing, expand=request.query.get("$expand", ""))
        return Answer(200, body, self._etag(thing))

    def head(self, request: Request, id_: Id) -> Answer:
        return Answer(204 if request.world.get(id_) else 404)

    @staticmethod
    def _etag(thing: Thing) -> dict[str, str]:
        return {"ETag": f'W/"{thing.etag}"'} if thing.kind.etagged else {}

    # Writing.

    def put(self, request: Request, id_: Id) -> Answer:
        world, kind, body = request.world, self.kind(id_.type), request.body()
        self._may_write(world, id_)
        kind.names.check(id_.name)
        rules.check_body(body, kind.model, kind.dialect)
        old = world.get(id_)
        self._conditions(request, old)
        self._named(kind, id_, body)
        self._located(world, kind, id_, body, old)
        rules.check_tags(body.get("tags"))
        self._free(world, id_, old)
        kind.put(world, id_, body)
        return self._store(request, kind, id_, body, old)

    def patch(self, request: Request, id_: Id) -> Answer:
        world, kind, body = request.world, self.kind(id_.type), request.body()
        old = self.existing(world, id_)
        self._may_write(world, id_)
        rules.check_body(body, kind.update, kind.dialect)
        self._conditions(request, old)
        rules.check_tags(body.get("tags"))
        self._free(world, id_, old)
        whole = {
            **old.top,
            "location": old.location,
            "tags": old.tags,
            "properties": old.kind.written(old),
        }
        merged = _merged(whole, body)
        if "tags" in body:
            # Of tags a PATCH gives all, as PUT does.
            merged["tags"] = body["tags"]
        return self._store(request, kind, id_, {k: v for k, v in merged.items() if v is not None}, old)

    def _store(
        self, request: Request, kind: Kind, id_: Id, body: dict[str, Any], old: Thing | None
    ) -> Answer:
        world = request.world
        before, linked = dict(world.things), set(world.links())
        try:
            thing, made = self._place(request, kind, id_, body, old)
        except ArmError:
            world.things = before
            raise
        made += [each for key, each in world.things.items() if key not in before and each not in made]
        # Whom a thing is used by is part of it: Azure counts that as a new version of it.
        for link in set(world.links()) ^ linked:
            world.touch(link.target)
        for each in made:
            each.state = kind.changing if old else kind.making

        def finish() -> None:
            for each in made:
                each.state = "Succeeded"
                each.kind.settled(world, each, before.get(each.id.key))

        def abandon() -> None:
            for each in made:
                # What was made beside it (a machine's disk) is there.
                each.state = "Failed" if each is thing or each.id.within(thing.id) else "Succeeded"
                each.kind.abandoned(world, each, before.get(each.id.key))

        if not kind.asynchronous or (request.method == "PATCH" and kind.patched_at_once):
            finish()
            return Answer(200 if old else 201, kind.view(world, thing))
        operation = world.start(thing, finish, abandon=abandon, error=request.late)
        headers = request.follow(operation, id_.subscription, location=kind.accepted == 202)
        status = kind.accepted or (200 if old else 201)
        return Answer(status, kind.view(world, thing), {**headers, **self._etag(thing)})

    def _place(
        self, request: Request, kind: Kind, id_: Id, body: dict[str, Any], old: Thing | None
    ) -> tuple[Thing, list[Thing]]:
        """Put it and its inner ones where they belong, or raise."""
        world = request.world
        body = copy.deepcopy(body)
        properties = body.get("properties") or {}
        inner: dict[str, list[dict[str, Any]]] = {}
        for name in kind.children:
            items = properties.pop(name, None)
            if items is None and request.version >= kind.keeps_children_from:
                continue
            inner[name] = items or []
        thing = self._draft(kind, id_, body, old)
        for name, items in inner.items():
            self._drop(world, thing, kind.children[name], items)
        self._link(request, thing)
        kind.accept(world, thing, old)
        world.add(thing)
        made = [thing]
        for name, items in inner.items():
            for item in items:
                made.append(self._child(request, thing, kind.children[name], item))
        return thing, made

    @staticmethod
    def _draft(kind: Kind, id_: Id, body: dict[str, Any], old: Thing | None) -> Thing:
        thing = Thing(
            old.id if old else id_,
            kind,
            rules.region(body["location"]) if body.get("location") else None,
            body.get("tags"),
            {name: value for name, value in body.items() if name not in BESIDE},
            body.get("properties") or {},
        )
        if old:
            thing.guid, thing.made, thing.hidden = old.guid, old.made, dict(old.hidden)
        return thing

    def _child(self, request: Request, owner: Thing, type_: str, item: dict[str, Any]) -> Thing:
        if not item.get("name"):
            raise owner.kind.dialect(
                "Cannot parse the request.", None, [("MissingName", f"{type_} need names.")]
            )
        id_ = owner.id.child(type_, item["name"])
        kind = self.kind(id_.type)
        kind.names.check(id_.name)
        if any(one.id.key == id_.key and one.etag == owner.etag for one in request.world.below(owner.id)):
            raise refusals.SAME_NAMES(
                f"Resource {owner.id} has two child resources with the same name ({id_.name})."
            )
        old = request.world.get(id_)
        child = self._draft(kind, id_, item, old)
        child.etag = owner.etag
        self._link(request, child)
        kind.accept(request.world, child, old)
        request.world.add(child)
        return child

    @staticmethod
    def _drop(world: World, owner: Thing, type_: str, items: list[dict[str, Any]]) -> None:
        """Those inner ones that a new body does not have."""
        kept = {str(item.get("name", "")).lower() for item in items}
        for child in world.children(owner.id, type_):
            if child.id.name.lower() not in kept:
                child.kind.removable(world, child, child.id)
                world.remove(child.id)

    @staticmethod
    def _link(request: Request, thing: Thing) -> None:
        """Look at what it uses: there, in its region, and ready."""
        world = request.world
        location = thing.location or world.location_of(thing.id.parent)
        for link in thing.kind.links(thing):
            target = world.get(link.target)
            if target is None or world.location_of(target.id) != location:
                raise refusals.NO_REFERENCE(
                    f"Resource {link.target} referenced by resource {thing.id} was not found. Please make "
                    "sure that the referenced resource exists, and that both resources are in the same "
                    "region."
                )
            request.link(link.action, link.target, thing.id)
            if target.state != "Succeeded" and not target.id.within(thing.id):
                told = (
                    f"Cannot proceed with operation because resource {target.id} used by resource {thing.id} "
                    f"is not in Succeeded state. Resource is in {target.state} state and the last operation "
                    "that updated/is updating the resource is PutOperation."
                )
                raise refusals.UNREADY_REFERENCE(
                    "A retryable error occurred.",
                    details=[("ReferencedResourceNotProvisioned", told)],
                    Retry_After="1",
                )

    # Deleting.

    def delete(self, request: Request, id_: Id) -> Answer:
        world = request.world
        thing = world.get(id_)
        if thing is None:
            if (id_.types and world.get(Id(id_.subscription, id_.group)) is None) or not id_.types:
                raise self.missing(world, id_)
            return Answer(204)
        if not thing.going:
            if thing.kind is not GROUP:
                self._free(world, id_, thing)
                thing.kind.removable(world, thing, id_)
            self._conditions(request, thing)
            thing.state = "Deleting"
        return Answer(
            202, None, request.follow(self._forget(request, thing), id_.subscription, location=True)
        )

    def _forget(self, request: Request, thing: Thing) -> Any:
        world = request.world

        def finish() -> None:
            if world.get(thing.id) is not thing:
                return
            thing.kind.removable(world, thing, thing.id)
            used = [
                link.target for link in world.links() if f"{link.owner.key}/".startswith(f"{thing.id.key}/")
            ]
            thing.kind.removed(world, thing)
            world.remove(thing.id)
            for target in used:
                world.touch(target)

        def abandon() -> None:
            thing.state = "Succeeded" if thing.kind is GROUP else "Failed"

        return world.start(thing, finish, abandon=abandon, error=request.late)

    # What is asked first.

    def _may_write(self, world: World, id_: Id) -> None:
        group = world.get(Id(id_.subscription, id_.group))
        if group is not None and group.going:
            raise refusals.GROUP_GOES(
                f"The resource group '{id_.group}' is in deprovisioning state and cannot perform this "
                "operation."
            )
        if not id_.types:
            return
        if group is None:
            raise refusals.NO_GROUP(f"Resource group '{id_.group}' could not be found.")
        if len(id_.types) > 1 and world.get(id_.parent) is None:
            raise refusals.NO_PARENT(
                f"Failed to perform 'write' on resource(s) of type '{id_.type.partition('/')[2]}', because "
                f"the parent resource '{id_.parent}' could not be found."
            )

    @staticmethod
    def _conditions(request: Request, old: Thing | None) -> None:
        matches, none = request.headers.get("If-Match"), request.headers.get("If-None-Match")
        wrong = matches and (old is None or (matches != "*" and old.etag not in matches))
        if wrong or (none == "*" and old is not None):
            raise refusals.CHANGED(
                "A precondition in one of the request's headers is not met (etags, or existence)."
            )

    @staticmethod
    def _named(kind: Kind, id_: Id, body: Mapping[str, Any]) -> None:
        named = body.get("name")
        if named is not None and str(named).lower() != id_.name.lower():
            raise refusals.NAME_MISMATCH(
                f"The request content was invalid: the resource's name '{named}' is not the one in the "
                f"address, '{id_.name}'."
            )

    @staticmethod
    def _located(world: World, kind: Kind, id_: Id, body: Mapping[str, Any], old: Thing | None) -> None:
        if not kind.tracked:
            return
        location = body.get("location")
        if not location:
            raise refusals.NO_LOCATION("The location property is required for this definition.")
        if kind is GROUP and rules.region(location) not in rules.LOCATIONS:
            raise refusals.BAD_LOCATION_OF_GROUP(
                f"The provided location '{location}' is not available for resource group. List of available "
                f"regions is '{','.join(rules.LOCATIONS)}'."
            )
        rules.check_region(location, kind.type)
        if old is not None and kind is not GROUP and old.location != rules.region(location):
            raise refusals.MOVED(
                f"The resource '{id_.name}' already exists in location '{old.location}' in resource group "
                f"'{id_.group}'. A resource with the same name cannot be created in location '{location}'. "
                "Please select a new resource name."
            )

    @staticmethod
    def _free(world: World, id_: Id, old: Thing | None) -> None:
        """One operation at a time on a resource, and on a child's parent."""
        parent = world.get(id_.parent) if len(id_.types) > 1 else None
        siblings = world.below(parent.id) if parent else []
        children = world.below(id_) if old is not None and id_.types else []
        for thing in [old, parent, *siblings, *children]:
            if thing is not None and thing.busy:
                raise refusals.BUSY(
                    "Another operation on this or dependent resource is in progress. To retrieve status of "
                    f"the operation use uri: {thing.id}.",
                    Retry_After="1",
                )


def _merged(old: Any, new: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    merged = copy.deepcopy(old)
    for name, value in new.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
