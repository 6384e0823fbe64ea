"""Links with a rate, a delay and a loss: HTB for the rate, netem or the relay for the rest; what is set is read back.

A rate is that of frames on the wire, in Mbit/s, and each direction has its own. The queue in front of it holds
shape.QUEUE_SECONDS of data: with the kernel's default of 1000 packets a queue of offloaded segments would hold seconds.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mininet.link import Intf, Link
from mininet.node import Node, OVSSwitch

from testbed import hosts, processes, sandbox
from testbed.errors import TestbedError
from testbed.link.shape import FRAME_BYTES, Shape
from testbed.link.tc import RATE_TOLERANCE, parse_class, rate_lines

MAX_NAME = 15
RELAY_DIRECTORY = Path("/run/testbed/relays")
_GOING = 77  # the group of interfaces that are taken away


def check_rate(interface: Intf, shape: Shape, shown: str | None = None) -> None:
    """Read back what tc was told (`shown`, or now); raises TestbedError when the interface has something else."""
    assert shape.rate is not None
    if shown is None:
        shown = hosts.run(interface.node, ["tc", "class", "show", "dev", interface.name])
    achieved = parse_class(shown)
    if abs(achieved.rate / (shape.rate * 1e6) - 1) > RATE_TOLERANCE:
        raise TestbedError(
            f"{interface.name}: asked for {shape.rate:g} Mbit/s, tc shows {achieved.rate / 1e6:g} Mbit/s",
            f"look at: tc class show dev {interface.name} (in {interface.node.name})",
        )


@cache
def netem_available() -> bool:
    """Whether this kernel has netem: found out on the sandbox's loopback interface."""
    try:
        processes.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
    except TestbedError as error:
        if "is missing" in error.message:
            raise
        return False
    processes.run(["tc", "qdisc", "del", "dev", "lo", "root"])
    return True


class LinkRelay:
    """The relay process of one link, and its control socket. The constructor does not wait for it."""

    _numbers = itertools.count(1)

    def __init__(self, name: str, ends: tuple[str, str], shape: Shape, seed: int | None, logs: Path) -> None:
        self.name = name
        self._path = RELAY_DIRECTORY / f"{next(self._numbers)}.sock"
        argv = [sys.executable, "-m", "testbed.link.relay", *ends, "--control", str(self._path)]
        argv += ["--delay", repr(shape.delay), "--loss", repr(shape.loss)]
        argv += ["--seed", str(seed)] if seed is not None else []
        log = logs / f"relay-{ends[0]}.log"
        self._daemon = processes.start(f"relay of {name}", argv, log=log, cwd=sandbox.ROOT)

    def wait_ready(self) -> None:
        """Wait until it passes frames on; raises TestbedError."""
        self._daemon.wait_ready(lambda: self._daemon.printed().endswith("ready\n"))

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request to the relay (see testbed.link.relay); raises TestbedError."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(3.0)
            try:
                channel.connect(str(self._path))
                channel.send(json.dumps({"op": op, **fields}).encode())
                answer = json.loads(channel.recv(65536))
            except OSError as error:
                raise TestbedError(f"the relay of {self.name}: {error}", f"its log is {self._daemon.log}") from None
        if not answer.pop("ok"):
            raise TestbedError(f"the relay of {self.name}: {answer['error']}")
        return answer

    def stop(self) -> None:
        self._daemon.stop()
        self._path.unlink(missing_ok=True)


