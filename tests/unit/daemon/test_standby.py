"""Offers of programs that wait to be started: one for each connection, told once, gone with the connection."""

from __future__ import annotations

from typing import Any

import pytest

from serval_node.control.enquiries import Standby
from serval_node.daemon.control_server import RequestError
from serval_node.daemon.standby import Standbys
from serval_node.wire.naming import Naming

NAMING = Naming({"example": 0x9C1185})
WEB, BULK = NAMING.bind_prefix("web.example"), NAMING.bind_prefix("bulk.example")


class Connection:
    def __init__(self) -> None:
        self.pushed: list[dict[str, Any]] = []

    def push(self, message: dict[str, Any]) -> None:
        self.pushed.append(message)


@pytest.fixture
def changes() -> list[int]:
    return []


@pytest.fixture
def standbys(changes: list[int]) -> Standbys:
    return Standbys(NAMING, lambda: changes.append(1))


def test_an_offer_is_told_to_start_once_and_the_next_after_it(standbys: Standbys, changes: list[int]) -> None:
    first, second, other = Connection(), Connection(), Connection()
    for connection, prefix in ((first, WEB), (second, WEB), (other, BULK)):
        standbys.offer(connection, prefix)  # type: ignore[arg-type]
    assert standbys.offers()[0] == Standby(WEB, "web.example")
    standbys.start(WEB, "by hand")
    assert first.pushed == [{"start": "web.example", "by": "by hand"}]
    assert [offer.started for offer in standbys.offers()] == [True, False, False]
    standbys.start(WEB, "by hand")
    standbys.start(WEB, "by hand")
    assert [len(connection.pushed) for connection in (first, second, other)] == [1, 1, 0]
    assert len(changes) == 5, "three offers and two starts; a program that runs is left alone"


def test_what_was_not_offered_cannot_be_started(standbys: Standbys) -> None:
    connection = Connection()
    standbys.offer(connection, WEB)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no program was offered here for bulk\.example"):
        standbys.start(BULK, "by hand")
    with pytest.raises(RequestError, match="has an offer already"):
        standbys.offer(connection, BULK)  # type: ignore[arg-type]
    assert not connection.pushed


def test_an_offer_ends_with_its_connection(standbys: Standbys, changes: list[int]) -> None:
    connection = Connection()
    standbys.offer(connection, WEB)  # type: ignore[arg-type]
    standbys.closed(connection)  # type: ignore[arg-type]
    standbys.closed(Connection())  # type: ignore[arg-type]
    assert standbys.offers() == () and len(changes) == 2
