"""What the kernel says about an interface's shaper, and that who paces by it spares the shaper its timers."""

from __future__ import annotations

import select
import subprocess
from collections.abc import Iterator

import pytest

from serval_node.io.raw_ip import RawIp
from serval_node.io.shaper import Bucket, interface_of, shaper
from serval_node.wire.ipv4 import address
from testbed.link.shape import Shape
from testbed.link.tc import rate_lines

OWN = address("10.7.0.1")


def sh(*lines: str) -> None:
    subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)


def shape(interface: str, asked: Shape) -> None:
    sh(f"tc qdisc del dev {interface} root 2>/dev/null || true", *rate_lines(interface, asked))


@pytest.fixture
def interface() -> Iterator[str]:
    name = "shaped0"
    sh(f"ip link add {name} type veth peer name shaped1", f"ip address add 10.7.0.1/24 dev {name}")
    yield name
    sh(f"ip link del {name}")


def test_a_links_rate_and_burst_are_read(interface: str) -> None:
    index = interface_of(OWN)
    assert index is not None and shaper(index) is None
    for rate in (10, 100, 1000):
        asked = Shape(rate=rate)
        shape(interface, asked)
        # tc counts the burst in microseconds.
        assert shaper(index) == Bucket(rate * 1e6 / 8, pytest.approx(asked.burst, abs=rate * 1e6 / 8 * 1e-6))
    sh(f"tc class add dev {interface} parent 5: classid 5:2 htb rate 1mbit quantum 1514")
    assert shaper(index) is None, "which class a packet takes is not known"
    assert interface_of(address("10.7.0.9")) is None


def test_a_sender_follows_the_shaper(interface: str) -> None:
    raw = RawIp()
    try:
        sender = raw.sender(OWN)
        assert sender.pace is None
        poll = select.poll()
        poll.register(raw.shaper_events.fileno(), select.POLLIN)
        for rate, paced in ((1000, True), (10, False), (200, True)):
            shape(interface, Shape(rate=rate))
            assert poll.poll(5000), "the kernel did not tell of the change"
            raw.shapers_changed()
            assert (sender.pace is not None) == paced
            assert not poll.poll(0)
        sh(f"tc qdisc del dev {interface} root")
        assert poll.poll(5000)
        raw.shapers_changed()
        assert sender.pace is None
    finally:
        raw.close()
