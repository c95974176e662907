"""What is put before one of syft's methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any


def before(service: type, name: str, ours: Callable[[Any, dict[str, Any]], Any]) -> None:
    """Put `ours` before what a method does, behind syft's own handling of its arguments.

    Raises:
        LookupError: the method is not made as those of this syft are.
    """
    method = getattr(service, name)
    cells = dict(zip(method.__code__.co_freevars, method.__closure__ or (), strict=True))
    cell = cells["func"]
    inner = cell.cell_contents
    if getattr(inner, "closed", False):
        # This process has closed it already.
        return
    signature = inspect.signature(inner)

    @wraps(inner)
    def checked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return ours(inner, dict(bound.arguments))

    checked.closed = True  # type: ignore[attr-defined]
    cell.cell_contents = checked
