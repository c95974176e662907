"""From what the SDK says to what ARM takes, and back: the SDK has no level `properties`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.azure_native.values import UNKNOWN, Object

Property = Mapping[str, Any]
"""One property: `type`, or `shape` (a name), `list` or `map` (of a property). Where they hold: `in`, the
level it lies under; `answered`, that the SDK has it only in answers; `read-only`, that so has ARM alone.
"""


@functools.cache
def _shapes() -> dict[str, dict[str, Property]]:
    return json.loads(Path(__file__).with_name("shapes.json").read_text())


def properties(shape: str) -> Mapping[str, Property]:
    """A shape's, by name."""
    return _shapes()[shape]


def body(shape: str, inputs: Mapping[str, Any]) -> Object:
    """What ARM takes. An input that is in no body (the path's names) is left out."""
    return _nested(shape, inputs, {"answered"}, body)


def sent_back(shape: str, name: str, answer: Mapping[str, Any]) -> Any:
    """A property as an answer has it, to be sent again; None where there is none.

    What may only be read is left out. The real provider sends it along, which Azure bears with.
    """
    known = outputs(shape, answer).get(name)
    return None if known is None else _each(properties(shape)[name], known, _writable)


def _writable(shape: str, known: Mapping[str, Any]) -> Object:
    return _nested(shape, known, {"answered", "read-only"}, _writable)


def _nested(shape: str, said: Mapping[str, Any], without: set[str], turn: Any) -> Object:
    made: Object = {}
    for name, property_ in properties(shape).items():
        if name in said and not without & property_.keys():
            level = made.setdefault(property_["in"], {}) if "in" in property_ else made
            level[name] = _each(property_, said[name], turn)
    return made


def outputs(shape: str, answer: Mapping[str, Any]) -> Object:
    """What the SDK knows of an answer."""
    made: Object = {}
    for name, property_ in properties(shape).items():
        level = answer.get(property_["in"]) or {} if "in" in property_ else answer
        if level.get(name) is not None:
            made[name] = _each(property_, level[name], outputs)
    return made


def inputs(shape: str, known: Mapping[str, Any]) -> Object:
    """What of the outputs could have been said: without what only answers hold, and without the id."""
    return _given(shape, {name: value for name, value in known.items() if name != "id"})


def _given(shape: str, known: Mapping[str, Any]) -> Object:
    return {
        name: _each(property_, known[name], _given)
        for name, property_ in properties(shape).items()
        if name in known and not property_.get("answered")
    }


def expected(shape: str, said: Mapping[str, Any]) -> Object:
    """The outputs as far as a preview can tell: what was said, and of the rest that it is unknown."""
    return {
        name: _each(property_, said[name], expected) if name in said else UNKNOWN
        for name, property_ in properties(shape).items()
    }


def _each(property_: Property, value: Any, turn: Any) -> Any:
    if "shape" in property_ and isinstance(value, Mapping):
        return turn(property_["shape"], value)
    if "list" in property_ and isinstance(value, list):
        return [_each(property_["list"], item, turn) for item in value]
    if "map" in property_ and isinstance(value, Mapping):
        return {key: _each(property_["map"], item, turn) for key, item in value.items()}
    return value


TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def faults(shape: str, said: Mapping[str, Any], where: str = "") -> list[str]:
    """What of the inputs is of a wrong type, a line each."""
    found = []
    for name, property_ in properties(shape).items():
        if name in said:
            found += _faults(property_, said[name], where + name)
    return found


def _faults(property_: Property, value: Any, where: str) -> list[str]:
    if value is UNKNOWN:
        return []
    if "shape" in property_ and isinstance(value, Mapping):
        return faults(property_["shape"], value, f"{where}.")
    if "list" in property_ and isinstance(value, list):
        return [
            fault
            for index, item in enumerate(value)
            for fault in _faults(property_["list"], item, f"{where}[{index}]")
        ]
    if "map" in property_ and isinstance(value, Mapping):
        return [
            fault
            for key, item in value.items()
            for fault in _faults(property_["map"], item, f"{where}.{key}")
        ]
    if not {"type", "shape", "list", "map"} & property_.keys():
        return []
    wanted = property_.get("type") or ("array" if "list" in property_ else "object")
    if isinstance(value, TYPES.get(wanted, ())) and (wanted == "boolean") == isinstance(value, bool):
        return []
    return [f"'{where}' should be of type '{wanted}' but got {type(value).__name__}"]


def without_empty(value: Any) -> Any:
    """Without the empty lists and maps that an answer is full of; None where nothing is left."""
    if isinstance(value, Mapping):
        kept = {key: without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None} or None
    if isinstance(value, list):
        return [item for item in map(without_empty, value) if item is not None] or None
    return value
