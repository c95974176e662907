"""What the kinds of Microsoft.Network share."""

from __future__ import annotations

import ipaddress
from typing import Any

from support.arm import refusals
from support.arm.kinds import Kind
from support.arm.world import Thing, World

NAMESPACE = "Microsoft.Network"

VERSIONS = (
    "2022-11-01",
    "2023-02-01",
    "2023-04-01",
    "2023-05-01",
    "2023-06-01",
    "2023-09-01",
    "2023-11-01",
    "2024-01-01",
    "2024-03-01",
    "2024-05-01",
    "2024-07-01",
    "2024-10-01",
    "2025-01-01",
    "2025-03-01",
    "2025-05-01",
    "2026-03-01",
)
"""Newer ones of Microsoft's specifications (https://github.com/Azure/azure-rest-api-specs,
specification/network/resource-manager); the last is the one of azure-mgmt-network's models."""

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


class NetworkKind(Kind):
    versions = VERSIONS
    dialect = refusals.BAD_BODY_OF_NETWORK
    etagged = True
    making = "Updating"
    # Of tags, all that it takes: https://learn.microsoft.com/rest/api/virtualnetwork/virtual-networks/update-tags
    patched_at_once = True


def prefix(text: str, owner: str) -> Prefix:
    """A CIDR, written as it must be."""
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise refusals.BAD_PREFIX(
            f"Address prefix {text} of resource {owner} is not formatted correctly."
        ) from None
    if "/" not in text or str(loose.network_address) != text.split("/")[0].lower():
        raise refusals.BAD_CIDR(
            f"The address prefix {text} in resource {owner} has an invalid CIDR notation. For the given "
            f"prefix length, the address prefix should be {loose}."
        )
    return loose


def inner(world: World, thing: Thing, type_: str) -> list[dict[str, Any]]:
    """The children, as the parent's own answer has them."""
    return [child.kind.view(world, child) for child in world.children(thing.id, type_)]
