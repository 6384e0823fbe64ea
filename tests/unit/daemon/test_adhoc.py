"""Ad hoc mode follows the host's links: which broadcast addresses take part, and who is a neighbour."""

from __future__ import annotations

import random
from typing import Any

import pytest

from serval_node.cli.adhoc import adhoc_text
from serval_node.daemon.adhoc import AdHocMode, broadcast_links, is_neighbour
from serval_node.io.netlink import InterfaceAddress, Link
from serval_node.sal.stack import Stack, StackConfig
from serval_node.wire.ipv4 import Address, address, address_text


class Network:
    """Links and addresses as HostNetwork has them."""

    def __init__(self, *links: tuple[str, str, bool]) -> None:
        self.links: dict[int, Link] = {1: Link(1, "lo", 65536, True, True)}
        self.addresses = [InterfaceAddress(1, address("127.0.0.1"), 8)]
        for index, (name, text, up) in enumerate(links, 2):
            where, _, bits = text.partition("/")
            self.links[index] = Link(index, name, 1500, up, False)
            self.addresses.append(InterfaceAddress(index, address(where), int(bits)))

    def is_local(self, found: Address) -> bool:
        return found[0] == 127 or found in {entry.address for entry in self.addresses}


def broadcasts(*links: tuple[str, str, bool]) -> list[str]:
    return [address_text(link.broadcast) for link in broadcast_links(Network(*links))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.9.0.7/24", "10.9.0.255"),
        ("10.9.0.7/30", "10.9.0.7"),
        ("10.9.0.5/29", "10.9.0.7"),
        ("172.16.200.1/12", "172.31.255.255"),
        ("10.9.0.7/31", None),
        ("10.9.0.7/32", None),
    ],
)
def test_broadcast_address_of_a_link(text: str, expected: str | None) -> None:
    assert broadcasts(("eth0", text, True)) == ([] if expected is None else [expected])
    assert broadcasts(("eth0", text, False)) == [], "a link that is down has nobody to ask"


def test_who_is_a_neighbour() -> None:
    network: Any = Network(("eth0", "10.9.0.7/24", True), ("eth1", "10.8.0.1/30", True))
    near = [text for text in ("10.9.0.1", "10.9.1.1", "10.8.0.2", "10.8.0.5", "10.9.0.7", "127.0.0.1", "127.0.0.9")
            if is_neighbour(network, address(text))]  # fmt: skip
    assert near == ["10.9.0.1", "10.8.0.2"]


class NoEnvironment:
    def source_address(self, destination: Address) -> Address | None:
        return None

    def is_local(self, found: Address) -> bool:
        return False

    def service_for(self, found: Address, port: int) -> None:
        return None


def test_the_mode_follows_the_links() -> None:
    stack = Stack(config=StackConfig(), environment=NoEnvironment(), rng=random.Random(1))
    network: Any = Network(("eth0", "10.9.0.7/24", True), ("eth1", "10.8.0.1/24", False))
    told: list[tuple[Address, ...]] = []
    mode = AdHocMode(stack, network, told.append, on=False, relay=True, hops=3)
    assert told == [()] and not stack.adhoc.links and not stack.adhoc.relay
    mode.set(on=True)
    assert dict(stack.adhoc.links) == {address("10.9.0.255"): address("10.9.0.7")}
    assert (stack.adhoc.relay, stack.adhoc.hops) == (True, 3)
    network.links[3] = Link(3, "eth1", 1500, True, False)
    mode.network_changed()
    assert told[-1] == (address("10.9.0.255"), address("10.8.0.255"))
    mode.set(on=True, relay=False, hops=5)
    assert (stack.adhoc.relay, stack.adhoc.hops) == (False, 5)
    with pytest.raises(ValueError, match="hop limit"):
        mode.set(on=False, hops=0)
    assert mode.on, "what is refused changes nothing"
    assert "hop limit 5; SYNs of others are not relayed" in adhoc_text({**mode.view(), "default": "adhoc"})
    mode.set(on=False)
    assert told[-1] == () and not stack.adhoc.links
    assert adhoc_text({**mode.view(), "default": None}).startswith("ad hoc mode is off")