class EmulatedLink(Link):
    """A veth pair with a shape; with delay or loss on a kernel without netem two pairs and a relay between them."""

    def __init__(self, node1: Node, node2: Node, **params: Any) -> None:
        self.shape = Shape.parse(params)
        self.relay: LinkRelay | None = None
        self.wire_ends: tuple[str, str] | None = None
        self._whole_segments: list[Intf] = []
        super().__init__(node1, node2, **{**params, "intf": hosts.Interface})

    @property
    def name(self) -> str:
        return f"{self.intf1.node.name}-{self.intf2.node.name}"

    @property
    def mechanism(self) -> str | None:
        """Who delays and loses: "netem", "relay", or nobody."""
        if self.wire_ends is not None:
            return "relay"
        return "netem" if self.shape.impaired else None

    def makeIntfPair(
        self, intfname1: str, intfname2: str, addr1: str, addr2: str, node1: Node, node2: Node, deleteIntfs: bool = True
    ) -> None:
        if not self.shape.impaired or netem_available():
            _add_pair(node1, intfname1, addr1, node2, intfname2, addr2)
            return
        self.wire_ends = (_wire_name(intfname1), _wire_name(intfname2))
        for node, name, address, end in zip(
            (node1, node2), (intfname1, intfname2), (addr1, addr2), self.wire_ends, strict=True
        ):
            pair = ["ip", "link", "add", "name", name, "address", address, "type", "veth", "peer", "name", end]
            hosts.run(node, [*pair, "netns", str(os.getpid())])
            processes.run(["ip", "link", "set", end, "up"])

    def apply(self, *, userspace_switches: bool, logs: Path, seed: int | None = None) -> None:
        """Give both ends their rate, delay and loss, and read it back; raises TestbedError. Call it once all is up, and
        `wait_ready` before anything is to pass.
        """
        for interface, other in ((self.intf1, self.intf2), (self.intf2, self.intf1)):
            lines = []
            if userspace_switches and isinstance(other.node, OVSSwitch) and not isinstance(interface.node, OVSSwitch):
                # Segments whose checksum is left to hardware that is not there pass no switch in user space.
                lines.append(f"ethtool -K {interface.name} tx off")
            else:
                self._whole_segments.append(interface)
            self._shape_end(interface, lines)
        if self.wire_ends is not None:
            if self.shape.loss > 0:
                self._split_frames(True)
            self.relay = LinkRelay(self.name, self.wire_ends, self.shape, seed, logs)

    def wait_ready(self) -> None:
        """Wait for the relay, if there is one; raises TestbedError."""
        if self.relay is not None:
            self.relay.wait_ready()

    def impair(self, *, delay: float | None = None, loss: float | None = None, hole: bool | None = None) -> None:
        """Change a relayed link while it runs: delay in seconds one way, loss in percent, black hole on or off."""
        if self.relay is None:
            raise TestbedError(f"link {self.name} has no relay", "a link has one when the topology gives it a delay")
        wanted = {"delay": delay, "loss": loss, "hole": hole}
        self.relay.request("set", **{name: value for name, value in wanted.items() if value is not None})
        if loss is not None:
            self._split_frames(loss > 0)

    def stop(self) -> None:
        """Take it away; what is in a host's namespace goes with the host."""
        remove([self])

    def _shape_end(self, interface: Intf, lines: list[str]) -> None:
        """Run shell lines and those for the rate in one go: each program costs as much as all that it does here."""
        leaf = None
        if self.mechanism == "netem":
            packets = 1000 + round((self.shape.rate or 1000) * 1e6 / 8 * self.shape.delay / FRAME_BYTES)
            leaf = f"netem delay {self.shape.delay * 1e6:.0f}us loss {self.shape.loss:g}% limit {packets}"
        if self.shape.rate is not None:
            commands = [*rate_lines(interface.name, self.shape, leaf), f"tc class show dev {interface.name}"]
            lines.append(hosts.batch("tc", [command.removeprefix("tc ") for command in commands]))
        elif leaf is not None:
            lines.append(f"tc qdisc replace dev {interface.name} root {leaf}")
        shown = hosts.script(interface.node, lines) if lines else ""
        if self.shape.rate is not None:
            check_rate(interface, self.shape, shown)

    def _split_frames(self, split: bool) -> None:
        # Loss is meant per frame; an offloaded segment would be lost as a whole.
        on = "off" if split else "on"
        for interface in self._whole_segments:
            hosts.run(interface.node, ["ethtool", "-K", interface.name, "tso", on, "gso", on])


def remove(links: Iterable[EmulatedLink]) -> None:
    """Take links away, relays first; raises TestbedError."""
    names: list[str] = []
    for link in links:
        if link.relay is not None:
            link.relay.stop()
            link.relay = None
        ends = [interface.name for interface in (link.intf1, link.intf2) if not interface.node.inNamespace]
        names += [*ends[:1], *(link.wire_ends or ())]
    there = [name for name in names if (Path("/sys/class/net") / name).exists()]
    if there:
        # As a group they go together: for each one alone the kernel waits until no processor can be using it.
        commands = [f"link set {name} group {_GOING}" for name in there] + [f"link del group {_GOING}"]
        processes.run(["sh", "-ec", hosts.batch("ip", commands)])


def _wire_name(interface: str) -> str:
    name = f"wire-{interface}"
    if len(name) > MAX_NAME:
        raise TestbedError(f"interface name {name} is longer than {MAX_NAME} characters", "use shorter node names")
    return name


def _add_pair(node1: Node, name1: str, address1: str, node2: Node, name2: str, address2: str) -> None:
    pair = ["ip", "link", "add", "name", name1, "address", address1, "type", "veth"]
    hosts.run(node1, [*pair, "peer", "name", name2, "address", address2, "netns", str(node2.pid)])
