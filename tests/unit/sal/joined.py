"""Whole lives of joined stacks, as values: hosts that open, send, move, close and crash on a bad network.

A scenario is plain JSON, so that one which fails can be kept and played again. ``draw_scenario`` makes one by the
choices of whoever asks: hypothesis, which then looks for the smallest that fails, or a random number generator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serval_node.sal.flow_table import Flow
from serval_node.sal.moves import Cause, MigrationRefused, MigrationState
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.sal.states import State
from serval_node.wire.ipv4 import address
from tests.unit.sal.conftest import A, C, D, E
from tests.unit.sal.fake_tcp import Listener, Socket
from tests.unit.sal.world import NAMING, WEB_BIND, Host, World, forward

Pick = Callable[[Sequence[Any]], Any]
Scenario = dict[str, Any]

PLACES = {"a": (A, "10.1.0.1", "10.2.0.1"), "e": (E, "10.1.3.1"), "d": (D,), "c": (C,)}
STEPS = (
    *("open",) * 3, *("send",) * 5, *("move",) * 5, "both", "cut", "part", "mend", "shutdown", "abort", "crash",
    "delay", *("wait",) * 4,
)  # fmt: skip
LONGEST = 24
"""Steps at most; with pauses of a second at most nothing ends by a time-out meanwhile."""


def draw_scenario(pick: Pick) -> Scenario:
    """A scenario by these choices; the first option of each is the simplest."""
    steps = [["open", 0, 0, 0, 0.0]]
    for _ in range(pick(range(LONGEST))):
        kind, which, end = pick(STEPS), pick(range(4)), pick((0, 1))
        steps.append([kind, which, end, pick((0, 1, 2, 3)), pick((0.0, 0.003, 0.02, 0.2, 1.0))])
    return {
        "seed": pick(range(1000)),
        "router": pick((False, True)),
        "original_rules": pick((False, False, True)),
        "delay": pick((0.01, 0.0005, 0.05)),
        "loss": pick((0.0, 0.05, 0.2)),
        "duplication": pick((0.0, 0.1)),
        "jitter": pick((0.0, 0.002, 0.03)),
        "delivery_loss": pick((0.0, 0.0, 0.01)),
        "mended": pick((True, False, False)),
        "steps": steps,
    }


@dataclass
class Connection:
    """One connection and what its programs did. It is ``broken`` when an end aborted or crashed: then bytes may be
    missing at the end, but none may be wrong.
    """

    number: int
    client: Socket
    near: Host
    server: Socket | None = None
    far: Host | None = None
    broken: bool = False
    sent: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))

    @property
    def tag(self) -> bytes:
        """What the client says first, so that the server's socket is known."""
        return self.number.to_bytes(4, "big")

    def end(self, which: int) -> tuple[Socket, Host] | None:
        """The client's (0) or the server's (1) socket with its host."""
        if which == 0:
            return self.client, self.near
        return None if self.server is None or self.far is None else (self.server, self.far)

    def is_complete(self) -> bool:
        return (
            self.server is not None
            and bytes(self.server.received) == bytes(self.sent[0])
            and bytes(self.client.received) == bytes(self.sent[1])
        )


