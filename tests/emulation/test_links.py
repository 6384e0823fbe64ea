"""Links do what they are asked, and say so when they do not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from testbed import capture, hosts
from testbed.calibration import TCP_HEADERS, USUAL_MTU
from testbed.errors import TestbedError
from testbed.iperf import INTERVAL, received_rate, settled_rate
from testbed.link import end
from testbed.link.emulated import netem_available
from testbed.link.shape import FRAME_BYTES, Shape
from tests.emulation.pair import RIGHT, pair

TCP_PAYLOAD = USUAL_MTU - TCP_HEADERS


@pytest.mark.parametrize("rate", [10, 100])
def test_a_link_has_the_rate_that_was_asked(tmp_path: Path, rate: int) -> None:
    with pair(tmp_path, bw=rate) as ends:
        achieved = ends.iperf(seconds=3)["end"]["sum_received"]["bits_per_second"] / 1e6
        leaves = rate * TCP_PAYLOAD / FRAME_BYTES
        assert achieved <= leaves * 1.02
        assert achieved >= leaves * 0.9


def test_no_rate_that_is_told_is_above_what_the_link_leaves(tmp_path: Path) -> None:
    with pair(tmp_path, bw=100, delay="2ms") as ends:
        leaves = 100 * TCP_PAYLOAD / FRAME_BYTES
        assert leaves * 0.8 <= received_rate(ends.iperf(seconds=2)) <= leaves * 1.002
        assert leaves * 0.8 <= settled_rate(ends.iperf("-R", "-i", str(INTERVAL), seconds=3)) <= leaves * 1.002


@pytest.mark.parametrize("more", [{}, {"delay": "1ms", "impairable": True}], ids=["cable", "relay"])
def test_large_frames_pass_where_they_were_asked_for(tmp_path: Path, more: dict[str, Any]) -> None:
    with pair(tmp_path, bw=1000, mtu=9000, **more) as ends:
        assert ", 0% packet loss" in hosts.run(ends.left, ["ping", "-c", "1", "-M", "do", "-s", "8972", RIGHT])


def test_a_rate_that_is_not_there_is_noticed(tmp_path: Path) -> None:
    with pair(tmp_path, bw=100) as ends:
        interface = ends.link.intf1
        end.check(interface, ends.link.shape)
        change = f"tc class change dev {interface} parent 5: classid 5:1 htb rate 90mbit burst 6250 quantum 15140"
        hosts.script(ends.left, [change])
        with pytest.raises(TestbedError, match=r"asked for 100 Mbit/s, tc shows 90 Mbit/s"):
            end.check(interface, ends.link.shape)
        hosts.script(ends.left, [f"tc qdisc del dev {interface} root"])
        with pytest.raises(TestbedError, match="no HTB class"):
            end.check(interface, ends.link.shape)


def test_the_queue_in_front_of_the_rate_is_bounded_in_time(tmp_path: Path) -> None:
    with pair(tmp_path, bw=10) as ends:
        # Many flows fill whatever queue there is: 128 KiB make 105 ms, the kernel's 1000 packets seconds.
        streams = ends.iperf("-P", "8", seconds=3)["end"]["streams"]
        assert 0.03 < max(stream["sender"]["max_rtt"] for stream in streams) / 1e6 < 0.25


def test_rate_and_queue_change_while_traffic_flows(tmp_path: Path) -> None:
    with pair(tmp_path, bw=50) as ends:
        ends.link.change(rate=10, queue=60, towards="right")
        assert ends.link.shapes == (Shape(rate=10, queue=60), Shape(rate=50))
        leaves = TCP_PAYLOAD / FRAME_BYTES
        rates = [ends.iperf(*way, seconds=1.5)["end"]["sum_received"]["bits_per_second"] / 1e6 for way in ((), ("-R",))]
        assert 5 * leaves < rates[0] <= 10 * leaves * 1.05
        assert 25 * leaves < rates[1] <= 50 * leaves * 1.05
        offloads = hosts.run(ends.left, ["ethtool", "-k", "left-eth0"])
        assert "tcp-segmentation-offload: off" in offloads, "a queue of 60 frames would drop whole segments"
        # 60 frames at 10 Mbit/s make 73 ms.
        streams = ends.iperf("-P", "8", seconds=1)["end"]["streams"]
        assert 0.02 < max(stream["sender"]["max_rtt"] for stream in streams) / 1e6 < 0.15
        ends.link.change(rate=math.inf)
        assert "htb" not in hosts.run(ends.left, ["tc", "qdisc", "show", "dev", "left-eth0"])


def test_hosts_are_silent_and_take_what_comes_another_way(tmp_path: Path) -> None:
    with pair(tmp_path) as ends:
        shown = hosts.run(ends.left, ["ip", "address"])
        assert "inet6" not in shown
        assert hosts.run(ends.left, ["sysctl", "-n", "net.ipv4.conf.left-eth0.rp_filter"]).strip() == "0"


def test_a_failing_command_names_the_host_and_what_it_said(tmp_path: Path) -> None:
    with pair(tmp_path) as ends, pytest.raises(TestbedError, match=r"left: .*does not exist"):
        hosts.run(ends.left, ["ip", "link", "show", "dev", "nothing"])


def test_a_link_goes_without_a_trace(tmp_path: Path) -> None:
    before = set(Path("/sys/class/net").iterdir())
    with pair(tmp_path, bw=10, delay="5ms") as ends:
        assert ends.ping(3)
        if not netem_available():
            assert set(Path("/sys/class/net").iterdir()) - before
    assert set(Path("/sys/class/net").iterdir()) == before


def test_with_netem_the_kernel_delays(tmp_path: Path) -> None:
    if not netem_available():
        pytest.skip("kernel without netem: the relay's tests stand for this one")
    with pair(tmp_path, bw=100, delay="10ms") as ends:
        assert ends.link.mechanism == "netem"
        times = sorted(ends.ping())
        assert 0.020 <= times[len(times) // 2] < 0.025


def test_both_ways_of_capturing_see_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair(tmp_path) as ends:
        assert ends.ping(2)  # ARP is done: it would be asked again between the two
        captures = {}
        for user_namespace in (False, True):
            monkeypatch.setattr(capture, "in_user_namespace", lambda answer=user_namespace: answer)
            running = capture.Capture([ends.left], tmp_path / str(user_namespace), snap=64)
            try:
                assert len(ends.ping(5)) == 5
            finally:
                running.stop()
            assert running.dropped() == 0
            frames = list(capture.read(running.directory / "left-eth0.pcap"))
            captures[user_namespace] = [
                (frame.length, len(frame.data), frame.data[:14]) for frame in frames if frame.data[12:14] == b"\x08\x00"
            ]
        assert captures[False] == captures[True]
        assert len(captures[True]) == 12
