"""Limits the memory that all values of one message may take together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

STRANGERS = 1024 * 1024
"""Bytes for callers without an account, and for answers of other nodes: neither sends tables."""
ANY = 2**40
"""Bytes for the node's own stored data, which is no message."""
TOO_MUCH = "a value that expands to more than may be sent"


class Budget:
    """The bytes that are left for a message. Code that builds a value takes its bytes from the budget."""

    def __init__(self, most: int) -> None:
        self.left = most

    def take(self, size: int) -> None:
        """Take `size` bytes.

        Raises:
            ValueError: fewer bytes are left.
        """
        if size > self.left:
            raise ValueError(TOO_MUCH)
        self.left -= size


_of_message: ContextVar[Budget | None] = ContextVar("_of_message", default=None)


def begin(most: int) -> None:
    """Start a new budget of `most` bytes for the message that this context reads from now on."""
    _of_message.set(Budget(most))


@contextlib.contextmanager
def within(most: int) -> Iterator[None]:
    """Set a budget of `most` bytes within this context."""
    before = _of_message.set(Budget(most))
    try:
        yield
    finally:
        _of_message.reset(before)


def current() -> Budget:
    """Return the budget of this context's message."""
    return _of_message.get() or Budget(ANY)
