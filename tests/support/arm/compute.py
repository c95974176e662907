"""What Microsoft.Compute answers beside its resources: sizes, quotas, images; what machines are told."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from support.arm import catalogue, refusals, rules
from support.arm.catalogue import Image, Size
from support.arm.inventory import paged, usage
from support.arm.machines import TYPE, boot, instance_view, owned
from support.arm.placement import cores
from support.arm.requests import Answer, Request
from support.arm.world import Thing, World

SKU_VERSIONS = ("2017-09-01", "2019-04-01", "2021-07-01")
"""https://learn.microsoft.com/rest/api/compute/resource-skus/list"""


def sku(world: World, size: Size, location: str) -> dict[str, Any]:
    """A size in a region."""
    restrictions = []
    if world.is_restricted(location, size.name):
        restrictions.append(
            {
                "type": "Location",
                "values": [location],
                "restrictionInfo": {"locations": [location]},
                "reasonCode": "NotAvailableForSubscription",
            }
        )
    capabilities = {
        "vCPUs": str(size.cores),
        "MemoryGB": f"{size.memory:g}",
        "MaxDataDiskCount": str(size.disks),
        "CpuArchitectureType": size.architecture,
        "HyperVGenerations": ",".join(size.generations),
        "PremiumIO": str(size.tier == "Standard" and not size.name.startswith("Standard_A")),
        **({} if size.secure else {"TrustedLaunchDisabled": "True"}),
    }
    return {
        "resourceType": "virtualMachines",
        "name": size.name,
        "tier": size.tier,
        "size": size.name.partition("_")[2],
        "family": size.family,
        "locations": [location],
        "locationInfo": [{"location": location, "zones": ["1", "2", "3"], "zoneDetails": []}],
        "capabilities": [{"name": name, "value": value} for name, value in capabilities.items()],
        "restrictions": restrictions,
    }


def skus(request: Request) -> Answer:
    """https://learn.microsoft.com/rest/api/compute/resource-skus/list"""
    text = request.query.get("$filter", "")
    match = re.fullmatch(r"\s*location\s+eq\s+'([^']*)'\s*", text)
    if text and not match:
        # The page: "Only location filter is supported currently."
        raise refusals.BAD_FILTER(f"Invalid $filter '{text}' specified in the query string.")
    rows = [
        sku(request.world, size, location)
        for location in catalogue.LOCATIONS
        if not match or location == rules.region(match[1])
        for size in catalogue.SIZES.values()
        if request.world.offers(location, size.name)
    ]
    return paged(request, rows)


def sizes(request: Request, location: str) -> Answer:
    """https://learn.microsoft.com/rest/api/compute/virtual-machine-sizes/list"""
    rows = [
        {
            "name": size.name,
            "numberOfCores": size.cores,
            "memoryInMB": int(size.memory * 1024),
            "maxDataDiskCount": size.disks,
            "osDiskSizeInMB": 1047552,
            "resourceDiskSizeInMB": 0,
        }
        for size in catalogue.SIZES.values()
        if request.world.offers(location, size.name)
    ]
    return paged(request, rows)


def usages(request: Request, location: str) -> Answer:
    """https://learn.microsoft.com/rest/api/compute/usage/list"""
    world = request.world
    machines = len([one for one in world.of(TYPE) if one.location == location])
    rows = [
        usage(
            "cores",
            "Total Regional vCPUs",
            cores(world, location),
            world.quota(location, "cores", catalogue.CORES),
        ),
        usage(
            "virtualMachines",
            "Virtual Machines",
            machines,
            world.quota(location, "virtualMachines", 25000),
        ),
    ]
    for family in dict.fromkeys(size.family for size in catalogue.SIZES.values()):
        limit = world.quota(location, family, catalogue.CORES)
        told = re.sub(r"^standard(.*)Family$", r"Standard \1 Family vCPUs", family)
        rows.append(usage(family, told, cores(world, location, family), limit))
    return paged(request, rows)


