"""The relay delays, loses and swallows as asked, and keeps offloaded segments whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import hosts, processes
from testbed.errors import TestbedError
from testbed.link import emulated
from tests.emulation.pair import pair


@pytest.fixture(autouse=True)
def without_netem(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The relay is under test, also where the kernel has netem."""
    monkeypatch.setattr(emulated, "netem_available", lambda: False)
    yield


@pytest.mark.parametrize("milliseconds", [1, 10, 50])
def test_a_delay_is_what_was_asked(tmp_path: Path, milliseconds: int) -> None:
    with pair(tmp_path, delay=f"{milliseconds}ms") as ends:
        times = sorted(ends.ping(40))
        assert len(times) == 40
        asked = 2 * milliseconds / 1e3
        assert asked <= times[0]
        assert times[len(times) // 2] < asked + 0.002


def test_delay_jitter_and_hole_change_while_it_runs(tmp_path: Path) -> None:
    with pair(tmp_path, impairable=True) as ends:
        assert min(ends.ping(5)) < 0.005
        ends.link.change(delay=0.020)
        assert min(ends.ping(5)) >= 0.040
        ends.link.change(delay="30ms", jitter="10ms", towards="left")
        times = ends.ping(40)
        assert 0.040 <= min(times) < 0.047
        assert max(times) > 0.053
        ends.link.change(hole=True, towards="right")
        assert ends.ping(5) == []
        ends.link.change(hole=False, delay=0, jitter=0)
        assert min(ends.ping(5)) < 0.005
        there, back = ends.link.counters().values()
        assert there["swallowed"] >= 5
        assert back["swallowed"] == 0


def test_loss_is_the_asked_share_of_single_frames(tmp_path: Path) -> None:
    # With this seed nothing of iperf3's greeting is lost, which it would not repeat.
    with pair(tmp_path, delay="1ms", loss=10, seed=280) as ends:
        # TCP's large segments: were they lost as a whole, far fewer and far larger losses would be counted.
        result = ends.iperf("-u", "-b", "20M", "-l", "1400", seconds=3)["end"]["sum"]
        assert 7 < result["lost_percent"] < 13
        offloads = hosts.run(ends.left, ["ethtool", "-k", "left-eth0"])
        assert "tcp-segmentation-offload: off" in offloads
        ends.link.change(loss=0)
        offloads = hosts.run(ends.left, ["ethtool", "-k", "left-eth0"])
        assert "tcp-segmentation-offload: on" in offloads
        assert len(ends.ping(30)) == 30


def test_offloaded_segments_stay_whole(tmp_path: Path) -> None:
    with pair(tmp_path, delay="1ms") as ends:
        result = ends.iperf(seconds=2)["end"]
        forwarded = ends.link.counters()["left-right"]["forwarded"]
        assert result["sum_received"]["bytes"] / forwarded > 4 * 1448


def test_bytes_come_through_unchanged(tmp_path: Path) -> None:
    with pair(tmp_path, bw=100, delay="2ms") as ends:
        # Loopback checks nothing, so the sums are compared: 20 MB of random bytes over TCP.
        script = (
            "import hashlib,socket,os,sys\n"
            "s=socket.create_connection(('10.8.0.2',5778)); h=hashlib.sha256()\n"
            "for _ in range(320): b=os.urandom(65536); h.update(b); s.sendall(b)\n"
            "s.shutdown(1); print(s.recv(100).decode()==h.hexdigest())"
        )
        sink = (
            "import hashlib,socket\n"
            "l=socket.create_server(('',5778)); print('up',flush=True); c,_=l.accept(); h=hashlib.sha256()\n"
            "while b:=c.recv(1<<20): h.update(b)\n"
            "c.sendall(h.hexdigest().encode())"
        )
        log = tmp_path / "sink.log"
        server = processes.start("sink", hosts.inside(ends.right, ["python3", "-c", sink]), log=log)
        try:
            server.wait_ready(lambda: "up" in log.read_text())
            assert hosts.run(ends.left, ["python3", "-c", script], timeout=30).strip() == "True"
        finally:
            server.stop()


def test_wrong_settings_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pair(tmp_path, delay="1ms") as ends:
        with pytest.raises(TestbedError, match="loss must be from 0 to 100 percent, not 200"):
            ends.link.change(loss=200)
        assert ends.ping(3)
    with pair(tmp_path) as plain, pytest.raises(TestbedError, match="has no relay"):
        plain.link.change(loss=1)
