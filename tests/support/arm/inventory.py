"""Subscriptions, providers, regions, quotas, and listings of all that there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from support.arm import catalogue, refusals, rules
from support.arm.addresses import PublicAddress, dns_name
from support.arm.ids import RESOURCE_GROUP, Id
from support.arm.kinds import GROUP
from support.arm.operations import Operation
from support.arm.requests import Answer, Request
from support.arm.world import Subscription, Thing

NAMESPACES = ("Microsoft.Resources", "Microsoft.Network", "Microsoft.Compute", "Microsoft.Storage")


def paged(request: Request, rows: list[Any]) -> Answer:
    """A page of a listing, with the address of the next one.

    https://learn.microsoft.com/rest/api/azure/#async-operations-throttling-and-paging
    """
    start = int(request.query.get("$skiptoken", "0"))
    body: dict[str, Any] = {"value": rows[start : start + request.page]}
    if start + request.page < len(rows):
        kept = {name: value for name, value in request.query.items() if name != "api-version"}
        body["nextLink"] = request.url(request.path, **{**kept, "$skiptoken": str(start + request.page)})
    return Answer(200, body)


def subscription(one: Subscription) -> dict[str, Any]:
    """https://learn.microsoft.com/rest/api/resources/subscriptions/get"""
    return {
        "id": f"/subscriptions/{one.id}",
        "subscriptionId": one.id,
        "tenantId": one.tenant,
        "displayName": "Gridup's tests",
        "state": one.state,
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
        "authorizationSource": "RoleBased",
    }


def locations(request: Request, one: Subscription) -> Answer:
    """https://learn.microsoft.com/rest/api/resources/subscriptions/list-locations"""
    rows = [
        {
            "id": f"/subscriptions/{one.id}/locations/{name}",
            "name": name,
            "type": "Region",
            "displayName": display,
            "regionalDisplayName": f"({name}) {display}",
            "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
        }
        for name, display in catalogue.LOCATIONS.items()
    ]
    return paged(request, rows)


def provider(
    one: Subscription, namespace: str, types: Iterable[tuple[str, tuple[str, ...]]]
) -> dict[str, Any]:
    """https://learn.microsoft.com/rest/api/resources/providers/get"""
    return {
        "id": f"/subscriptions/{one.id}/providers/{namespace}",
        "namespace": namespace,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": one.providers.get(namespace, "NotRegistered"),
        "resourceTypes": [
            {
                "resourceType": type_,
                "locations": list(catalogue.LOCATIONS.values()),
                "apiVersions": list(reversed(versions)),
            }
            for type_, versions in types
        ],
    }


def namespace_of(text: str) -> str:
    for known in NAMESPACES:
        if known.lower() == text.lower():
            return known
    raise refusals.NO_NAMESPACE(f"The resource namespace '{text}' is invalid.")


FILTER = re.compile(
    r"\s*(tagName|tagValue|resourceType|resourceGroup|name|location)\s+eq\s+'((?:[^']|'')*)'\s*", re.I
)


def filtered(request: Request) -> Callable[[Thing], bool]:
    """What a `$filter` asks for: comparisons that must all hold.

    https://learn.microsoft.com/rest/api/resources/resources/list#uri-parameters
    """
    text = request.query.get("$filter", "")
    if not text:
        return lambda _thing: True
    asked: dict[str, str] = {}
    for part in re.split(r"\s+and\s+", text, flags=re.I):
        match = FILTER.fullmatch(part)
        if not match:
            raise refusals.BAD_FILTER(f"Invalid $filter '{text}' specified in the query string.")
        asked[match[1].lower()] = match[2].replace("''", "'")
    if {"tagname", "tagvalue"} & set(asked) and set(asked) - {"tagname", "tagvalue"}:
        # "You can't use tags with other filters": the page of the listing says so.
        raise refusals.BAD_FILTER(f"Invalid $filter '{text}': tags can't be combined with other properties.")

    def holds(thing: Thing) -> bool:
        tags = {name.lower(): value for name, value in (thing.tags or {}).items()}
        facts = {
            "resourcetype": thing.id.type,
            "resourcegroup": thing.id.group,
            "name": thing.id.name,
            "location": thing.location or "",
        }
        for name, value in asked.items():
            if name == "tagname":
                if value.lower() not in tags:
                    return False
            elif name == "tagvalue":
                if tags.get(asked.get("tagname", "").lower()) != value:
                    return False
            elif facts[name].lower() != value.lower():
                return False
        return True

    return holds


