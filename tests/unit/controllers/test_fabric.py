"""The fabric's logic against simulated switches that really forward frames, broadcast storms included."""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque

import pytest

from controllers import lldp
from controllers.fabric import (
    DOUBT_INTERVAL,
    KEEP_PATHS_SECONDS,
    REPROBE_INTERVAL,
    SETTLE_SECONDS,
    SILENT_PROBES,
    Fabric,
    is_link_flow,
)
from controllers.flows import (
    MULTICAST,
    Actions,
    Barrier,
    Command,
    DeleteFlow,
    DeleteOldFlows,
    Key,
    PacketOut,
    SetFlow,
)
from serval_node.control.experimenter import node_datapath_id

BROADCAST = b"\xff" * 6


def mac(number: int) -> bytes:
    return b"\x02\x00" + number.to_bytes(4, "big")


def frame(destination: bytes, source: bytes, text: bytes = b"x") -> bytes:
    return destination + source + b"\x08\x00" + text


class Switch:
    def __init__(self) -> None:
        self.flows: dict[Key, tuple[int, Actions]] = {}
        self.connected = False
        self.generation = 0

    def lookup(self, table: int, port: int, data: bytes) -> Actions:
        best: tuple[int, Actions] | None = None
        for key, (_, actions) in self.flows.items():
            if key.table != table or (best is not None and best[0] >= key.priority):
                continue
            match = key.match
            if match.in_port not in (None, port) or match.source not in (None, data[6:12]):
                continue
            if match.ethertype is not None and data[12:14] != match.ethertype.to_bytes(2, "big"):
                continue
            if match.destination == MULTICAST:
                if not data[0] & 1:
                    continue
            elif match.destination not in (None, data[:6]):
                continue
            best = (key.priority, actions)
        return best[1] if best is not None else Actions()


class Net:
    """Switches, cables, stations; frames in a queue; a frame that is forwarded too often is a storm."""

    def __init__(self) -> None:
        self.fabric = Fabric()
        self.now = 100.0
        self.switches: dict[int, Switch] = {}
        self.cables: dict[tuple[int, int], tuple[int, int]] = {}
        self.stations: dict[tuple[int, int], bytes] = {}
        self.ports: dict[int, set[int]] = {}
        self.seen: list[tuple[bytes, bytes]] = []
        self.hops = 0
        self.packet_ins = 0
        self.holes: set[tuple[int, int]] = set()
        self.wire: deque[tuple[int, int, bytes]] = deque()
        self.commands: deque[Command] = deque()

    def cable(self, a: tuple[int, int], b: tuple[int, int]) -> None:
        self.cables[a], self.cables[b] = b, a
        for switch, port in (a, b):
            self.ports.setdefault(switch, set()).add(port)

    def station(self, number: int, switch: int, port: int) -> None:
        self.stations[switch, port] = mac(number)
        self.ports.setdefault(switch, set()).add(port)

    def connect(self, switch: int) -> None:
        box = self.switches.setdefault(switch, Switch())
        box.connected = True
        box.generation += 1
        ports = {port: mac(switch << 8 | port) for port in self.ports[switch]}
        links = {key.match.in_port for key in box.flows if is_link_flow(key.table, key.priority)}
        self.apply(self.fabric.switch_up(switch, ports, self.now, [port for port in links if port is not None]))

    def disconnect(self, switch: int) -> None:
        self.switches[switch].connected = False
        self.apply(self.fabric.switch_down(switch, self.now))

    def apply(self, commands: list[Command]) -> None:
        self.commands.extend(commands)
        self.run()

    def run(self) -> None:
        while self.commands or self.wire:
            while self.commands:
                self.execute(self.commands.popleft())
            if self.wire:
                self.arrive(*self.wire.popleft())

    def execute(self, command: Command) -> None:
        switch = self.switches[command.datapath_id]
        if not switch.connected:
            return
        if isinstance(command, SetFlow):
            switch.flows[command.key] = (switch.generation, command.actions)
        elif isinstance(command, DeleteFlow):
            switch.flows.pop(command.key, None)
        elif isinstance(command, DeleteOldFlows):
            switch.flows = {
                k: v for k, v in switch.flows.items() if v[0] == switch.generation or k.table != command.table
            }
        elif isinstance(command, PacketOut):
            for port in command.ports:
                self.leave(command.datapath_id, port, command.frame)
        elif isinstance(command, Barrier):
            self.commands.extend(self.fabric.barrier(command.datapath_id, command.token, self.now))

    def leave(self, switch: int, port: int, data: bytes) -> None:
        if (switch, port) in self.holes:
            return
        if (switch, port) in self.cables:
            self.wire.append((*self.cables[switch, port], data))
        elif (switch, port) in self.stations:
            self.seen.append((self.stations[switch, port], data))

    def arrive(self, switch: int, port: int, data: bytes) -> None:
        self.hops += 1
        assert self.hops < 10_000, "a frame runs in circles"
        table: int | None = 0
        while table is not None:
            actions = self.switches.setdefault(switch, Switch()).lookup(table, port, data)
            for out in actions.ports:
                if out != port:
                    self.leave(switch, out, data)
            if actions.controller and self.switches[switch].connected:
                self.packet_ins += 1
                self.commands.extend(self.fabric.packet_in(switch, port, table, data, self.now))
            table = actions.goto

    def settle(self, seconds: float = SETTLE_SECONDS + 0.5) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.05
            timer = self.fabric.next_timer()
            if timer is not None and timer <= self.now:
                self.apply(self.fabric.handle_timer(self.now))

    def send(self, number: int, destination: bytes, text: bytes = b"x") -> Counter[bytes]:
        """Who got how many copies of one frame of this station."""
        (at,) = [end for end, address in self.stations.items() if address == mac(number)]
        self.seen, self.hops, self.packet_ins = [], 0, 0
        self.wire.append((*at, frame(destination, mac(number), text)))
        self.run()
        return Counter(who for who, data in self.seen if data[12:14] == b"\x08\x00")


