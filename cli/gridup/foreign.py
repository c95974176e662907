"""Finds parts of a stack's state that Gridup did not write ("foreign" parts). Pure functions.

The engine runs what the state names. It unpickles each dynamic provider in a separate process. It starts the
plugin of each other provider, after a download if needed. So anyone who changes a state could make the engine
run any program.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gridup_infra import targets
from gridup_infra.layout import is_older_provider

PROVIDER = "__provider"
"""The property in which Pulumi stores a dynamic provider."""

PLAIN = frozenset({"manifest", "secrets_providers", "resources", "pending_operations", "metadata"})
"""The parts of a deployment that the engine never runs. It may run other parts, such as snippets."""

READ = frozenset({*PLAIN, "resource", "type", "urn", "inputs", "outputs", "extensionref"})
"""The keys that this module reads. The engine ignores case in keys, so a key that differs only in case is
foreign."""

ELSEWHERE = frozenset({"pluginDownloadURL", "pluginChecksums", "parameterization"})
"""The inputs of a provider that make the engine run another program instead."""

OWN_PACKAGES = frozenset({"pulumi", "pulumi-python"})


def foreign(deployment: Mapping[str, Any]) -> list[str]:
    """Return a short line for each foreign part of a deployment as the engine exports it."""
    found = [f"the part {key!r}" for key in deployment if key not in PLAIN and deployment[key]]
    rows = list(deployment.get("resources") or [])
    for operation in deployment.get("pending_operations") or []:
        found += _misspelt(operation)
        rows.append(operation["resource"])
    packages = OWN_PACKAGES | targets.packages()
    for row in rows:
        name = row["urn"].rpartition("::")[2]
        found += [f"{what} of {name}" for what in _of_resource(row, packages)]
    # An interrupted update is in the resources and in the operations: remove duplicates.
    return list(dict.fromkeys(found))


def is_older(deployment: Mapping[str, Any]) -> bool:
    """Return whether the deployment seems to have an older Gridup's layout.

    The foreign parts of such a deployment are not run either.
    """
    rows = list(deployment.get("resources") or [])
    rows += [operation["resource"] for operation in deployment.get("pending_operations") or []]
    return any(is_older_provider((row.get("inputs") or {}).get(PROVIDER)) for row in rows)


def _of_resource(row: Mapping[str, Any], packages: frozenset[str]) -> Iterator[str]:
    yield from _misspelt(row)
    kind = row["type"]
    package = kind.removeprefix("pulumi:providers:").partition(":")[0]
    if package not in packages or row.get("extensionRef"):
        yield f"the type {kind}"
    for properties in (row.get("inputs") or {}, row.get("outputs") or {}):
        # Check every type: any resource may name any provider in the state as its own.
        if PROVIDER in properties and not targets.is_own_provider(properties[PROVIDER]):
            yield "the provider"
        if kind.startswith("pulumi:providers:"):
            inner = properties.get("__internal") or {}
            yield from (f"the {key}" for key in sorted(ELSEWHERE & {*properties, *inner}))


def _misspelt(row: Mapping[str, Any]) -> Iterator[str]:
    for key in row:
        if key.casefold() in READ and key not in READ and key != "extensionRef":
            yield f"the key {key!r}"
