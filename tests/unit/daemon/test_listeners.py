"""Bindings: which listening sockets can be reached, and how long their rules live."""

from __future__ import annotations

import socket

import pytest

from serval_node.daemon.listeners import Binding, Bindings, ListenerRefused, choose, reach
from serval_node.daemon.virtual_addresses import SAL0_ADDRESS
from serval_node.io.sock_diag import InetSocket, TcpState
from serval_node.wire.serviceid import Prefix

WEB = Prefix(b"\x12\x34\x56".ljust(32, b"\0"), 80)
MAIL = Prefix(b"\x12\x34\x57".ljust(32, b"\0"), 80)


def listener(address: str, port: int = 80, cookie: int = 1, *, v6only: bool = False) -> InetSocket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    return InetSocket(family, TcpState.LISTEN, raw, port, bytes(len(raw)), 0, 0, cookie, 0, 1000 + cookie, v6only)


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("0.0.0.0", SAL0_ADDRESS),
        ("::", SAL0_ADDRESS),
        ("198.18.0.1", SAL0_ADDRESS),
        ("127.0.0.1", bytes((127, 0, 0, 1))),
        ("127.0.0.9", bytes((127, 0, 0, 9))),
        ("::ffff:127.0.0.1", bytes((127, 0, 0, 1))),
    ],
)
def test_where_syns_go(address: str, reached: bytes) -> None:
    found = reach(listener(address))
    assert (found.address, found.warning) == (reached, None)


@pytest.mark.parametrize("address", ["10.0.3.4", "::ffff:10.0.3.4"])
def test_a_specific_address_is_taken_with_a_warning(address: str) -> None:
    found = reach(listener(address))
    assert found.address == bytes((10, 0, 3, 4))
    assert found.warning == "port 80 listens on 10.0.3.4 only: its flows cannot outlive that address"


def test_v6_only_listeners_are_refused_with_the_reason() -> None:
    with pytest.raises(ListenerRefused, match="IPV6_V6ONLY"):
        reach(listener("::", v6only=True))
    with pytest.raises(ListenerRefused, match=r"\[::1\] only"):
        reach(listener("::1"))


def test_of_several_sockets_on_a_port_the_widest_are_chosen() -> None:
    sockets = [
        listener("10.0.3.4", cookie=1),
        listener("127.0.0.1", cookie=2),
        listener("0.0.0.0", cookie=3),
        listener("::", cookie=4, v6only=True),
        listener("0.0.0.0", cookie=5),
    ]
    assert [pair[0].cookie for pair in choose(sockets)] == [3, 5]
    assert [pair[0].cookie for pair in choose(sockets[:2])] == [2]
    with pytest.raises(ListenerRefused, match="IPV6_V6ONLY"):
        choose(sockets[3:4])
    with pytest.raises(ListenerRefused, match="nothing listens"):
        choose([])


def bind(prefix: Prefix, sock: InetSocket) -> Binding:
    return Binding(prefix, sock.cookie, sock.inode, sock.local_port, reach(sock).address)


def test_a_rule_lives_until_its_last_socket_ends() -> None:
    bindings = Bindings()
    workers = [listener("0.0.0.0", cookie=cookie) for cookie in (1, 2)]
    first = bindings.add(bind(WEB, workers[0]))
    assert first.begun == ((WEB, 80, SAL0_ADDRESS, 6),)
    assert not bindings.add(bind(WEB, workers[1]))
    assert not bindings.add(bind(WEB, workers[1])), "binding again changes nothing"
    assert not bindings.reconcile(workers)
    assert not bindings.reconcile(workers[1:]), "the second worker still listens"
    assert bindings.reconcile([]).ended == ((WEB, 80, SAL0_ADDRESS, 6),)
    assert len(bindings) == 0


def test_a_new_socket_on_the_same_port_does_not_keep_an_old_rule_alive() -> None:
    bindings = Bindings()
    bindings.add(bind(WEB, listener("0.0.0.0", cookie=1)))
    assert bindings.reconcile([listener("0.0.0.0", cookie=9)]).ended


def test_one_socket_may_serve_several_names() -> None:
    bindings = Bindings()
    sock = listener("0.0.0.0", cookie=1)
    bindings.add(bind(WEB, sock))
    bindings.add(bind(MAIL, sock))
    assert bindings.remove(WEB, sock.inode).ended == ((WEB, 80, SAL0_ADDRESS, 6),)
    assert [binding.prefix for binding in bindings.items()] == [MAIL]
    assert bindings.clear().ended == ((MAIL, 80, SAL0_ADDRESS, 6),)
