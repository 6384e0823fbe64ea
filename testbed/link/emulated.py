"""A link of an emulated network: a veth pair with a shape of its own for each direction, which can be changed.

The rate is HTB's, at the end from which a direction begins; delay, jitter, loss and holes are netem's where the kernel
has it, else a relay's, a program between two veth pairs. A relay is also there where jitter must not reorder, which
netem cannot, and where the topology says impairable=True.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mininet.link import Intf, Link
from mininet.node import Node, OVSSwitch

from testbed import hosts, processes
from testbed.errors import TestbedError
from testbed.link import end, veth
from testbed.link.planned import without_relay
from testbed.link.relay_process import LinkRelay, carries_udp_segments
from testbed.link.shape import Shape, mtu, shapes

MAX_NAME = 15
_GOING = 77  # the group of interfaces that are taken away


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


def needs_relay(wanted: Iterable[Shape], *, impairable: bool, netem: bool) -> bool:
    """Whether a link with these shapes has a relay, on a kernel with or without netem."""
    both = tuple(wanted)
    ordered_jitter = any(shape.jitter > 0 and not shape.reorder for shape in both)
    return impairable or ordered_jitter or (not netem and any(shape.impaired for shape in both))


class EmulatedLink(Link):
    """A veth pair with a shape, or two pairs and a relay between them.

    Options beside Mininet's: bw, delay, jitter, loss, max_queue_size, reorder (see testbed.link.shape), those in
    params1 and params2 for what leaves by one end alone; impairable=True: everything can be changed while it runs;
    mtu: of both ends.
    """

    def __init__(self, node1: Node, node2: Node, **params: Any) -> None:
        self.shapes = shapes(params)
        self.mtu = mtu(params)
        self.impairable = bool(params.get("impairable", False))
        self.relay: LinkRelay | None = None
        self.wire_ends: tuple[str, str] | None = None
        self._whole_segments: set[int] = set()  # the ends that are given offloaded segments
        super().__init__(node1, node2, **{**params, "intf": hosts.Interface})

    @property
    def name(self) -> str:
        return f"{self.intf1.node.name}-{self.intf2.node.name}"

    @property
    def ends(self) -> tuple[Intf, Intf]:
        return self.intf1, self.intf2

    @property
    def shape(self) -> Shape:
        """Of both directions; where they differ, of the one from the first end. `shape_towards` knows which."""
        return self.shapes[0]

    def shape_towards(self, node: str) -> Shape:
        """Of the direction that ends at a node; raises TestbedError."""
        return self.shapes[self._direction_towards(node)]

    @property
    def described(self) -> str:
        """Both directions in words."""
        first, second = map(str, self.shapes)
        if first == second:
            return first
        names = [interface.node.name for interface in self.ends]
        return f"{first} towards {names[1]}, {second} towards {names[0]}"

    @property
    def mechanism(self) -> str | None:
        """Who delays and loses: "netem", "relay", or nobody."""
        if self.wire_ends is not None:
            return "relay"
        return "netem" if any(shape.impaired for shape in self.shapes) else None

    @property
    def _netem(self) -> bool:
        return self.wire_ends is None and netem_available()

    def makeIntfPair(
        self, intfname1: str, intfname2: str, addr1: str, addr2: str, node1: Node, node2: Node, deleteIntfs: bool = True
    ) -> None:
        asks = self.impairable or any(shape.impaired for shape in self.shapes)
        if not asks or not needs_relay(self.shapes, impairable=self.impairable, netem=netem_available()):
            _add_pair(node1, intfname1, addr1, node2, intfname2, addr2)
            return
        self.wire_ends = (_wire_name(intfname1), _wire_name(intfname2))
        for node, name, address, wire in zip(
            (node1, node2), (intfname1, intfname2), (addr1, addr2), self.wire_ends, strict=True
        ):
            hosts.run(node, [*veth.command(name, address, wire), "netns", str(os.getpid())])
            processes.run(["ip", "link", "set", wire, "up"])

    def apply(self, *, userspace_switches: bool, logs: Path, seed: int | None = None) -> None:
        """Give both ends their shapes, and read them back; raises TestbedError. Call it once all is up, and
        `wait_ready` before anything is to pass.
        """
        for number, (interface, other) in enumerate(((self.intf1, self.intf2), (self.intf2, self.intf1))):
            lines = [] if self.mtu is None else [f"ip link set {interface.name} mtu {self.mtu}"]
            if userspace_switches and isinstance(other.node, OVSSwitch) and not isinstance(interface.node, OVSSwitch):
                # Segments whose checksum is left to hardware that is not there pass no switch in user space.
                lines.append(f"ethtool -K {interface.name} tx off")
            else:
                self._whole_segments.add(number)
                if self.wire_ends is not None and not carries_udp_segments():
                    lines.append(f"ethtool -K {interface.name} tx-udp-segmentation off")
                if self.shapes[number].single_frames:
                    lines.append(f"ethtool -K {interface.name} tso off gso off")
            end.apply(interface, self.shapes[number], netem=self._netem, before=lines)
        if self.wire_ends is not None:
            if self.mtu is not None:
                for wire in self.wire_ends:
                    processes.run(["ip", "link", "set", wire, "mtu", str(self.mtu)])
            self.relay = LinkRelay(self.name, self.wire_ends, self.shapes, seed, logs)

    def wait_ready(self) -> None:
        """Wait for the relay, if there is one; raises TestbedError."""
        if self.relay is not None:
            self.relay.wait_ready()

    def change(
        self,
        *,
        towards: str | None = None,
        rate: float | str | None = None,
        delay: float | str | None = None,
        jitter: float | str | None = None,
        loss: float | None = None,
        queue: int | None = None,
        reorder: bool | None = None,
        hole: bool | None = None,
    ) -> None:
        """Change what is given while the network runs, and read it back; the rest stays as it is.

        towards        the node at which the direction ends that is changed; default: both directions
        rate           Mbit/s of frames, or "10Mbit"; math.inf: none
        delay, jitter  seconds one way, or "5ms"
        loss           percent of frames
        queue          full frames that may wait for the rate
        reorder        whether jitter may let a frame overtake
        hole           whether everything is swallowed, silently

        Raises TestbedError, and changes nothing, for a value that makes no sense, and for one that this link cannot
        have: without netem, delay, loss and holes need a relay, which a link has from its start or not at all.
        """
        wanted = {"rate": rate, "delay": delay, "jitter": jitter, "loss": loss, "queue": queue}
        wanted |= {"reorder": reorder, "hole": hole}
        numbers = (0, 1) if towards is None else (self._direction_towards(towards),)
        new = list(self.shapes)
        for number in numbers:
            new[number] = self.shapes[number].changed(**wanted)  # type: ignore[arg-type]
        self._check_able(new)
        for number in numbers:
            self._change_direction(number, new[number])

    def counters(self) -> dict[str, dict[str, Any]]:
        """What the relay has done, by direction: {"ann-r1": {"forwarded": ..., "late_max": seconds, ...}, ...}; empty
        without a relay. Raises TestbedError.
        """
        if self.relay is None:
            return {}
        names = [interface.node.name for interface in self.ends]
        ways = ("-".join(names), "-".join(names[::-1]))
        return dict(zip(ways, self.relay.request("state")["directions"], strict=True))

    def stop(self) -> None:
        """Take it away; what is in a host's namespace goes with the host."""
        remove([self])

    def _check_able(self, wanted: Iterable[Shape]) -> None:
        """Raises TestbedError when this link, as it was made, cannot have these shapes."""
        if self.wire_ends is None and needs_relay(wanted, impairable=False, netem=netem_available()):
            raise without_relay(self.name)

    def _change_direction(self, number: int, shape: Shape) -> None:
        interface, before = self.ends[number], self.shapes[number]
        if shape.single_frames != before.single_frames and number in self._whole_segments:
            end.single_frames(interface, shape.single_frames)
        end.change(interface, before, shape, netem=self._netem)
        if self.wire_ends is not None:
            if self.relay is None:
                raise TestbedError(f"the relay of link {self.name} does not run", "start the network first")
            self.relay.set(number, shape)
        self.shapes = (shape, self.shapes[1]) if number == 0 else (self.shapes[0], shape)

    def _number_of(self, node: str) -> int:
        names = [interface.node.name for interface in self.ends]
        if node not in names:
            raise TestbedError(f"link {self.name} does not end at {node!r}", f"its ends are {' and '.join(names)}")
        return names.index(node)

    def _direction_towards(self, node: str) -> int:
        return 1 - self._number_of(node)


def remove(links: Iterable[EmulatedLink]) -> None:
    """Take links away, relays first; raises TestbedError."""
    names: list[str] = []
    for link in links:
        if link.relay is not None:
            link.relay.stop()
            link.relay = None
        ends = [interface.name for interface in link.ends if not interface.node.inNamespace]
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
    hosts.run(node1, [*veth.command(name1, address1, name2), "address", address2, "netns", str(node2.pid)])
