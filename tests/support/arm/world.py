"""What there is: subscriptions, groups, resources, operations."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.arm.errors import ArmError
from support.arm.ids import Id
from support.arm.operations import Operation, timestamp

if TYPE_CHECKING:
    from support.arm.kinds import Kind

OVER = ("Succeeded", "Failed", "Canceled")


@dataclass
class Thing:
    """A resource, or a group.

    Attributes:
        top: what stands beside the properties (sku, zones…).
        hidden: what no answer shows (custom data, passwords).
    """

    id: Id
    kind: Kind
    location: str | None
    tags: dict[str, str] | None
    top: dict[str, Any]
    properties: dict[str, Any]
    hidden: dict[str, Any] = field(default_factory=dict)
    state: str = "Succeeded"
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    etag: str = field(default_factory=lambda: str(uuid.uuid4()))
    made: str = field(default_factory=timestamp)

    @property
    def busy(self) -> bool:
        return self.state not in OVER

    @property
    def going(self) -> bool:
        return self.state == "Deleting"


@dataclass(frozen=True)
class Link:
    """That a resource uses another one.

    Attributes:
        source: the id that the used one names as its user.
        action: the right that it takes.
    """

    source: str
    target: str
    action: str
    owner: Id


@dataclass
class Subscription:
    id: str
    tenant: str
    state: str = "Enabled"
    providers: dict[str, str] = field(default_factory=dict)


class World:
    """All of it. Whoever touches it holds `lock`.

    Attributes:
        lasts: seconds that an operation takes.
        taken_labels: DNS labels that somebody else has.
        dns_suffix: under which labels have their names; other clouds than the public one have others.
        reserves: seconds for which an interface stays reserved for a VM whose creation failed: 180 in Azure.
        restricted: (region, size) that a subscription can't have now; missing: those that a region never had.
        quotas: limits by (region, name), where they are not the ones that a subscription begins with.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.lasts = 0.0
        self.reserves = 0.0
        self.reserved: dict[str, tuple[str, float]] = {}
        self.taken_labels: set[str] = set()
        self.dns_suffix = "cloudapp.azure.com"
        self.restricted: set[tuple[str, str]] = set()
        self.missing: set[tuple[str, str]] = set()
        self.quotas: dict[tuple[str, str], int] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.things: dict[str, Thing] = {}
        self.operations: dict[str, Operation] = {}
        self.numbers = itertools.count()

    def get(self, id_: Id | str) -> Thing | None:
        return self.things.get(str(id_).lower())

    def add(self, thing: Thing) -> None:
        self.things[thing.id.key] = thing

    def remove(self, id_: Id) -> None:
        """A resource and all that is below it."""
        for thing in self.below(id_):
            self.things.pop(thing.id.key, None)
        self.things.pop(id_.key, None)

    def below(self, id_: Id) -> list[Thing]:
        """What is in a group, or under a resource."""
        return [thing for thing in list(self.things.values()) if thing.id.within(id_)]

    def children(self, id_: Id, type_: str) -> list[Thing]:
        """Those right under it, of a type."""
        prefix, depth = id_.key, len(id_.types) + 1
        return [
            thing
            for thing in self.things.values()
            if thing.id.key.startswith(prefix + "/")
            and len(thing.id.types) == depth
            and thing.id.types[-1].lower() == type_.lower()
        ]

    def of(self, type_: str) -> list[Thing]:
        return [thing for thing in self.things.values() if thing.id.type.lower() == type_.lower()]

    def links(self) -> Iterator[Link]:
        for thing in list(self.things.values()):
            yield from thing.kind.links(thing)

    def users(self, id_: Id) -> list[Link]:
        """The links to it, from outside of what it is made of."""
        return [link for link in self.links() if link.target.lower() == id_.key]

    def touch(self, id_: Id | str) -> None:
        """Have a thing be another version than before, and what it is part of and what is part of it too."""
        thing = self.get(id_)
        if thing is None:
            return
        whole = self.get(thing.id.parent) if len(thing.id.types) > 1 else thing
        if whole is not None:
            etag = str(uuid.uuid4())
            for each in [whole, *self.below(whole.id)]:
                each.etag = etag

    def start(
        self,
        thing: Thing,
        finish: Callable[[], None],
        *,
        abandon: Callable[[], None] = lambda: None,
        result: Callable[[], dict[str, Any] | None] = lambda: None,
        error: ArmError | None = None,
        lasts: float | None = None,
    ) -> Operation:
        """Begin an operation on a resource."""
        seconds = self.lasts if lasts is None else lasts
        operation = Operation(
            thing.id.namespace or "Microsoft.Resources",
            thing.location or self.location_of(thing.id) or "global",
            self.clock() + seconds,
            finish,
            abandon,
            result,
            thing.id.key,
            error=error,
        )
        self.operations[operation.id] = operation
        return operation

    def later(self, finish: Callable[[], None]) -> None:
        """Have something happen after as long as an operation takes, with nothing to ask after."""
        operation = Operation("", "", self.clock() + self.lasts, finish)
        self.operations[operation.id] = operation

    def settle(self) -> None:
        """End the operations whose time has come."""
        now = self.clock()
        for operation in sorted(self.operations.values(), key=lambda one: one.due):
            operation.settle(now)

    def location_of(self, id_: Id) -> str | None:
        """A child's is its parent's."""
        thing: Thing | None = self.get(id_)
        while thing is not None and thing.location is None:
            thing = self.get(thing.id.parent)
        return thing.location if thing else None

    def offers(self, location: str | None, size: str) -> bool:
        return (location, size) not in self.missing

    def is_restricted(self, location: str | None, size: str) -> bool:
        return (location, size) in self.restricted

    def reservation(self, id_: Id, owner: Id | None = None) -> str | None:
        """The VM that an interface is reserved for, where it is another one than its owner-to-be."""
        vm, until = self.reserved.get(id_.key, ("", 0.0))
        mine = owner is not None and owner.key == vm.lower()
        return vm if vm and not mine and self.clock() < until else None

    def quota(self, location: str | None, name: str, usual: int) -> int:
        return self.quotas.get((location or "", name), usual)
