"""What in a stack's state Gridup has not written. Pure.

The engine runs what the state names: it unpickles each dynamic provider in a process of its own, and starts
or downloads the plugin of each other one. So whoever changes a state could have anything run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gridup_infra import targets
from gridup_infra.layout import is_older_provider

PROVIDER = "__provider"
"""The property in which Pulumi keeps a dynamic provider."""

PLAIN = frozenset({"manifest", "secrets_providers", "resources", "pending_operations", "metadata"})
"""The parts of a deployment of which the engine runs none. Others, such as snippets, it may run."""

READ = frozenset({*PLAIN, "resource", "type", "urn", "inputs", "outputs", "extensionref"})
"""What is looked at here. The engine reads a key in any case, so such a one in another case is foreign."""

ELSEWHERE = frozenset({"pluginDownloadURL", "pluginChecksums", "parameterization"})
"""The inputs of a provider by which another program is had in its place."""

OWN_PACKAGES = frozenset({"pulumi", "pulumi-python"})


def foreign(deployment: Mapping[str, Any]) -> list[str]:
    """What is not ours in a deployment as the engine exports it, a short line each."""
    found = [f"the part {key!r}" for key in deployment if key not in PLAIN and deployment[key]]
    rows = list(deployment.get("resources") or [])
    for operation in deployment.get("pending_operations") or []:
        found += _misspelt(operation)
        rows.append(operation["resource"])
    packages = OWN_PACKAGES | targets.packages()
    for row in rows:
        name = row["urn"].rpartition("::")[2]
        found += [f"{what} of {name}" for what in _of_resource(row, packages)]
    # An update that was interrupted stands among the resources and the operations.
    return list(dict.fromkeys(found))


def is_older(deployment: Mapping[str, Any]) -> bool:
    """Whether it seems to be of an older Gridup's layout. What is foreign in it is not run either."""
    rows = deployment.get("resources") or []
    return any(is_older_provider((row.get("inputs") or {}).get(PROVIDER)) for row in rows)


def _of_resource(row: Mapping[str, Any], packages: frozenset[str]) -> Iterator[str]:
    yield from _misspelt(row)
    kind = row["type"]
    package = kind.removeprefix("pulumi:providers:").partition(":")[0]
    if package not in packages or row.get("extensionRef"):
        yield f"the type {kind}"
    for properties in (row.get("inputs") or {}, row.get("outputs") or {}):
        # Whatever the type says: a resource may name any provider of the state as its own.
        if PROVIDER in properties and not targets.is_own_provider(properties[PROVIDER]):
            yield "the provider"
        if kind.startswith("pulumi:providers:"):
            inner = properties.get("__internal") or {}
            yield from (f"the {key}" for key in sorted(ELSEWHERE & {*properties, *inner}))


def _misspelt(row: Mapping[str, Any]) -> Iterator[str]:
    for key in row:
        if key.casefold() in READ and key not in READ and key != "extensionRef":
            yield f"the key {key!r}"
