"""What the kernel tells of links, addresses, routes and sockets; in the sandbox's namespace, on links made for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from serval_node.io.netlink import HostNetwork, NetworkChange
from serval_node.io.sock_diag import DestroyMonitor, InetSocket, TcpState, listeners
from serval_node.wire.ipv4 import address

LINK, PEER = "kt-here", "kt-there"
LIMIT = 10.0
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + LIMIT
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"{what} was not seen within {LIMIT:g} s"
        time.sleep(0.005)
    return found


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def link() -> Iterator[None]:
    ip("link", "add", LINK, "type", "veth", "peer", "name", PEER)
    try:
        ip("address", "add", "10.98.0.1/24", "dev", LINK)
        ip("link", "set", LINK, "up")
        ip("link", "set", PEER, "up")
        yield
    finally:
        ip("link", "delete", LINK)


@pytest.fixture
def network(link: None) -> Iterator[HostNetwork]:
    network = HostNetwork()
    yield network
    network.close()


def change(network: HostNetwork, wanted: Callable[[NetworkChange], bool]) -> NetworkChange:
    return wait_for("the change", lambda: found if wanted(found := network.readable()) else None)


def test_links_and_addresses_are_known(network: HostNetwork) -> None:
    (entry,) = [entry for entry in network.links.values() if entry.name == LINK]
    assert (entry.mtu, entry.loopback) == (1500, False)
    assert network.is_local(address("10.98.0.1")) and not network.is_local(address("10.98.0.2"))
    assert address("10.98.0.1") in network.own_addresses()
    assert network.link_of(address("10.98.0.1")) == entry
    assert network.smallest_mtu() == 1500


def test_the_source_address_follows_the_routes(network: HostNetwork) -> None:
    far = address("192.0.2.77")
    assert network.source_address(address("10.98.0.9")) == address("10.98.0.1")
    assert network.source_address(address("10.98.0.1")) == address("10.98.0.1")
    assert network.source_address(far) is None
    ip("route", "add", "192.0.2.0/24", "via", "10.98.0.9")
    wait_for("the new route", lambda: (network.readable(), network.source_address(far))[1])
    ip("address", "add", "10.98.0.5/24", "dev", LINK)
    ip("route", "replace", "192.0.2.0/24", "via", "10.98.0.9", "src", "10.98.0.5")

    def moved() -> bool | None:
        network.readable()
        return network.source_address(far) == address("10.98.0.5") or None

    wait_for("the other source", moved)


def test_changes_are_told(network: HostNetwork) -> None:
    ip("address", "add", "10.98.7.1/24", "dev", LINK)
    (added,) = change(network, lambda found: bool(found.added)).added
    assert (added.address, added.prefix_length) == (address("10.98.7.1"), 24)
    ip("address", "delete", "10.98.7.1/24", "dev", LINK)
    assert change(network, lambda found: bool(found.removed)).removed == (added,)
    ip("link", "set", PEER, "down")
    assert LINK in {entry.name for entry in change(network, lambda found: bool(found.links_down)).links_down}
    assert network.readable() == NetworkChange()


def test_addresses_of_ignored_links_are_not_the_hosts_own(link: None) -> None:
    network = HostNetwork(ignore=(LINK,))
    try:
        assert not network.is_local(address("10.98.0.1"))
        assert network.source_address(address("10.98.0.9")) is None
    finally:
        network.close()


def listening(port: int) -> InetSocket | None:
    return next((entry for entry in listeners() if entry.local_port == port), None)


@pytest.mark.parametrize(
    ("family", "text", "v6only"),
    [
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET, "127.0.0.1", False),
        (socket.AF_INET6, "::", False),
        (socket.AF_INET6, "::", True),
    ],
)
def test_listeners_are_dumped_with_what_tells_them_apart(family: int, text: str, v6only: bool) -> None:
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        server.bind((text, 0))
        port = server.getsockname()[1]
        assert listening(port) is None, "bound is not yet listening"
        server.listen()
        entry = listening(port)
        assert entry is not None
        assert (entry.family, entry.state, entry.uid) == (family, TcpState.LISTEN, os.getuid())
        assert (entry.local_address, entry.v6only) == (socket.inet_pton(family, text), v6only)
        assert entry.wildcard == (text != "127.0.0.1")
        assert entry.inode == os.fstat(server.fileno()).st_ino
    assert listening(port) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_kill_minus_nine_of_a_listener_is_heard(host: str) -> None:
    family = "AF_INET6" if ":" in host else "AF_INET"
    program = (
        "import socket, time\n"
        f"server = socket.create_server(({host!r}, 0), family=socket.{family})\n"
        "print(server.getsockname()[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        entry = listening(int(server.stdout.readline()))
        assert entry is not None and entry.cookie
        monitor = DestroyMonitor()
        try:
            assert monitor.readable() == ([], False)
            os.kill(server.pid, signal.SIGKILL)
            gone = wait_for("the end of the listener", lambda: next(iter(monitor.readable()[0]), None))
        finally:
            monitor.close()
    assert (gone.cookie, gone.local_port, gone.state) == (entry.cookie, entry.local_port, TcpState.CLOSE)
