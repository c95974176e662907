"""What differs between two objects, as the engine is told, and what a refresh writes into the inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from support.azure_native.values import Object

ADD, DELETE, UPDATE = "ADD", "DELETE", "UPDATE"
REPLACE = "_REPLACE"

CASE_IS_NOTHING = frozenset({"location", "resourceGroupName"})
"""Nor are spaces, which a location's long name has."""


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], replaced: Collection[str], at: str = "", below: str = ""
) -> dict[str, str]:
    """How each path differs: {"sku.name": "UPDATE_REPLACE"}.

    Args:
        replaced: what can't be changed in place; `at` without indices is among them.
    """
    found: dict[str, str] = {}
    for name in sorted({*old, *new}):
        if name.startswith("__"):
            continue  # The provider's own.
        path, kind = at + name, REPLACE if below + name in replaced else ""
        if name not in old:
            found[path] = ADD + kind
        elif name not in new:
            found[path] = DELETE + kind
        elif path in CASE_IS_NOTHING and _folded(old[name]) == _folded(new[name]):
            continue
        else:
            found |= _between(old[name], new[name], replaced, path, below + name)
    return found


def _between(old: Any, new: Any, replaced: Collection[str], at: str, below: str) -> dict[str, str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = differences(old, new, replaced, f"{at}.", f"{below}.")
        if below in replaced:
            found = {path: kind + REPLACE if kind == UPDATE else kind for path, kind in found.items()}
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = {}
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            found |= _between(before, after, replaced, f"{at}[{index}]", f"{below}[]")
        found |= {f"{at}[{index}]": DELETE for index in range(len(new), len(old))}
        return found | {f"{at}[{index}]": ADD for index in range(len(old), len(new))}
    return {} if old == new else {at: UPDATE + (REPLACE if below in replaced else "")}


def _folded(value: Any) -> Any:
    return value.replace(" ", "").lower() if isinstance(value, str) else value


def carried_over(said: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """The inputs, with what has changed between two answers written into them, and nothing else: an answer is
    full of defaults that nobody said.
    """
    made = {name: value for name, value in said.items() if name not in old or name in new}
    for name, value in new.items():
        if name not in old:
            made[name] = value
        elif old[name] != value:
            made[name] = _carried(said[name], old[name], value) if name in said else value
    return made


def _carried(said: Any, old: Any, new: Any) -> Any:
    if all(isinstance(value, Mapping) for value in (said, old, new)):
        return carried_over(said, old, new)
    if all(isinstance(value, list) for value in (said, old, new)):
        both = min(len(said), len(old))
        return [_carried(said[i], old[i], item) if i < both else item for i, item in enumerate(new)]
    return new