def images(request: Request, location: str, parts: list[str]) -> Answer:
    """Offers, skus or versions of a publisher. https://learn.microsoft.com/rest/api/compute/virtual-machine-images"""
    publisher, *rest = parts
    known: list[Image] = [one for one in catalogue.IMAGES.values() if one.publisher.lower() == publisher]
    base = f"/Subscriptions/x/Providers/Microsoft.Compute/Locations/{location}/Publishers/{publisher}"

    def rows(names: list[str]) -> Answer:
        unique = sorted(set(names))
        return Answer(200, [{"location": location, "name": name, "id": f"{base}/{name}"} for name in unique])

    match rest:
        case ["artifacttypes", "vmimage", "offers"]:
            return rows([one.offer for one in known])
        case ["artifacttypes", "vmimage", "offers", offer, "skus"]:
            return rows([one.sku for one in known if one.offer.lower() == offer])
        case ["artifacttypes", "vmimage", "offers", offer, "skus", name, "versions"]:
            return rows(
                [
                    v
                    for one in known
                    if (one.offer.lower(), one.sku.lower()) == (offer, name)
                    for v in one.versions
                ]
            )
    raise refusals.NO_TYPE(f"There is nothing at '{request.path}'.")


# What a machine is told to do.


def act(request: Request, thing: Thing, what: str) -> Answer:
    """POST …/virtualMachines/NAME/WHAT.

    https://learn.microsoft.com/rest/api/compute/virtual-machines
    """
    if what.lower() == "retrievebootdiagnosticsdata":
        return boot_diagnostics(request, thing)
    after = ACTIONS[what.lower()]
    if thing.busy:
        raise refusals.BUSY(f"Another operation on {thing.id} is in progress.", Retry_After="1")
    thing.state = "Updating"

    def finish() -> None:
        thing.state = "Succeeded"
        after(thing)
        owned(request.world, thing)

    def abandon() -> None:
        thing.state = "Succeeded"

    operation = request.world.start(thing, finish, abandon=abandon, error=request.late)
    return Answer(202, None, request.follow(operation, thing.id.subscription, location=True))


def _power(state: str) -> Callable[[Thing], None]:
    def set_(thing: Thing) -> None:
        thing.hidden["power"] = state

    return set_


def _start(thing: Thing) -> None:
    if thing.hidden["power"] != "running":
        boot(thing)


ACTIONS: dict[str, Callable[[Thing], None]] = {
    "start": _start,
    "restart": boot,
    "poweroff": _power("stopped"),
    "deallocate": _power("deallocated"),
}

NAMES = {
    name.lower(): name
    for name in ("start", "restart", "powerOff", "deallocate", "retrieveBootDiagnosticsData", "instanceView")
}
"""The actions, as a role names them."""


def view(request: Request, thing: Thing) -> Answer:
    return Answer(200, instance_view(thing))


def boot_diagnostics(request: Request, thing: Thing) -> Answer:
    """Addresses of what the machine wrote to its console, good for some time and without a token.

    https://learn.microsoft.com/rest/api/compute/virtual-machines/retrieve-boot-diagnostics-data
    """
    told = (thing.properties.get("diagnosticsProfile") or {}).get("bootDiagnostics") or {}
    if not told.get("enabled"):
        raise refusals.NO_BOOT_DIAGNOSTICS(
            f"Boot diagnostics is not enabled for the virtual machine {thing.id.name}."
        )
    base = f"{request.base}/bootdiagnostics/{thing.guid}"
    return Answer(
        200,
        {
            "consoleScreenshotBlobUri": f"{base}/screenshot.bmp?sig={thing.etag}",
            "serialConsoleLogBlobUri": f"{base}/serialconsole.log?sig={thing.etag}",
        },
    )


def console(world: World, path: list[str], signature: str) -> Answer | None:
    """What is at such an address; None where the path is none."""
    match path:
        case ["bootdiagnostics", guid, "serialconsole.log"]:
            for thing in world.of(TYPE):
                if thing.guid == guid and thing.etag == signature:
                    return Answer(200, bytes(thing.hidden.get("console", b"")))
            return Answer(404)
    return None
