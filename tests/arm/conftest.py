"""An Azure of its own for each test: the server stays, what is in it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.arm import Arm
from support.arm.customer import Customer
from support.arm.sites import Site


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with Arm(tmp_path_factory.mktemp("arm")) as arm:
        yield arm


@pytest.fixture
def arm(server: Arm) -> Iterator[Arm]:
    """One with an empty subscription. What goes wrong in the emulator itself fails the test."""
    server.reset()
    yield server
    server.interference.clear()
    assert server.broken is None, server.broken


@pytest.fixture
def customer(arm: Arm) -> Iterator[Customer]:
    with Customer(arm) as customer:
        yield customer


@pytest.fixture
def site(customer: Customer) -> Site:
    """A resource group."""
    return Site(customer)