def ring(size: int = 4) -> Net:
    """A ring with one chord and doubled first link; station n at switch n."""
    net = Net()
    for n in range(1, size + 1):
        net.station(n, n, 1)
        net.cable((n, 3), (n % size + 1, 2))
    net.cable((1, 4), (3, 4))
    net.cable((1, 5), (2, 5))
    return net


def settled_ring() -> Net:
    net = ring()
    for n in net.ports:
        net.connect(n)
    net.settle()
    return net


def everyone_but(number: int, size: int = 4) -> Counter[bytes]:
    return Counter(mac(n) for n in range(1, size + 1) if n != number)


def test_a_broadcast_reaches_every_station_once_in_spite_of_redundant_links() -> None:
    net = settled_ring()
    assert net.fabric.ready
    assert len(net.fabric.links) == 12
    for n in range(1, 5):
        assert net.send(n, BROADCAST) == everyone_but(n)


def test_nothing_is_flooded_while_ports_are_unknown() -> None:
    net = ring()
    for n in net.ports:
        net.connect(n)
        assert net.send(1, BROADCAST) == Counter()
    assert not net.fabric.ready


def test_a_broadcast_at_any_moment_of_start_and_change_runs_in_no_circle() -> None:
    rng = random.Random(7)
    for _ in range(20):
        net = ring()
        order = list(net.ports)
        rng.shuffle(order)
        for n in order:
            net.connect(n)
            net.settle(rng.random() * 2)
            net.send(n, BROADCAST)
        for _ in range(6):
            n = rng.choice(order)
            if net.switches[n].connected:
                net.disconnect(n)
            else:
                net.connect(n)
            net.settle(rng.random())
            copies = net.send(rng.choice(order), BROADCAST)
            assert all(count == 1 for count in copies.values())


def test_the_tree_changes_only_after_all_switches_left_the_old_one() -> None:
    net = settled_ring()
    held: list[Barrier] = []
    execute = net.execute

    def slow(command: Command) -> None:
        if isinstance(command, Barrier):
            held.append(command)
        else:
            execute(command)

    net.execute = slow  # type: ignore[method-assign]
    before = net.fabric._tree
    end = (1, 3) if (1, 3) in before else (1, 5)
    other = net.cables.pop(end)
    del net.cables[other]
    net.apply(net.fabric.port_down(*end, net.now))
    assert held and not net.fabric.ready
    assert net.fabric._tree < before, "no switch may use the new tree yet"
    assert all(count == 1 for count in net.send(1, BROADCAST).values())
    for barrier in list(held):
        net.apply(net.fabric.barrier(barrier.datapath_id, barrier.token, net.now))
    net.settle()
    assert net.send(1, BROADCAST) == everyone_but(1)


