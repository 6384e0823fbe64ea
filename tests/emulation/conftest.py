"""The running datacenter of the tests of statements (docs/statements.md), one for each module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.network import ServalNetwork
from tests.emulation import transfer
from tests.emulation.datacenter import Figure, Running


@pytest.fixture(autouse=True)
def no_transfer_left() -> Iterator[None]:
    yield
    transfer.end_all()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ServalNetwork(Figure()) as net:
        running = Running(net, tmp_path_factory.mktemp("captures"))
        yield running
        running.settle()


@pytest.fixture
def figure(running: Running) -> Iterator[Running]:
    """The running datacenter without any service; what the test starts ends with it."""
    yield running
    running.settle()
