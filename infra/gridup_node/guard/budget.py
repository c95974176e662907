"""How much memory the values of one message may take, all of them together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

STRANGERS = 1024 * 1024
"""Bytes for who has no account, and for what another node answers: they have no tables to send."""
ANY = 2**40
"""Bytes for what is no message: the node reads what it keeps."""
TOO_MUCH = "a value that expands to more than may be sent"


class Budget:
    """Bytes that are left; what builds a value takes what that needs."""

    def __init__(self, most: int) -> None:
        self.left = most

    def take(self, size: int) -> None:
        """Take so many bytes.

        Raises:
            ValueError: there are not as many left.
        """
        if size > self.left:
            raise ValueError(TOO_MUCH)
        self.left -= size


_of_message: ContextVar[Budget | None] = ContextVar("_of_message", default=None)


def begin(most: int) -> None:
    """From here on, in this context, a message is read that may take `most` bytes."""
    _of_message.set(Budget(most))


@contextlib.contextmanager
def within(most: int) -> Iterator[None]:
    """Read a message that may take `most` bytes within this context."""
    before = _of_message.set(Budget(most))
    try:
        yield
    finally:
        _of_message.reset(before)


def current() -> Budget:
    """What is left to the message of this context."""
    return _of_message.get() or Budget(ANY)
