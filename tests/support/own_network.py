"""A loopback of one's own: nodes that workers deploy at the same time do not take each other's ports."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.system import must

CLONE_NEWNET = 0x40000000
"""Of unshare(2) and setns(2)."""


@contextmanager
def own_network() -> Iterator[None]:
    """Have this thread, and all that it starts meanwhile, in a network with nothing but a loopback.

    Linux, root.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call(libc.unshare, CLONE_NEWNET)
        try:
            must("ip", "link", "set", "lo", "up")
            yield
        finally:
            _call(libc.setns, before, CLONE_NEWNET)
    finally:
        os.close(before)


def can_have_one() -> bool:
    """Whether `own_network` can do its work here."""
    return sys.platform == "linux" and os.geteuid() == 0 and Path("/proc/thread-self/ns/net").exists()


def _call(function: ctypes._CFuncPtr, *arguments: int) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
