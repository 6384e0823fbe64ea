"""Which declared routes belong to which interface, and which of them come back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from testbed import hosts
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode, PlainHost, PlainRouter
from testbed.link import status


def _node(kind: type[EmulatedNode], name: str, **params: Any) -> EmulatedNode:
    node = kind.__new__(kind)  # a real one is made in a sandbox only
    node.name, node.params, node.intfs = name, params, {}
    return node


def _interface(node: Any, number: int, address: str | None = None) -> Any:
    ip, _, length = (address or "").partition("/")
    return SimpleNamespace(node=node, name=f"{node.name}-eth{number}", ip=ip or None, prefixLen=length)


@pytest.mark.parametrize(
    ("way", "first", "second"),
    [
        ("via 10.1.0.254", True, False),
        ("via 10.2.7.1", False, True),
        ("dev r1-eth1", False, True),
        ("via 10.1.0.254 dev r1-eth1", False, True),
    ],
)
def test_a_way_belongs_to_one_interface(way: str, first: bool, second: bool) -> None:
    node = _node(PlainRouter, "r1")
    assert status.leads_by(way, _interface(node, 0, "10.1.0.1/16")) is first
    assert status.leads_by(way, _interface(node, 1, "10.2.0.1/16")) is second
    assert not status.leads_by("via 10.1.0.254", _interface(node, 2))


def test_both_ends_get_back_what_was_declared_and_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    router = _node(PlainRouter, "r1", routes=[("10.2.0.0/16", "10.0.0.2"), ("10.3.0.0/16", "10.9.0.2")])
    host = _node(PlainHost, "ann", defaultRoute="via 10.0.0.1")
    other = _node(PlainHost, "ben", defaultRoute="via 10.0.0.1")
    ran: list[tuple[str, list[str]]] = []

    def run(node: EmulatedNode, argv: list[str]) -> str:
        ran.append((node.name, argv))
        if node is other and argv[1] == "route":
            raise TestbedError("ben: ip failed: RTNETLINK answers: File exists")
        return ""

    monkeypatch.setattr(hosts, "run", run)
    ends = [_interface(node, 0, f"10.0.0.{number}/24") for number, node in enumerate((router, host, other), 1)]
    switch = SimpleNamespace(name="s1")
    links: Any = [SimpleNamespace(intf1=end, intf2=_interface(switch, number)) for number, end in enumerate(ends)]
    assert status.change(links, up=False) == []
    assert all(argv[1:3] == ["link", "set"] and argv[-1] == "down" for _, argv in ran)
    assert status.change(links, up=True) == ["r1: 10.2.0.0/16 via 10.0.0.2", "ann: default via 10.0.0.1"]


def test_what_else_is_wrong_with_a_route_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(node: EmulatedNode, argv: list[str]) -> str:
        if argv[1] == "route":
            raise TestbedError("ann: ip failed: Network is unreachable")
        return ""

    monkeypatch.setattr(hosts, "run", run)
    host = _node(PlainHost, "ann", defaultRoute="via 10.0.0.1")
    link: Any = SimpleNamespace(
        intf1=_interface(host, 0, "10.0.0.2/24"), intf2=_interface(SimpleNamespace(name="s1"), 1)
    )
    with pytest.raises(TestbedError, match="unreachable"):
        status.change([link], up=True)