def tracked(request: Request, subscription_: str, group: Id | None = None) -> Answer:
    """All resources of a subscription, or of one group: those with a location, no children."""
    holds = filtered(request)
    rows = [
        thing.kind.item(thing)
        for thing in request.world.things.values()
        if thing.kind is not GROUP
        and thing.kind.tracked
        and thing.id.subscription.lower() == subscription_.lower()
        and (group is None or thing.id.within(group))
        and holds(thing)
    ]
    return paged(request, rows)


def groups(request: Request, subscription_: str) -> Answer:
    """https://learn.microsoft.com/rest/api/resources/resource-groups/list"""
    holds = filtered(request)
    rows = [
        thing.kind.view(request.world, thing)
        for thing in request.world.of(RESOURCE_GROUP)
        if thing.id.subscription.lower() == subscription_.lower() and holds(thing)
    ]
    return paged(request, rows)


def collection(request: Request, things: Iterable[Thing]) -> Answer:
    """Those of one type, whole."""
    return paged(request, [thing.kind.view(request.world, thing) for thing in things])


def usage(name: str, localized: str, current: int, limit: int) -> dict[str, Any]:
    return {
        "unit": "Count",
        "currentValue": current,
        "limit": limit,
        "name": {"value": name, "localizedValue": localized},
    }


def network_usages(request: Request, location: str) -> Answer:
    """https://learn.microsoft.com/rest/api/virtualnetwork/usages/list"""
    have = len([one for one in request.world.of(PublicAddress.type) if one.location == location])
    rows = []
    for name, localized in (
        ("PublicIPAddresses", "Public IP Addresses"),
        ("StandardSkuPublicIpAddresses", "Public IP Addresses - Standard"),
        ("StaticPublicIPAddresses", "Static Public IP Addresses"),
    ):
        rows.append(usage(name, localized, have, request.world.quota(location, name, catalogue.IPS)))
    return paged(request, rows)


def dns_name_availability(request: Request, location: str) -> Answer:
    """https://learn.microsoft.com/rest/api/virtualnetwork/check-dns-name-availability"""
    label = request.query.get("domainNameLabel", "")
    fqdn = f"{label}.{location}.{request.world.dns_suffix}"
    taken = label in request.world.taken_labels
    taken = taken or any(dns_name(one) == fqdn for one in request.world.of(PublicAddress.type))
    return Answer(200, {"available": not taken})


def regional(location: str, what: str) -> str:
    """A region's name in an address."""
    rules.check_region(location, what)
    return rules.region(location)


def operation_status(request: Request, id_: str) -> Answer:
    operation = _operation(request, id_)
    return Answer(200, operation.told(), {} if operation.over else {"Retry-After": str(request.retry_after)})


def operation_result(request: Request, id_: str) -> Answer:
    """https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations"""
    operation = _operation(request, id_)
    if not operation.over:
        again = {
            "Location": request.url(request.path, **_kept(request)),
            "Retry-After": str(request.retry_after),
        }
        return Answer(202, None, again)
    if operation.error:
        raise operation.error
    result = operation.result()
    return (
        Answer(200, result)
        if result is not None
        else Answer(200 if "operationresults/" in request.path else 204)
    )


def _kept(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query.items() if name != "api-version"}


def _operation(request: Request, id_: str) -> Operation:
    operation = request.world.operations.get(id_)
    if operation is None:
        raise refusals.NO_OPERATION(f"The operation '{id_}' could not be found.")
    return operation
