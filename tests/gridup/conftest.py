"""What the tests of the command line share."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.fake_target import moon
from support.inside import inside
from support.latin import locales
from support.person import person

__all__ = ["inside", "locales", "moon", "person"]


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that a further one is never answered."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield int(listener.getsockname()[1])
