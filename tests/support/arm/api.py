"""The addresses of the API: from a path to the handler, and to the right that it takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from support.arm import compute, inventory, refusals
from support.arm.addresses import PublicAddress
from support.arm.disks import DISK
from support.arm.firewalls import SecurityGroup, SecurityRule
from support.arm.ids import Id, parse, split
from support.arm.interfaces import Interface
from support.arm.kinds import GROUP, VERSIONS_OF_ARM, Kind
from support.arm.lifecycle import Lifecycle
from support.arm.machines import MACHINE
from support.arm.machines import VERSIONS as MACHINE_VERSIONS
from support.arm.networking import VERSIONS as NETWORK_VERSIONS
from support.arm.requests import Answer, Request
from support.arm.vnets import Subnet, VirtualNetwork
from support.arm.world import Subscription, World

ARM_ACTION = "Microsoft.Resources/subscriptions"

COMPUTE = "Microsoft.Compute"

VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}


@dataclass(frozen=True)
class Route:
    """Where a request goes.

    Attributes:
        action: the right that it takes, as a role's definition names it.
        scope: what on.
        versions: the api-versions it knows.
    """

    action: str
    scope: str
    handle: Callable[[Request], Answer]
    versions: tuple[str, ...] = VERSIONS_OF_ARM
    type: str = ""


IMAGES = ("artifacttypes", "offers", "skus", "versions")


KINDS: tuple[Kind, ...] = (
    GROUP,
    VirtualNetwork(),
    Subnet(),
    SecurityGroup(),
    SecurityRule(),
    PublicAddress(),
    Interface(),
    MACHINE,
    DISK,
)


class Api:
    """The whole of it."""

    def __init__(self) -> None:
        self.lifecycle = Lifecycle(KINDS)

    def route(self, method: str, path: str, world: World) -> Route:
        """Raises:
        ArmError: there is nothing at the address.
        """
        parts = split(path)
        lower = [part.lower() for part in parts]
        if lower[:1] != ["subscriptions"]:
            raise refusals.NO_TYPE(f"There is nothing at '{path}'.")
        if len(parts) == 1:
            return Route(f"{ARM_ACTION}/read", "/", self._subscriptions)
        one = world.subscriptions.get(lower[1])
        if one is None:
            raise refusals.NO_SUBSCRIPTION(f"The subscription '{parts[1]}' could not be found.")
        scope = f"/subscriptions/{one.id}"
        rest = lower[2:]
        match rest:
            case []:
                return Route(f"{ARM_ACTION}/read", scope, lambda _: Answer(200, inventory.subscription(one)))
            case ["locations"]:
                action = f"{ARM_ACTION}/locations/read"
                return Route(action, scope, lambda request: inventory.locations(request, one))
            case ["resources"]:
                action = f"{ARM_ACTION}/resources/read"
                return Route(action, scope, lambda request: inventory.tracked(request, one.id))
            case ["resourcegroups"]:
                action = f"{ARM_ACTION}/resourceGroups/read"
                return Route(action, scope, lambda request: inventory.groups(request, one.id))
            case ["operationresults", id_]:
                action = f"{ARM_ACTION}/operationresults/read"
                return Route(action, scope, lambda request: inventory.operation_result(request, id_))
            case ["resourcegroups", _, "resources"]:
                group = Id(one.id, parts[3])
                action = f"{ARM_ACTION}/resourceGroups/resources/read"
                return Route(action, str(group), lambda request: self._in_group(request, group))
            case ["resourcegroups", _]:
                return self._whole(method, Id(one.id, parts[3]), GROUP)
            case ["resourcegroups", _, "providers", _, *_]:
                return self._resource(method, one, parts)
            case ["providers", *_]:
                return self._providers(method, one, parts)
        raise refusals.NO_TYPE(f"There is nothing at '{path}'.")

    # What subscriptions have.

    @staticmethod
    def _subscriptions(request: Request) -> Answer:
        return inventory.paged(
            request, [inventory.subscription(one) for one in request.world.subscriptions.values()]
        )

    def _in_group(self, request: Request, group: Id) -> Answer:
        self.lifecycle.existing(request.world, group)
        return inventory.tracked(request, group.subscription, group)

    # Providers.

    def _providers(self, method: str, one: Subscription, parts: list[str]) -> Route:
        scope = f"/subscriptions/{one.id}"
        if len(parts) == 3:

            def every(request: Request) -> Answer:
                return inventory.paged(request, [self._provider(one, name) for name in inventory.NAMESPACES])

            return Route(f"{ARM_ACTION}/providers/read", scope, every)
        namespace = inventory.namespace_of(parts[3])
        rest = [part.lower() for part in parts[4:]]
        match rest:
            case []:
                action = f"{ARM_ACTION}/providers/read"
                return Route(action, scope, lambda _: Answer(200, self._provider(one, namespace)))
            case ["register"]:
                self._only(method, "POST")
                action = f"{namespace}/register/action"
                return Route(action, scope, lambda request: self._register(request, one, namespace))
            case ["skus"] if namespace == COMPUTE:
                return Route(f"{COMPUTE}/skus/read", scope, compute.skus, compute.SKU_VERSIONS)
            case ["locations", place, *what]:
                return self._regional(one, namespace, place, what, parts)
        return self._of_type(one, namespace, parts[4:])

    def _provider(self, one: Subscription, namespace: str) -> dict[str, object]:
        mine = [
            (kind.type.partition("/")[2], kind.versions)
            for kind in self.lifecycle.kinds.values()
            if kind.type.startswith(namespace + "/")
        ]
        return inventory.provider(one, namespace, mine)

    def _register(self, request: Request, one: Subscription, namespace: str) -> Answer:
        """https://learn.microsoft.com/rest/api/resources/providers/register"""
        if one.providers.get(namespace) != "Registered":
            one.providers[namespace] = "Registering"

            def finish() -> None:
                one.providers[namespace] = "Registered"

            request.world.later(finish)
        return Answer(200, self._provider(one, namespace))

    def _of_type(self, one: Subscription, namespace: str, types: list[str]) -> Route:
        kind = self.lifecycle.kind("/".join((namespace, *types)))

        def every(request: Request) -> Answer:
            things = [thing for thing in request.world.of(kind.type) if thing.id.subscription == one.id]
            return inventory.collection(request, things)

        return Route(f"{kind.type}/read", f"/subscriptions/{one.id}", every, kind.versions, kind.type)

    def _regional(
        self, one: Subscription, namespace: str, place: str, what: list[str], parts: list[str]
    ) -> Route:
        location = inventory.regional(place, f"{namespace}/locations")
        scope, action = f"/subscriptions/{one.id}", f"{namespace}/locations"
        versions = self._versions(namespace)
        match what:
            case ["operations" | "diskoperations" as word, id_]:

                def told(request: Request) -> Answer:
                    if request.query.get("monitor"):
                        return inventory.operation_result(request, id_)
                    return inventory.operation_status(request, id_)

                asked = "operations" if word == "operations" else "diskOperations"
                return Route(f"{action}/{asked}/read", scope, told, versions)
            case ["operationresults", id_]:
                return Route(
                    f"{action}/operationResults/read",
                    scope,
                    lambda request: inventory.operation_result(request, id_),
                    versions,
                )
            case ["usages"] if namespace == "Microsoft.Network":
                return Route(
                    f"{action}/usages/read", scope, lambda r: inventory.network_usages(r, location), versions
                )
            case ["checkdnsnameavailability"] if namespace == "Microsoft.Network":
                return Route(
                    f"{action}/checkDnsNameAvailability/read",
                    scope,
                    lambda request: inventory.dns_name_availability(request, location),
                    versions,
                )
            case ["usages"]:
                return Route(f"{action}/usages/read", scope, lambda r: compute.usages(r, location), versions)
            case ["vmsizes"]:
                return Route(f"{action}/vmSizes/read", scope, lambda r: compute.sizes(r, location), versions)
            case ["publishers", *rest] if rest:
                return Route(
                    f"{action}/publishers/{'/'.join(IMAGES[: len(rest) // 2])}/read",
                    scope,
                    lambda request: compute.images(request, location, rest),
                    versions,
                )
        raise refusals.NO_TYPE(f"There is nothing at '/{'/'.join(parts)}'.")

    @staticmethod
    def _versions(namespace: str) -> tuple[str, ...]:
        return {COMPUTE: (*MACHINE_VERSIONS, *DISK.versions)}.get(namespace, NETWORK_VERSIONS)

    # Resources in a group.

    def _resource(self, method: str, one: Subscription, parts: list[str]) -> Route:
        namespace = inventory.namespace_of(parts[5])
        rest = parts[6:]
        if not rest:
            raise refusals.NO_TYPE(f"There is nothing at '/{'/'.join(parts)}'.")
        if len(rest) % 2 == 0:
            id_ = parse("/".join(parts))
            assert id_ is not None
            kind = self.lifecycle.kind("/".join((namespace, *id_.types)))
            types = tuple(kind.type.split("/")[1:])
            return self._whole(method, Id(one.id, id_.group, namespace, types, id_.names), kind)
        if method == "GET" and not rest[-1].lower().endswith("view"):
            return self._listing(one, namespace, parts)
        return self._action(method, one, namespace, parts)

    def _whole(self, method: str, id_: Id, kind: Kind) -> Route:
        handlers: dict[str, Callable[[Request, Id], Answer]] = {
            "GET": self.lifecycle.get,
            "HEAD": self.lifecycle.head,
            "PUT": self.lifecycle.put,
            "PATCH": self.lifecycle.patch,
            "DELETE": self.lifecycle.delete,
        }
        self._only(method, *handlers)
        type_ = f"{ARM_ACTION}/resourceGroups" if kind is GROUP else kind.type
        handle = handlers[method]
        return Route(
            f"{type_}/{VERBS[method]}",
            str(id_),
            lambda request: handle(request, id_),
            kind.versions,
            kind.type,
        )

    def _listing(self, one: Subscription, namespace: str, parts: list[str]) -> Route:
        """`…/networkSecurityGroups`, or `…/networkSecurityGroups/x/securityRules`."""
        rest = parts[6:]
        kind = self.lifecycle.kind("/".join((namespace, *rest[::2])))
        types = tuple(kind.type.split("/")[1:-1])
        owner = Id(one.id, parts[3], namespace if types else "", types, tuple(rest[1::2]))

        def every(request: Request) -> Answer:
            self.lifecycle.existing(request.world, owner)
            things = [thing for thing in request.world.of(kind.type) if thing.id.within(owner)]
            return inventory.collection(request, things)

        return Route(f"{kind.type}/read", str(owner), every, kind.versions, kind.type)

    def _action(self, method: str, one: Subscription, namespace: str, parts: list[str]) -> Route:
        """`…/virtualMachines/x/start`."""
        id_, what = parse("/".join(parts[:-1])), compute.NAMES.get(parts[-1].lower())
        if id_ is None or id_.type.lower() != MACHINE.type.lower() or what is None:
            raise refusals.NO_TYPE(f"There is nothing at '/{'/'.join(parts)}'.")
        self._only(method, "GET" if what == "instanceView" else "POST")

        def handle(request: Request) -> Answer:
            thing = self.lifecycle.existing(request.world, id_)
            return compute.view(request, thing) if method == "GET" else compute.act(request, thing, what)

        verb = "read" if method == "GET" else "action"
        return Route(f"{MACHINE.type}/{what}/{verb}", str(id_), handle, MACHINE.versions, MACHINE.type)

    @staticmethod
    def _only(method: str, *methods: str) -> None:
        if method not in methods:
            raise refusals.NO_METHOD(f"The http method '{method}' is not supported for a resource type.")


VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")


def check_version(request: Request, route: Route) -> None:
    if not request.version:
        raise refusals.NO_VERSION(
            "The api-version query parameter (?api-version=) is required for all requests."
        )
    if route.versions is VERSIONS_OF_ARM:
        if not VERSION.fullmatch(request.version) or request.version < VERSIONS_OF_ARM[0]:
            known = ", ".join(VERSIONS_OF_ARM)
            raise refusals.BAD_VERSION_OF_ARM(
                f"The api-version '{request.version}' is invalid. The supported versions are '{known}'."
            )
    elif request.version not in route.versions:
        type_ = (route.type or route.action).partition("/")[2]
        raise refusals.BAD_VERSION(
            f"No registered resource provider found for location '' and API version '{request.version}' for "
            f"type '{type_}'. The supported api-versions are '{', '.join(route.versions)}'."
        )


def check_writable(request: Request, route: Route) -> None:
    """Before anything is made: the subscription is in order, the provider registered."""
    if request.method in ("GET", "HEAD"):
        return
    one = request.world.subscriptions[split(request.path)[1].lower()]
    if one.state != "Enabled":
        raise refusals.READ_ONLY_SUBSCRIPTION(
            f"The subscription '{one.id}' is disabled and therefore marked as read only. You cannot perform "
            "any write actions on this subscription until it is re-enabled."
        )
    namespace = route.type.partition("/")[0]
    if request.method == "DELETE" or not namespace or namespace == "Microsoft.Resources":
        return
    if one.providers.get(namespace) != "Registered":
        raise refusals.UNREGISTERED(
            f"The subscription is not registered to use namespace '{namespace}'. See "
            "https://aka.ms/rps-not-found for how to register subscriptions."
        )
