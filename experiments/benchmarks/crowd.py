"""Many hosts on one switch, up and down: Serval's network beside Mininet alone, and what a node takes of memory.

    mininet   stock Mininet: its hosts, its links, a learning switch, no controller; up when start() returns
    serval    the same hosts each with a Serval node, the controller and its fabric; up when the controller knows every
              node and the switch, as the testbed's own runs see it

Both bring a private Open vSwitch of their own up and down with them. Down is the orderly way; the end of a sandbox is
quicker, as its kernel does the work.
"""

from __future__ import annotations

import socket
import statistics
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from testbed.measure.plan import DIFFERENCE, LOWER, RATIO, Benchmark, Comparison, Figure, Reading, Settings

MININET, SERVAL = "mininet", "serval"
_MIB = 1 << 20


def pss_bytes(pid: int) -> int:
    """The proportional set size of a process: its own pages, and its share of those that it has with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss")


def listener_pid(path: str) -> int:
    """The process that listens on a unix socket (unix(7), SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(path)
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


class Crowd:
    """The bed: nothing stands between the runs."""

    def __init__(self, parameters: Mapping[str, Any], logs: Path) -> None:
        self._count, self._logs = parameters["hosts"], logs

    def facts(self) -> Mapping[str, Any]:
        from testbed import openvswitch

        datapath = openvswitch.datapath_type()
        return {"open_vswitch_datapath": datapath.name, "because": datapath.reason}

    def measure(self, variant: str) -> Reading:
        return self._serval() if variant == SERVAL else self._mininet()

    def _serval(self) -> Reading:
        from experiments.benchmarks.star import Star
        from testbed.network import ServalNetwork

        begun = time.monotonic()
        net = ServalNetwork(Star(hosts=self._count), logs=self._logs)
        net.start()
        up = time.monotonic()
        try:
            sizes = [pss_bytes(listener_pid(host.control_path)) / _MIB for host in net.serval_hosts]
            shells = [pss_bytes(host.shell.pid) / _MIB for host in net.hosts]
        finally:
            stopping = time.monotonic()
            net.stop()
        metrics = {
            "up": up - begun,
            "down": time.monotonic() - stopping,
            "node_mib": statistics.mean(sizes),
            "shell_mib": statistics.mean(shells),
        }
        return Reading(metrics, {"node_mib": sizes})

    def _mininet(self) -> Reading:
        from mininet.net import Mininet
        from mininet.node import OVSSwitch

        from experiments.benchmarks.star import Star
        from testbed import openvswitch

        datapath = openvswitch.datapath_type().mininet_name
        # Mininet would set limits of the whole machine in its constructor; the sandbox has what is needed.
        Mininet.inited = True
        switch = partial(OVSSwitch, datapath=datapath, failMode="standalone")
        begun = time.monotonic()
        vswitch = openvswitch.start(self._logs)
        try:
            net = Mininet(topo=Star(hosts=self._count), switch=switch, controller=None, build=False)
            try:
                net.start()  # builds it first
                up = time.monotonic()
                shells = [pss_bytes(host.shell.pid) / _MIB for host in net.hosts]
            finally:
                stopping = time.monotonic()
                net.stop()
        finally:
            vswitch.stop()
        down = time.monotonic() - stopping
        return Reading({"up": up - begun, "down": down, "shell_mib": statistics.mean(shells)})


@contextmanager
def bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[Crowd]:
    yield Crowd(parameters, settings.logs)


def _hosts(name: str, count: int, run_seconds: float, *, by_name: bool = False, **aims: float) -> Benchmark:
    """`aims`: the most that Serval may take, as a multiple of Mininet alone, to come up and to go down."""
    shown: dict[str, Any] = {"unit": "s", "better": LOWER}
    return Benchmark(
        name=name,
        title="{hosts} hosts up and down, and memory per node",
        comparisons=(Comparison(SERVAL, MININET), Comparison(MININET, MININET)),
        figures=(
            Figure("up, Mininet alone", "up", MININET, **shown),
            Figure("up, Serval", "up", SERVAL, noise=MININET, **shown),
            Figure("up, Serval / Mininet alone", "up", SERVAL, MININET, RATIO, better=LOWER, aim=aims.get("up")),
            Figure("up, Serval adds", "up", SERVAL, MININET, DIFFERENCE, **shown),
            Figure("down, Mininet alone", "down", MININET, **shown),
            Figure("down, Serval", "down", SERVAL, noise=MININET, **shown),
            Figure("down, Serval / Mininet alone", "down", SERVAL, MININET, RATIO, better=LOWER, aim=aims.get("down")),
            Figure("memory of a Serval node (PSS)", "node_mib", SERVAL, unit="MiB", better=LOWER),
            Figure("memory of a host's shell (PSS)", "shell_mib", MININET, unit="MiB", better=LOWER),
        ),
        bed=bed,
        parameters={"hosts": count},
        quick={"hosts": 4, "run_seconds": 2.0},
        run_seconds=run_seconds,
        setup_seconds=0.5,
        by_name=by_name,
    )


BENCHMARKS = (
    _hosts("hosts", 50, 4.0),
    _hosts("hosts-200", 200, 14.0, by_name=True, up=2.0, down=1.0),
)
