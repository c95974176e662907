"""Runs what a program declares without an engine: Pulumi's own mocks answer for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pulumi


def declared(mocks: pulumi.runtime.Mocks, program: Callable[[], Any], stack: str) -> Any:
    """What `program` comes to, an output's value too, once all that it declared was made by `mocks`."""
    found: list[Any] = []
    # Pulumi makes one where there is none, and leaves it to be found unclosed in the middle of a later test.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        pulumi.runtime.set_mocks(mocks, project="gridup", stack=stack, preview=False)
        pulumi.runtime.test(lambda: pulumi.Output.from_input(program()).apply(found.append))()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return found[0]
