"""Values as the engine sends them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

SIGNATURE = "4dabf18193072939515e22adb298388d"
"""The key that marks a map as something else than a map."""

SECRET = "1b47061264138c4ac30d75fd1eb44270"

UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How the engine writes a value that a preview can't know."""


class Unknown:
    """A value that only the update will tell: equal to none, not even to itself."""

    def __repr__(self) -> str:
        return "<unknown>"

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__


UNKNOWN = Unknown()

Object = dict[str, Any]


def plain(struct: struct_pb2.Struct) -> Object:
    """An object without its nulls, each secret as it is: the provider says that it takes no secrets, so the
    engine wraps none and keeps account of them itself.
    """
    return {
        name: _plain(value)
        for name, value in struct.fields.items()
        if value.WhichOneof("kind") != "null_value"
    }


def _plain(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        inner = plain(value.struct_value)
        return inner["value"] if inner.get(SIGNATURE) == SECRET else inner
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "string_value":
        return UNKNOWN if value.string_value == UNKNOWN_TEXT else value.string_value
    return value.bool_value if kind == "bool_value" else None


def struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """An object for the engine, without its nulls."""
    made = struct_pb2.Struct()
    for name, value in values.items():
        if value is not None:
            made.fields[name].CopyFrom(_value(value))
    return made


def _value(value: Any) -> struct_pb2.Value:
    if isinstance(value, Mapping):
        return struct_pb2.Value(struct_value=struct(value))
    if isinstance(value, (list, tuple)):
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=[_value(item) for item in value]))
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, (int, float)):
        return struct_pb2.Value(number_value=value)
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    return struct_pb2.Value(string_value=UNKNOWN_TEXT if isinstance(value, Unknown) else value)
