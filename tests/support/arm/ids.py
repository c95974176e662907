"""Resource ids: read from a path, compared without regard to case, as ARM does."""

from __future__ import annotations

from dataclasses import dataclass

RESOURCE_GROUP = "Microsoft.Resources/resourceGroups"


@dataclass(frozen=True)
class Id:
    """Where a resource is.

    Attributes:
        types, names: the same number of each: a child's parents come first.
    """

    subscription: str
    group: str
    namespace: str = ""
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        path = f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
        if self.types:
            pairs = zip(self.types, self.names, strict=True)
            path += f"/providers/{self.namespace}" + "".join(f"/{type_}/{name}" for type_, name in pairs)
        return path

    @property
    def key(self) -> str:
        return str(self).lower()

    @property
    def type(self) -> str:
        return "/".join((self.namespace, *self.types)) if self.types else RESOURCE_GROUP

    @property
    def name(self) -> str:
        return self.names[-1] if self.names else self.group

    @property
    def parent(self) -> Id:
        """The resource above, or the group."""
        if len(self.types) < 2:
            return Id(self.subscription, self.group)
        return Id(self.subscription, self.group, self.namespace, self.types[:-1], self.names[:-1])

    def child(self, type_: str, name: str) -> Id:
        return Id(self.subscription, self.group, self.namespace, (*self.types, type_), (*self.names, name))

    def within(self, other: Id) -> bool:
        """Whether it is below another one."""
        return self.key.startswith(other.key + "/")


def split(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def parse(path: str) -> Id | None:
    """The id that a text is, if it is one of a group or of a resource in one."""
    parts = split(path)
    if len(parts) < 4 or parts[0].lower() != "subscriptions" or parts[2].lower() != "resourcegroups":
        return None
    if len(parts) == 4:
        return Id(parts[1], parts[3])
    if len(parts) < 8 or len(parts) % 2 or parts[4].lower() != "providers":
        return None
    return Id(parts[1], parts[3], parts[5], tuple(parts[6::2]), tuple(parts[7::2]))
