"""Runs what a program declares without an engine: Pulumi's own mocks answer for it. And the event loops that
Pulumi leaves open, which a later test would meet when they are collected."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pulumi
import pytest


@contextmanager
def loops_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the event loops made meanwhile: Pulumi's Automation API forgets that of a program that fails."""
    made: list[asyncio.AbstractEventLoop] = []
    new_loop = asyncio.new_event_loop

    def recorded() -> asyncio.AbstractEventLoop:
        made.append(new_loop())
        return made[-1]

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "new_event_loop", recorded)
        yield
    for loop in made:
        _end(loop)


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop, and what a program that failed has left waiting in it."""
    for task in asyncio.all_tasks(loop):
        with contextlib.suppress(RuntimeError):
            task.get_coro().close()  # type: ignore[union-attr]
    loop.close()


def declared(
    mocks: pulumi.runtime.Mocks, program: Callable[[], Any], stack: str, *, preview: bool = False
) -> Any:
    """What `program` comes to, an output's value too, once all that it declared was made by `mocks`."""
    found: list[Any] = []
    loops: list[asyncio.AbstractEventLoop] = []

    def with_a_loop() -> None:
        # Pulumi makes one in each thread that has none, and leaves it to be found unclosed in a later test.
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])
        # What failed is told by the program itself, and once is enough.
        loops[-1].set_exception_handler(lambda *_: None)

    with_a_loop()
    try:
        with ThreadPoolExecutor(initializer=with_a_loop) as threads:
            loops[0].set_default_executor(threads)
            pulumi.runtime.set_mocks(mocks, project="gridup", stack=stack, preview=preview)
            pulumi.runtime.test(lambda: pulumi.Output.from_input(program()).apply(found.append))()
    finally:
        asyncio.set_event_loop(None)
        for loop in loops:
            _end(loop)
    return found[0] if found else None
