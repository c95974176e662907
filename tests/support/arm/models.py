"""Bodies, held against Microsoft's own models (azure-mgmt-*).

Unknown, read-only and mistyped fields are refused. The models themselves take anything; their fields say the
name on the wire, the type, and whether a customer may set them (`visibility`), and those are walked here.
"""

from __future__ import annotations

import datetime
import enum
import functools
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network
from azure.mgmt.resource.resources import models as resources

PACKAGES = {"compute": compute, "network": network, "resource": resources}

OPEN = ("VirtualMachineSizeTypes",)
"""Those that no longer have all values: its own page says that it is deprecated, and what to ask instead."""

SETTABLE = {"create", "update"}
"""The visibilities of a field that a request may have."""


class Wrong(Exception):
    """What is wrong with a body, in the words of the JSON reader that ARM's services use.

    Attributes:
        path: where, as `properties.subnets[0].name`.
    """

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class Field(typing.NamedTuple):
    type: Any
    settable: bool
    required: bool
    format: str | None


def check(body: Any, model: type) -> None:
    """Raises:
    Wrong: at the first thing that is.
    """
    _value(body, model, "")


@functools.cache
def fields(model: type) -> Mapping[str, Field]:
    """A model's, by their name on the wire."""
    found: dict[str, Field] = {}
    for owner in reversed(model.__mro__):
        hints = getattr(owner, "__annotations__", {})
        for attribute, rest in vars(owner).items():
            if type(rest).__name__ != "_RestField":
                continue
            hint = _resolve(owner, hints[attribute])
            name = rest._rest_name_input or attribute
            found[name] = Field(
                hint,
                rest._visibility is None or bool(SETTABLE & set(rest._visibility)),
                type(None) not in typing.get_args(hint),
                rest._format,
            )
    return found


def _resolve(owner: type, hint: Any) -> Any:
    """A hint with no names left in it."""
    package = PACKAGES[owner.__module__.split(".")[2]]
    return _whole(hint, {**vars(sys.modules[owner.__module__]), "_models": package})


def _whole(hint: Any, names: dict[str, Any]) -> Any:
    """The same for a part of one: Python 3.10 leaves the name in a `list["X"]` alone."""
    if isinstance(hint, str):
        hint = typing.ForwardRef(hint)
    if isinstance(hint, typing.ForwardRef):
        hint = typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": hint}), names, names)["it"]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (list, dict):
        return origin[tuple(_whole(part, names) for part in inner)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_whole(part, names) for part in inner)]  # noqa: UP007 - from a tuple
    return hint


def _value(value: Any, hint: Any, path: str) -> None:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return
    if origin in (typing.Union, types.UnionType):
        _union(value, inner, path)
    elif origin is list:
        if not isinstance(value, list):
            raise _mistyped(value, "an array", path)
        for number, item in enumerate(value):
            _value(item, inner[0], f"{path}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise _mistyped(value, "an object", path)
        for key, item in value.items():
            _value(item, inner[1], f"{path}.{key}")
    elif origin is typing.Literal:
        if value not in inner:
            raise _mistyped(value, f"one of {', '.join(map(str, inner))}", path)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        _enumerated(value, hint, path)
    elif hasattr(hint, "__mro__") and any(owner.__name__ == "Model" for owner in hint.__mro__):
        _model(value, hint, path)
    else:
        _plain(value, hint, path)


def _union(value: Any, choices: tuple[Any, ...], path: str) -> None:
    if value is None:
        if type(None) in choices:
            return
        raise _mistyped(value, "a value", path)
    choices = tuple(choice for choice in choices if choice is not type(None))
    enums = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, enum.Enum)]
    if enums:
        # `Union[str, "_models.Choice"]`: any text for the client, but not for the service.
        _enumerated(value, enums[0], path)
        return
    wrong: list[Wrong] = []
    for choice in choices:
        try:
            _value(value, choice, path)
        except Wrong as error:
            wrong.append(error)
        else:
            return
    raise wrong[0]


def _enumerated(value: Any, choices: type[enum.Enum], path: str) -> None:
    known = [str(choice.value).lower() for choice in choices]
    if not isinstance(value, str) or (str(value).lower() not in known and choices.__name__ not in OPEN):
        raise Wrong(
            f"Error converting value {_shown(value)} to type '{choices.__name__}'. Path '{path}'.", path
        )


def _model(value: Any, model: type, path: str) -> None:
    if not isinstance(value, dict):
        raise _mistyped(value, f"an object of type '{model.__name__}'", path)
    known = fields(model)
    for name, item in value.items():
        here = f"{path}.{name}" if path else name
        if name not in known:
            raise Wrong(
                f"Could not find member '{name}' on object of type '{model.__name__}'. Path '{here}'.", here
            )
        field = known[name]
        if not field.settable:
            raise Wrong(f"Property '{here}' is read-only and can't be set.", here)
        _value(item, field.type, here)
    for name, field in known.items():
        if field.required and field.settable and name not in value:
            here = f"{path}.{name}" if path else name
            raise Wrong(f"Required property '{name}' not found in JSON. Path '{here}'.", here)


PLAIN: Mapping[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a string"),
    int: ((int,), "an integer"),
    float: ((int, float), "a number"),
    bool: ((bool,), "a boolean"),
    bytes: ((str,), "a base64 string"),
    datetime.datetime: ((str,), "a date and time"),
    datetime.timedelta: ((str,), "a duration"),
}


def _plain(value: Any, hint: Any, path: str) -> None:
    takes, called = PLAIN.get(hint, ((object,), ""))
    if not isinstance(value, takes) or (
        isinstance(value, bool) and bool not in takes and object not in takes
    ):
        raise _mistyped(value, called, path)


def _mistyped(value: Any, wanted: str, path: str) -> Wrong:
    return Wrong(f"Could not convert {_shown(value)} to {wanted}. Path '{path}'.", path)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value[:80]}"'
    return {dict: "an object", list: "an array", type(None): "null"}.get(type(value), str(value))


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All that a body holds, with where."""
    yield path, value
    if isinstance(value, dict):
        for name, item in value.items():
            yield from walk(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from walk(item, f"{path}[{number}]")
