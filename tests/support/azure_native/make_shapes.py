"""Makes shapes.json: where each property of the SDK goes in a body that ARM takes.

    python -m support.azure_native.make_shapes

Names and types are those of pulumi-azure-native's own classes: what its arguments lack is only in answers.
Microsoft's models tell which of them lie under `properties`. A file, as importing both takes three seconds.
"""

from __future__ import annotations

import enum
import importlib
import json
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pulumi import _types as pulumi_types

from support.azure_native.kinds import KINDS

SHAPES = Path(__file__).with_name("shapes.json")

MODELS = {
    "compute": "azure.mgmt.compute.models",
    "network": "azure.mgmt.network.models",
    "resources": "azure.mgmt.resource.resources.models",
}

LEFT_OUT = frozenset(
    {
        "compute:Disk.lastOwnershipUpdateTime",
        "network:IpamPoolPrefixAllocationArgs.id",
        "network:IpamPoolPrefixAllocationResponse.id",
    }
)
"""What the models of another API version lack; nothing of ours says or reads it."""

NOT_IN_BODIES = frozenset({"azureApiVersion", "urn"})

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def main() -> None:
    SHAPES.write_text(text())


def text() -> str:
    """The file: a type a line."""
    lines = (f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in sorted(made().items()))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def made() -> dict[str, dict[str, Any]]:
    """Each type's properties, by the name that the SDK gives them."""
    walk = _Walk()
    for kind in KINDS.values():
        module, _, name = kind.shape.partition(":")
        sdk = importlib.import_module(f"pulumi_azure_native.{module}")
        model = getattr(importlib.import_module(MODELS[module]), name)
        # Where a type is also part of another, the shorter name is that part's.
        arguments = getattr(sdk, f"{name}InitArgs", None) or getattr(sdk, f"{name}Args")
        walk.visit(
            kind.shape,
            model,
            {
                key: type_
                for key, type_ in pulumi_types.input_type_types(arguments).items()
                if key not in kind.places
            },
            pulumi_types.resource_types(getattr(sdk, name)),
        )
    return walk.shapes


class _Walk:
    def __init__(self) -> None:
        self.shapes: dict[str, dict[str, Any]] = {}

    def visit(self, name: str, model: Any, given: Mapping[str, Any], answered: Mapping[str, Any]) -> None:
        shape = self.shapes[name] = {}
        fields = _fields(model)
        inner = _fields(fields["properties"].model) if "properties" in fields else {}
        flat = "properties" not in {**given, **answered}
        for key in sorted({*given, *answered} - NOT_IN_BODIES):
            property_: dict[str, Any] = {}
            if key in fields:
                field = fields[key]
            elif flat and key in inner:
                property_["in"] = "properties"
                field = inner[key]
            else:
                if f"{name}.{key}" not in LEFT_OUT:
                    raise LookupError(f"{name}.{key} is in no model of Microsoft's")
                continue
            if key not in given:
                property_["answered"] = True
            elif field.read_only:
                property_["read-only"] = True
            shape[key] = property_ | self.type_of(name, field.model, given.get(key), answered.get(key))

    def type_of(self, owner: str, model: Any, given: Any, answered: Any) -> dict[str, Any]:
        given, answered = _bare(given), _bare(answered)
        known = answered if given is None else given
        origin = typing.get_origin(known)
        if origin is not None and issubclass(origin, (Sequence, Mapping)):
            item = self.type_of(owner, model, _item(given), _item(answered))
            return {"list" if issubclass(origin, Sequence) else "map": item}
        if known in PLAIN:
            return {"type": PLAIN[known]}
        if isinstance(known, type) and issubclass(known, enum.Enum):
            return {"type": "string"}
        if not _is_sdk_type(known):
            return {}
        if not isinstance(model, type):
            raise TypeError(f"{owner}: {known} has no model")
        name = f"{owner.partition(':')[0]}:{known.__name__}"
        if name not in self.shapes:
            self.visit(
                name,
                model,
                pulumi_types.input_type_types(given) if given is not None else {},
                pulumi_types.output_type_types(answered) if answered is not None else {},
            )
        return {"shape": name}


class Field(NamedTuple):
    """One of a model's.

    Attributes:
        model: what it holds; None where that is no model.
    """

    model: Any
    read_only: bool


def _fields(model: Any) -> dict[str, Field]:
    """A model's fields by their name in JSON."""
    if not _is_model(model):
        return {}
    model()  # The first one made sets the class up.
    hints: dict[str, Any] = {}
    for base in reversed(model.__mro__):
        hints.update(getattr(base, "__annotations__", {}))
    module = sys.modules[model.__module__]
    scope = {**vars(module), "_models": importlib.import_module(module.__name__.rpartition(".")[0])}
    return {
        field._rest_name: Field(_model_in(hints[name], scope), field._visibility == ["read"])
        for name, field in model._attr_to_rest_field.items()
    }


def _is_sdk_type(hint: Any) -> bool:
    return isinstance(hint, type) and (pulumi_types.is_input_type(hint) or pulumi_types.is_output_type(hint))


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and any(base.__name__ == "Model" for base in hint.__mro__)


def _model_in(hint: Any, scope: Any) -> Any:
    """The model in Optional[list["_models.X"]] and the like."""
    if isinstance(hint, typing.ForwardRef):
        hint = eval(hint.__forward_arg__, scope)
    if isinstance(hint, str):
        hint = eval(hint, scope)
    if _is_model(hint):
        return hint
    for inner in typing.get_args(hint):
        found = _model_in(inner, scope)
        if found is not None:
            return found
    return None


def _bare(hint: Any) -> Any:
    """A type without Optional, Output, Awaitable and the enum beside a string."""
    while typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        if str in choices:
            return str
        hint = choices[0]
    return hint


def _item(hint: Any) -> Any:
    return None if hint is None else _bare(typing.get_args(hint)[-1])


if __name__ == "__main__":
    main()