def test_unicast_takes_a_shortest_path_and_leaves_the_controller_alone() -> None:
    net = settled_ring()
    net.send(1, BROADCAST)
    assert net.send(3, mac(1)) == Counter({mac(1): 1})
    assert net.send(1, mac(3)) == Counter({mac(3): 1})
    assert net.hops == 2, "the chord between switches 1 and 3 is the shortest path"
    assert net.packet_ins == 0
    assert net.send(2, mac(4)) == everyone_but(2), "an unknown station: put out at all edges, once each"


def test_a_station_that_moved_is_found_again() -> None:
    net = settled_ring()
    net.send(1, BROADCAST)
    net.send(2, BROADCAST)
    net.stations[4, 6] = net.stations.pop((1, 1))
    net.ports[4].add(6)
    net.apply(net.fabric.port_down(1, 1, net.now))
    net.apply(net.fabric.port_up(4, 6, mac(0x406), net.now))
    net.settle()
    net.send(1, BROADCAST)
    assert net.send(2, mac(1)) == Counter({mac(1): 1})


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_a_switch_that_reconnects_carries_traffic_again(lost: int) -> None:
    net = settled_ring()
    for n in range(1, 5):
        net.send(n, BROADCAST)
    net.disconnect(lost)
    net.settle()
    others = [n for n in range(1, 5) if n != lost]
    assert all(count == 1 for count in net.send(others[0], BROADCAST).values())
    net.connect(lost)
    net.settle()
    for n in range(1, 5):
        assert net.send(n, BROADCAST) == everyone_but(n)
    assert net.send(others[0], mac(lost)) == Counter({mac(lost): 1})


def test_a_new_controller_loses_no_frame_while_switches_come_back_one_by_one() -> None:
    net = settled_ring()
    for n in range(1, 5):
        net.send(n, BROADCAST)
    net.fabric = Fabric()
    for switch in net.switches.values():
        switch.connected = False
    for n in net.ports:
        for pause in (0.0, 0.7, 1.4):
            net.settle(pause)
            for a, b in ((1, 3), (3, 1), (2, 4), (4, 2)):
                assert net.send(a, mac(b)) == Counter({mac(b): 1}), "old paths go on until new ones are there"
                assert all(count == 1 for count in net.send(a, BROADCAST).values())
        net.connect(n)
    net.settle()
    for n in range(1, 5):
        assert net.send(n, BROADCAST) == everyone_but(n)
    net.settle(KEEP_PATHS_SECONDS)
    assert all(value[0] == box.generation for box in net.switches.values() for value in box.flows.values())
    assert net.send(1, mac(3)) == Counter({mac(3): 1}) and net.packet_ins == 0


def test_stations_behind_a_switch_without_a_channel_stay_reachable_and_none_through_it() -> None:
    net = settled_ring()
    for n in range(1, 5):
        net.send(n, BROADCAST)
    net.disconnect(1)
    assert net.send(4, mac(1)) == Counter({mac(1): 1}) and net.send(1, mac(4)) == Counter({mac(4): 1})
    through = [
        (switch, port)
        for switch in (2, 3, 4)
        for key, (_, actions) in net.switches[switch].flows.items()
        for port in actions.ports
        if key.match.destination in (mac(2), mac(3), mac(4)) and net.cables.get((switch, port), (0, 0))[0] == 1
    ]
    assert through == []
    net.connect(1)
    for _ in range(30):
        net.settle(0.06)
        assert net.send(4, mac(1)) == Counter({mac(1): 1}) and net.send(1, mac(4)) == Counter({mac(4): 1})


def test_a_link_that_goes_down_is_gone_around() -> None:
    net = settled_ring()
    for n in range(1, 5):
        net.send(n, BROADCAST)
    for end in [(1, 4), (3, 4)]:
        net.cables.pop(end)
        net.ports[end[0]].discard(end[1])
        net.apply(net.fabric.port_down(*end, net.now))
    assert net.send(1, mac(3)) == Counter({mac(3): 1})
    assert net.hops == 3


SILENCE = REPROBE_INTERVAL + SILENT_PROBES * DOUBT_INTERVAL + 1.0


def heard_everywhere(net: Net) -> None:
    """All stations have each other's frames, once, when unicast and when broadcast."""
    for a in range(1, 5):
        assert net.send(a, BROADCAST) == everyone_but(a)
    for a, b in itertools.permutations(range(1, 5), 2):
        assert net.send(a, mac(b)) == Counter({mac(b): 1})