class Joined:
    """Plays one scenario and checks what must hold."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = world = World(scenario["seed"])
        world.keep_seen = False
        self.rng = random.Random(scenario["seed"])
        self.router: bool = scenario["router"]
        self.connections: list[Connection] = []
        self.listeners: list[tuple[Listener, Host]] = []
        self.hosts: dict[str, Host] = {}
        for name in ("a", "e", "d", "c") if self.router else ("a", "e"):
            self._start(name)
        self._point()
        world.delay = scenario["delay"]
        world.loss, world.duplication = scenario["loss"], scenario["duplication"]
        world.jitter, world.delivery_loss = scenario["jitter"], scenario["delivery_loss"]

    def _start(self, name: str) -> None:
        config = {"forwarding": name == "c", "original_rules": self.scenario["original_rules"]}
        host = self.hosts[name] = self.world.host(name, PLACES[name][0], **config)
        for place in PLACES[name]:
            host.add_address(place)
        host.environment.own = address((self._alive(name) or PLACES[name])[0])
        if name in ("e", "d"):
            self.listeners.append((host.serve(), host))

    # -- the network and its rules

    def _alive(self, name: str) -> list[str]:
        return [place for place in PLACES[name] if address(place) not in self.world.cut]

    def _point(self, *, delay: bool = False) -> None:
        """Rules as a controller would have them now: towards addresses that work."""
        targets = forward(*(place for name in ("e", "d") if name in self.hosts for place in self._alive(name)[:1]))
        rule = Rule(WEB_BIND, (Target(Action.DELAY),) if delay else targets or forward(E))
        if self.router:
            self._set(self.hosts["c"], rule)
            rule = Rule(NAMING.block("example"), forward(C))
        self._set(self.hosts["a"], rule)

    def _set(self, host: Host, rule: Rule) -> None:
        host.stack.service_table.set_rule(rule, "controller")
        host.stack.handle_timer(self.world.now)
        host.settle()

    # -- steps

    def play(self) -> None:
        for kind, which, end, value, pause in self.scenario["steps"]:
            getattr(self, "_" + kind)(which, end, value)
            self.world.run(pause)
            self.check_prefixes()
        self.finish()

    def _wait(self, which: int, end: int, value: int) -> None:
        self.world.run(0.1 * (value + 1))

    def _open(self, which: int, end: int, value: int) -> None:
        near = self.hosts["a"]
        connection = Connection(len(self.connections) + 1, near.connect(), near)
        self.connections.append(connection)
        self._write(connection, 0, connection.tag)

    def _write(self, connection: Connection, end: int, data: bytes) -> None:
        found = connection.end(end)
        if found is None or found[0].fin_wanted or found[0].state not in ("SYN_SENT", "ESTABLISHED"):
            return
        connection.sent[end].extend(data)
        found[1].send(found[0], data)

    def _chosen(self, which: int) -> Connection:
        self._match()
        return self.connections[which % len(self.connections)]

    def _send(self, which: int, end: int, value: int) -> None:
        self._write(self._chosen(which), end, self.rng.randbytes((1, 1000, 30000, 150000)[value]))

    def _flow(self, connection: Connection, end: int) -> tuple[Flow, Host] | None:
        found = connection.end(end)
        if found is None:
            return None
        socket, host = found
        flow = host.stack.flows.by_kernel(socket.local, socket.peer)
        return None if flow is None or self.hosts[host.name] is not host else (flow, host)

    def _move(self, which: int, end: int, value: int) -> None:
        found = self._flow(self._chosen(which), end)
        if found is not None:
            flow, host = found
            places = self._alive(host.name)
            if places:
                self._migrate(host, flow, places[value % len(places)], lost=value % 2 == 1)

    def _migrate(self, host: Host, flow: Flow, to: str, *, lost: bool) -> None:
        now = self.world.now
        try:
            host.stack.migrate(flow.local_flow, address(to), now, Cause("by hand", lost, now, now))
        except MigrationRefused:
            pass  # it is there already, or not open: both are for others to test
        host.settle()

    def _both(self, which: int, end: int, value: int) -> None:
        self._move(which, 0, value)
        self._move(which, 1, value + 1)

    def _cut(self, which: int, end: int, value: int) -> None:
        name = "ae"[end]
        self.world.cut.add(address(PLACES[name][value % len(PLACES[name])]))
        self._point()
        self._leave(name, value)

    def _part(self, which: int, end: int, value: int) -> None:
        """Both ends of a connection lose at once what the other knows of them."""
        for found in (self._flow(self._chosen(which), 0), self._flow(self._chosen(which), 1)):
            if found is not None and found[1].name != "d":
                self.world.cut.add(found[0].local_address)
        self._point()
        for name in "ae":
            self._leave(name, value)

    def _leave(self, name: str, value: int) -> None:
        """What the daemon does when netlink tells that addresses have gone."""
        host, alive = self.hosts[name], self._alive(name)
        if not alive:
            return
        host.environment.own = address(alive[0])
        for flow in list(host.stack.flows):
            record = flow.migration
            place = record.move.address if record is not None and record.move is not None else flow.local_address
            if place in self.world.cut:
                self._migrate(host, flow, alive[value % len(alive)], lost=True)

    def _mend(self, which: int, end: int, value: int) -> None:
        self.world.cut.clear()
        for host in self.hosts.values():
            host.environment.own = host.address
        self._point()

    def _shutdown(self, which: int, end: int, value: int) -> None:
        found = self._chosen(which).end(end)
        if found is not None and found[0].state == "ESTABLISHED":
            found[1].shutdown(found[0])

    def _abort(self, which: int, end: int, value: int) -> None:
        connection = self._chosen(which)
        found = connection.end(end)
        if found is not None and found[0].state == "ESTABLISHED":
            connection.broken = True
            found[1].abort(found[0])

    def _delay(self, which: int, end: int, value: int) -> None:
        self._point(delay=True)

    def _crash(self, which: int, end: int, value: int) -> None:
        """A host starts again with nothing: no FIN, no RST, all flows forgotten."""
        name = list(self.hosts)[(which + end) % len(self.hosts)]
        old = self.hosts[name]
        self._match()
        for connection in self.connections:
            # Where the server of one is that has not said anything yet, nobody knows.
            suspect = name in ("e", "d") and connection.server is None
            connection.broken |= suspect or old in (connection.near, connection.far)
        # What is on its way arrives at the new one.
        old.from_network = lambda packet: self.world.hosts[packet[16:20]].from_network(packet)  # type: ignore[method-assign]
        self._start(name)
        self._point()

    # -- what must hold

    def _match(self) -> None:
        """Find the server's socket of each connection: there is one at most."""
        known = {connection.server for connection in self.connections}
        for listener, host in self.listeners:
            for socket in listener.queue:
                if socket not in known and len(socket.received) >= 4:
                    number = int.from_bytes(socket.received[:4], "big")
                    connection = self.connections[number - 1]
                    assert connection.server is None, "two servers got the bytes of one connection"
                    connection.server, connection.far = socket, host

    def check_prefixes(self) -> None:
        """Nothing wrong, twice or out of order has been received, ever."""
        self._match()
        for connection in self.connections:
            assert bytes(connection.sent[1]).startswith(bytes(connection.client.received))
            if connection.server is not None:
                assert bytes(connection.sent[0]).startswith(bytes(connection.server.received))

    def finish(self) -> None:
        """Without losses, and with one address of each host that works, everything arrives, everything closes, and
        nothing is left over.
        """
        world = self.world
        world.loss = world.duplication = world.delivery_loss = world.jitter = 0.0
        if self.scenario["mended"] or not all(self._alive(name) for name in self.hosts):
            self._mend(0, 0, 0)
        self._point()
        whole = [connection for connection in self.connections if not connection.broken]
        world.run(250, until=lambda: self._all_complete(whole))
        for connection in whole:
            assert connection.client.error is None and connection.server is not None
            assert connection.server.error is None
        world.run(20)
        self._check_moves(whole)
        for connection in self.connections:
            for which in (0, 1):
                found = connection.end(which)
                if found is not None and found[0].state == "ESTABLISHED" and not found[0].fin_wanted:
                    found[1].shutdown(found[0])
        world.run(30)
        for connection in whole:
            assert connection.server is not None and connection.server.eof and connection.client.eof
        self._programs_end()
        world.run(600)
        for host in self.hosts.values():
            self._check_empty(host)

    def _check_moves(self, whole: list[Connection]) -> None:
        """Nobody still asks, or waits for the end of, a move; in TIME_WAIT one may ask a peer that has closed."""
        for connection in whole:
            for found in (self._flow(connection, 0), self._flow(connection, 1)):
                record = None if found is None or found[0].state is State.TIMEWAIT else found[0].migration
                assert record is None or (record.move is None and record.state is MigrationState.INITIAL)

    def _all_complete(self, whole: list[Connection]) -> bool:
        self.check_prefixes()
        return all(connection.is_complete() for connection in whole)

    def _programs_end(self) -> None:
        """Of what waits for a peer that crashed, the kernel drops one half in silence and resets the other."""
        for host in self.hosts.values():
            for number, socket in enumerate(list(host.kernel.sockets.values())):
                if socket.state not in ("TIME_WAIT", "CLOSED"):
                    assert any(connection.broken for connection in self.connections), socket.state
                    socket.abort() if number % 2 else socket.vanish()
            host.settle()

    def _check_empty(self, host: Host) -> None:
        context = host.stack._context
        left = [(flow.local_flow, flow.state.name, flow.server) for flow in host.stack.flows]
        assert not left, f"{host.name} keeps {left}"
        assert not host.paths, "installed paths are removed"
        assert len(context.half_open) == 0 and not host.stack.delayed() and not host.stack.flows.reserved()
        assert host.stack.next_timer() is None
        # Virtual peers are kept until their block is full; then all of them can go.
        context.peers.retain(())
        assert context.peers._clients == context.peers._by_client == context.peers._next_port == {}


def play(scenario: Scenario) -> None:
    """Raises AssertionError when something that must hold does not."""
    Joined(scenario).play()
