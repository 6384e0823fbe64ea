"""The switch fabric's logic: what the flow tables of all switches shall hold. Pure; `switch_fabric` is its shim.

Table 0 looks at where a frame comes from, table 1 at where it goes:

    0  LLDP                                       to the controller
    0  from a port that is still being probed     drop
    0  multicast from a link outside the tree     drop
    0  from any other link between switches       table 1
    0  known source at its port                   table 1
    0  anything else                              to the controller (learning) and table 1
    1  known destination                          out of the port on the shortest path
    1  multicast                                  out of all edge ports and tree ports
    1  anything else                              to the controller

Why no frame can run in circles: a new port carries nothing until probes have shown whether a switch is behind it.
Multicast leaves by tree ports only, and when the tree changes, every switch first stops using what is not
in both trees (acknowledged by barriers) before any begins to use the new one. A frame for an unknown station is never
flooded by the switches: the controller puts it out at the edge ports. A port towards a switch that has lost its
controller stays closed for multicast, because that switch may go on forwarding by its old rules; a new controller
knows such ports by the flows that the former one left.

Why little is lost when a channel or the controller itself comes back: a switch keeps the paths of its former connection
(table 1) while stations are learned anew, and a switch without a channel is still the end of paths, though none lead
through it.

A link that is up but no longer carries probes (a silent link) is gone around where there is another way. Its ports do
not become edge ports, so that a link that was only slow makes no circle. What counts are probes that were sent and not
heard of again, and not time, so that a controller that was held up finds no link silent for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from controllers import lldp, topology
from controllers.flows import (
    MULTICAST,
    Actions,
    Barrier,
    Command,
    DeleteFlow,
    DeleteOldFlows,
    Key,
    Match,
    PacketOut,
    SetFlow,
)
from controllers.topology import End
from serval_node.control.experimenter import is_serval_datapath

PROBE_INTERVAL = 0.25
SETTLE_SECONDS = 1.0
"""How long a new port is probed before it counts as an edge port; four probes are sent meanwhile."""

REPROBE_INTERVAL = 5.0
DOUBT_INTERVAL = 1.0
"""To the next probe of a link, as long as the last one was not heard of."""

SILENT_PROBES = 12
"""How many probes in a row must be lost for a link to count as silent: of a link that loses half of its frames in a
queue that is always full, one in 4,000 such rows; of one that carries nothing, after 17 s at most."""

KEEP_PATHS_SECONDS = 15.0
"""How long a switch keeps paths from before its connection: Open vSwitch takes up to 8 s to connect again, so that
the other end of a path may be unknown that long."""

LLDP_KEY = Key(0, 200, Match(ethertype=lldp.ETHERTYPE))
FLOOD_KEY = Key(1, 10, Match(destination=MULTICAST))
LINK_PRIORITY = 50
_TO_TABLE_1 = Actions(goto=1)


def is_link_flow(table: int, priority: int) -> bool:
    """Whether the `in_port` of such a flow was a link to the controller that made it."""
    return (table, priority) == (0, LINK_PRIORITY)


@dataclass(slots=True)
class _Port:
    mac: bytes
    since: float
    probe_at: float
    unheard: int = 0
    """Probes sent since the last one that the other end of the link received."""

    former_link_until: float = 0.0


@dataclass(slots=True)
class _Switch:
    since: float
    ports: dict[int, _Port] = field(default_factory=dict)
    flows: dict[Key, Actions] = field(default_factory=dict)
    settled: bool = False
    old_paths: bool = True


class Fabric:
    """All switches. Every method returns the commands to send, in order; `now` is in seconds of any clock."""

    def __init__(self) -> None:
        self._switches: dict[int, _Switch] = {}
        self._links: dict[End, End] = {}
        self._stations: dict[bytes, End] = {}
        self._tree: frozenset[End] = frozenset()
        self._wanted_tree: frozenset[End] = frozenset()
        self._awaited: dict[int, int] = {}
        self._unacknowledged: dict[int, int] = {}
        self._token = 0

    @property
    def ready(self) -> bool:
        """Whether every connected switch is settled and has carried out all that it was told."""
        return not self._unacknowledged and all(switch.settled for switch in self._switches.values())

    @property
    def switches(self) -> list[int]:
        return sorted(self._switches)

    @property
    def links(self) -> dict[End, End]:
        """Both directions of every link between two connected switches."""
        both = self._switches.keys()
        return {a: b for a, b in self._links.items() if self._links.get(b) == a and a[0] in both and b[0] in both}

    @property
    def silent(self) -> frozenset[End]:
        """Ends of links whose probes are not heard of at the other end."""
        ports = ((end, self._switches[end[0]].ports.get(end[1])) for end in self.links)
        return frozenset(end for end, port in ports if port is not None and port.unheard >= SILENT_PROBES)

    @property
    def stations(self) -> dict[bytes, End]:
        """MAC address -> edge port where it was last seen."""
        return dict(self._stations)

    def switch_up(
        self, datapath_id: int, ports: dict[int, bytes], now: float, former_links: Collection[int] = ()
    ) -> list[Command]:
        """A switch connected (again).

        ports         numbers of its live ports and their MAC addresses
        former_links  those that are links, by what the flows in the switch say (`is_link_flow`)
        """
        if is_serval_datapath(datapath_id):
            return []
        self._forget_stations(lambda end: end[0] == datapath_id and end[1] not in ports)
        self._barrier_passed(datapath_id, self._awaited.get(datapath_id))
        self._forget_links(datapath_id)
        self._switches[datapath_id] = _Switch(now, {no: _Port(mac, now, now) for no, mac in ports.items()})
        for number in former_links:
            if number in ports:
                self._switches[datapath_id].ports[number].former_link_until = now + KEEP_PATHS_SECONDS
        return [*self._update(now), *self._probe(now)]

    def switch_down(self, datapath_id: int, now: float) -> list[Command]:
        """The channel to a switch is gone. Its links and stations are remembered: it may well go on forwarding."""
        if self._switches.pop(datapath_id, None) is None:
            return []
        self._unacknowledged.pop(datapath_id, None)
        self._barrier_passed(datapath_id, self._awaited.get(datapath_id))
        return self._update(now)

    def port_up(self, datapath_id: int, port: int, mac: bytes, now: float) -> list[Command]:
        switch = self._switches.get(datapath_id)
        if switch is None or port in switch.ports:
            return []
        switch.ports[port] = _Port(mac, now, now)
        return [*self._update(now), *self._probe(now)]

    def port_down(self, datapath_id: int, port: int, now: float) -> list[Command]:
        switch = self._switches.get(datapath_id)
        if switch is None or switch.ports.pop(port, None) is None:
            return []
        end = (datapath_id, port)
        other = self._links.pop(end, None)
        if other is not None and self._links.get(other) == end:
            del self._links[other]
            self._restart_probing(other, now)
        self._forget_stations(lambda station: station == end)
        return self._update(now)

    def packet_in(self, datapath_id: int, port: int, table: int, frame: bytes, now: float) -> list[Command]:
        """A frame that a switch sent up from `table`."""
        switch = self._switches.get(datapath_id)
        if switch is None or port not in switch.ports or len(frame) < 14:
            return []
        peer = lldp.parse(frame)
        if peer is not None:
            return self._link_seen((datapath_id, port), peer, now)
        if frame[12:14] == lldp.ETHERTYPE.to_bytes(2, "big"):
            return []
        end = (datapath_id, port)
        if table == 0:
            return self._learn(frame[6:12], end, now) if self._is_edge(end, now) else []
        return self._deliver(frame, end, now)

    def barrier(self, datapath_id: int, token: int, now: float) -> list[Command]:
        """A switch has carried out everything before this barrier."""
        if self._unacknowledged.get(datapath_id) == token:
            del self._unacknowledged[datapath_id]
        if self._barrier_passed(datapath_id, token):
            return self._update(now)
        return []

    def next_timer(self) -> float | None:
        times = [port.probe_at for switch in self._switches.values() for port in switch.ports.values()]
        times += [
            max((port.since for port in switch.ports.values()), default=0.0) + SETTLE_SECONDS
            for switch in self._switches.values()
            if not switch.settled
        ]
        times += [switch.since + KEEP_PATHS_SECONDS for switch in self._switches.values() if switch.old_paths]
        return min(times, default=None)

    def handle_timer(self, now: float) -> list[Command]:
        return [*self._probe(now), *self._update(now)]

    def _probe(self, now: float) -> list[Command]:
        commands: list[Command] = []
        links = self.links
        for datapath_id, switch in self._switches.items():
            for number, port in switch.ports.items():
                if port.probe_at <= now:
                    is_link = (datapath_id, number) in links
                    if now - port.since < SETTLE_SECONDS:
                        port.probe_at = now + PROBE_INTERVAL
                    else:
                        port.probe_at = now + (DOUBT_INTERVAL if is_link else REPROBE_INTERVAL)
                    port.unheard += is_link
                    commands.append(PacketOut(datapath_id, (number,), lldp.build(datapath_id, number, port.mac)))
        return commands

    def _link_seen(self, end: End, peer: End, now: float) -> list[Command]:
        switch = self._switches.get(peer[0])
        if switch is None or peer[1] not in switch.ports:
            return []
        sender = switch.ports[peer[1]]
        was_silent, sender.unheard = sender.unheard >= SILENT_PROBES, 0
        if now - sender.since >= SETTLE_SECONDS:
            sender.probe_at = now + REPROBE_INTERVAL
        if self._links.get(end) == peer and self._links.get(peer) == end:
            return self._update(now) if was_silent else []
        self._switches[end[0]].ports[end[1]].unheard = 0
        for one, other in ((end, peer), (peer, end)):
            old = self._links.get(one)
            if old is not None and old != other and self._links.get(old) == one:
                del self._links[old]
            self._links[one] = other
        self._forget_stations(lambda station: station in (end, peer))
        return self._update(now)

    def _learn(self, source: bytes, end: End, now: float) -> list[Command]:
        if source[0] & 1 or self._stations.get(source) == end:
            return []
        self._stations[source] = end
        return self._update(now)

    def _deliver(self, frame: bytes, ingress: End, now: float) -> list[Command]:
        """Put a frame out at its station's port, or at every edge port when that is unknown."""
        station = self._stations.get(frame[:6])
        if station is not None:
            return [PacketOut(station[0], (station[1],), frame)] if station != ingress else []
        commands: list[Command] = []
        if not self._is_edge(ingress, now):
            return commands
        for datapath_id in self._switches:
            ports = tuple(port for port in self._edge_ports(datapath_id, now) if (datapath_id, port) != ingress)
            if ports:
                commands.append(PacketOut(datapath_id, ports, frame))
        return commands

    def _is_edge(self, end: End, now: float) -> bool:
        port = self._switches[end[0]].ports.get(end[1])
        if port is None or end in self._links or now < port.former_link_until:
            return False
        return now - port.since >= SETTLE_SECONDS

    def _edge_ports(self, datapath_id: int, now: float) -> list[int]:
        return [port for port in sorted(self._switches[datapath_id].ports) if self._is_edge((datapath_id, port), now)]

    def _restart_probing(self, end: End, now: float) -> None:
        port = self._switches[end[0]].ports.get(end[1]) if end[0] in self._switches else None
        if port is not None:
            port.since = port.probe_at = now

    def _forget_links(self, datapath_id: int) -> None:
        """Its own ends; the far ends stay closed until the probes have found them again or the port has gone."""
        self._links = {a: b for a, b in self._links.items() if a[0] != datapath_id}

    def _forget_stations(self, where: Callable[[End], bool]) -> None:
        self._stations = {mac: end for mac, end in self._stations.items() if not where(end)}

    def _barrier_passed(self, datapath_id: int, token: int | None) -> bool:
        """Whether that was the last barrier awaited."""
        if token is None or self._awaited.get(datapath_id) != token:
            return False
        del self._awaited[datapath_id]
        if self._awaited:
            return False
        self._tree = self._wanted_tree
        return True

    def _update(self, now: float) -> list[Command]:
        """Bring all switches to what they shall hold now."""
        for switch in self._switches.values():
            if not switch.settled:
                switch.settled = all(now - port.since >= SETTLE_SECONDS for port in switch.ports.values())
        graph = topology.neighbours(self._switches, topology.avoiding(self._switches, self.links, self.silent))
        tree_changes = self._change_tree(topology.spanning_tree(graph))
        routes = self._routes(graph)
        commands: list[Command] = []
        told: list[int] = []
        for datapath_id, switch in self._switches.items():
            changes = self._difference(datapath_id, switch, self._flows(datapath_id, routes, now))
            if switch.old_paths and now - switch.since >= KEEP_PATHS_SECONDS:
                switch.old_paths = False
                changes.append(DeleteOldFlows(datapath_id, 1))
            if changes or tree_changes:
                told.append(datapath_id)
            commands += changes
        if told:
            self._token = self._token % 0x7FFFFFFF + 1
            self._unacknowledged.update(dict.fromkeys(told, self._token))
            if tree_changes:
                self._awaited = dict.fromkeys(told, self._token)
        return commands + [Barrier(datapath_id, self._token) for datapath_id in told]

    def _routes(self, graph: dict[int, list[tuple[int, int, int]]]) -> dict[int, dict[int, int]]:
        """Switch with stations -> other switch -> its port on the path there."""
        routes = {}
        for destination in {end[0] for end in self._stations.values()}:
            leaf = graph
            if destination not in graph:
                ends = [(a, b) for a, b in self._links.items() if a[0] == destination and self._links.get(b) == a]
                leaf = {**graph, destination: sorted((b[0], a[1], b[1]) for a, b in ends if b[0] in graph)}
            routes[destination] = topology.next_ports(leaf, destination)
        return routes

    def _change_tree(self, wanted: frozenset[End]) -> bool:
        """Whether the wanted tree is another one than before. What is not in it is left at once."""
        if wanted == self._wanted_tree:
            return False
        self._wanted_tree = wanted
        self._tree &= wanted
        return True

    def _difference(self, datapath_id: int, switch: _Switch, flows: dict[Key, Actions]) -> list[Command]:
        commands: list[Command] = [DeleteFlow(datapath_id, key) for key in switch.flows.keys() - flows.keys()]
        commands += [
            SetFlow(datapath_id, key, actions) for key, actions in flows.items() if switch.flows.get(key) != actions
        ]
        if Key(0, 0, Match()) in flows and Key(0, 0, Match()) not in switch.flows:
            # Sources known to a former controller shall be seen by this one. Their frames go on along the old paths.
            commands.append(DeleteOldFlows(datapath_id, 0))
        switch.flows = flows
        return commands

    def _flows(self, datapath_id: int, routes: dict[int, dict[int, int]], now: float) -> dict[Key, Actions]:
        switch = self._switches[datapath_id]
        flows = {LLDP_KEY: Actions(controller=True), FLOOD_KEY: Actions()}
        if not switch.settled and Key(0, 0, Match()) not in switch.flows:
            return flows
        flows[Key(0, 0, Match())] = Actions(controller=True, goto=1)
        flows[Key(1, 0, Match())] = Actions(controller=True)
        flood = []
        for number in sorted(switch.ports):
            end = (datapath_id, number)
            if end in self._links or now < switch.ports[number].former_link_until:
                flows[Key(0, LINK_PRIORITY, Match(in_port=number))] = _TO_TABLE_1
                if end not in self._tree:
                    flows[Key(0, 100, Match(in_port=number, destination=MULTICAST))] = Actions()
                    continue
            elif not self._is_edge(end, now):
                flows[Key(0, 150, Match(in_port=number))] = Actions()
                continue
            flood.append(number)
        flows[FLOOD_KEY] = Actions(ports=tuple(flood))
        for mac, (at, port) in self._stations.items():
            if at == datapath_id:
                flows[Key(0, 40, Match(in_port=port, source=mac))] = _TO_TABLE_1
                flows[Key(1, 20, Match(destination=mac))] = Actions(ports=(port,))
            elif datapath_id in routes[at]:
                flows[Key(1, 20, Match(destination=mac))] = Actions(ports=(routes[at][datapath_id],))
        return flows