@pytest.mark.parametrize("ends", [[(1, 4), (3, 4)], [(1, 4)], [(3, 4)], [(1, 3), (2, 2)], [(2, 3), (3, 2), (1, 5)]])
def test_a_link_that_silently_carries_nothing_is_gone_around(ends: list[tuple[int, int]]) -> None:
    """Both its ways or one of them; and it is used again when it carries probes again."""
    net = settled_ring()
    heard_everywhere(net)
    tree = {switch: dict(box.flows) for switch, box in net.switches.items()}
    net.holes |= set(ends)
    net.settle(SILENCE)
    heard_everywhere(net)
    assert net.fabric.ready and set(ends) <= net.fabric.silent
    net.holes.clear()
    net.settle(DOUBT_INTERVAL + 0.1)
    heard_everywhere(net)
    assert not net.fabric.silent
    assert {switch: dict(box.flows) for switch, box in net.switches.items()} == tree


def test_no_link_is_given_up_without_which_a_switch_would_be_cut_off() -> None:
    net = Net()
    for n in (1, 2, 3):
        net.station(n, n, 1)
    net.cable((1, 3), (2, 2))
    net.cable((2, 3), (3, 2))
    for n in net.ports:
        net.connect(n)
    net.settle()
    for n in (1, 2, 3):
        net.send(n, BROADCAST)
    flows = {switch: dict(box.flows) for switch, box in net.switches.items()}
    # What stands in for probes that are lost although the link is well: only they are.
    execute = net.execute
    net.execute = lambda command: None if isinstance(command, PacketOut) else execute(command)  # type: ignore[method-assign]
    net.settle(SILENCE)
    assert len(net.fabric.silent) == 4
    assert {switch: dict(box.flows) for switch, box in net.switches.items()} == flows
    assert net.send(1, mac(3)) == Counter({mac(3): 1})


def test_a_controller_that_was_held_up_finds_no_link_silent() -> None:
    net = settled_ring()
    for _ in range(SILENT_PROBES + 5):
        net.now += 100.0
        net.apply(net.fabric.handle_timer(net.now))
        assert not net.fabric.silent


def test_half_of_the_probes_may_be_lost() -> None:
    net = settled_ring()
    for n in range(1, 5):
        net.send(n, BROADCAST)
    flows = {switch: dict(box.flows) for switch, box in net.switches.items()}
    execute, rng = net.execute, random.Random(5)

    def lossy(command: Command) -> None:
        if not (isinstance(command, PacketOut) and rng.random() < 0.5):
            execute(command)

    net.execute = lossy  # type: ignore[method-assign]
    for _ in range(60):
        net.settle(10.0)
        assert not net.fabric.silent
    assert {switch: dict(box.flows) for switch, box in net.switches.items()} == flows


def test_a_switch_without_a_channel_makes_no_link_silent() -> None:
    net = settled_ring()
    for n in range(1, 5):
        net.send(n, BROADCAST)
    net.disconnect(1)
    net.settle(2 * SILENCE)
    assert not net.fabric.silent
    assert net.send(4, mac(1)) == Counter({mac(1): 1})


def test_nodes_with_the_serval_tag_are_no_switches() -> None:
    fabric = Fabric()
    assert fabric.switch_up(node_datapath_id(5), {1: mac(1)}, 0.0) == []
    assert fabric.switches == []


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 13, b"\x01\x80\xc2\x00\x00\x0e" + bytes(6) + b"\x88\xcc\x02", bytes(60)]
)
def test_garbage_frames_are_no_links(data: bytes) -> None:
    net = settled_ring()
    assert net.fabric.packet_in(1, 1, 0, data[:12] + b"\x88\xcc" + data[14:], net.now) == []
    assert lldp.parse(data) is None


def test_probe_round_trip() -> None:
    assert lldp.parse(lldp.build(0xFEDCBA9876543210, 0xFFFFFF00, mac(1))) == (0xFEDCBA9876543210, 0xFFFFFF00)


def test_a_new_port_carries_nothing_before_the_probes_could_answer() -> None:
    net = settled_ring()
    execute = net.execute
    net.execute = lambda command: None if isinstance(command, PacketOut) else execute(command)  # type: ignore[method-assign]
    net.cable((1, 7), (2, 7))
    for switch in (1, 2):
        net.apply(net.fabric.port_up(switch, 7, mac(switch << 8 | 7), net.now))
    assert net.send(1, BROADCAST) == everyone_but(1)
    net.execute = execute  # type: ignore[method-assign]
    net.settle()
    assert net.send(1, BROADCAST) == everyone_but(1)
    assert net.fabric.links[1, 7] == (2, 7)
