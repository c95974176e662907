"""Wraps one of syft's methods with a check."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any


def before(service: type, name: str, ours: Callable[[Any, dict[str, Any]], Any]) -> None:
    """Make a method call `ours` instead of its function, after syft's own handling of the arguments.

    `ours` gets the original function and the arguments by name.

    Raises:
        LookupError: the method is not built like the service methods of this syft version.
    """
    method = getattr(service, name)
    cells = dict(zip(method.__code__.co_freevars, method.__closure__ or (), strict=True))
    cell = cells["func"]
    inner = cell.cell_contents
    if getattr(inner, "closed", False):
        # This process has wrapped the method already.
        return
    signature = inspect.signature(inner)

    @wraps(inner)
    def checked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return ours(inner, dict(bound.arguments))

    checked.closed = True  # type: ignore[attr-defined]
    cell.cell_contents = checked
