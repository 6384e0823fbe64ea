"""One host's node: the stack between sal0 and the raw sockets, and everything that speaks for it.

The order of construction is the order of dependence; `close` is its reverse. All callbacks run on one event
loop.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from serval_node.control.channel import NodeChannel
from serval_node.control.experimenter import node_datapath_id
from serval_node.control.messages import DelayNotify, NodeMessage, NodeState, Unregister
from serval_node.control.router_messages import PORT
from serval_node.daemon import encapsulation, views
from serval_node.daemon.activity import Activity
from serval_node.daemon.adhoc import AdHocMode
from serval_node.daemon.advertiser import Advertiser
from serval_node.daemon.automatic import AutomaticMoves
from serval_node.daemon.blackouts import Blackouts
from serval_node.daemon.config import NodeConfig
from serval_node.daemon.control_server import ControlServer
from serval_node.daemon.controller_link import ControllerLink
from serval_node.daemon.controller_requests import ControllerRequests
from serval_node.daemon.datagram_sockets import DatagramSockets
from serval_node.daemon.default_rule import DefaultRule
from serval_node.daemon.dns import NameServer
from serval_node.daemon.environment import HostEnvironment
from serval_node.daemon.event_log import EventLog
from serval_node.daemon.host_setup import open_sal0, prepare_host
from serval_node.daemon.loop import EventLoop
from serval_node.daemon.migrations import Migrations
from serval_node.daemon.names import HostNames
from serval_node.daemon.operations import Operations
from serval_node.daemon.resolver import Resolver
from serval_node.daemon.router_discovery import RouterDiscovery
from serval_node.daemon.rules import RuleBook, hand_rule
from serval_node.daemon.service_loads import ServiceLoads
from serval_node.daemon.stack_events import StackEvents
from serval_node.daemon.standby import Standbys
from serval_node.daemon.virtual_addresses import VirtualAddresses
from serval_node.io.datapath import DataPath, vector_available
from serval_node.io.fast_flow import FlowCounters
from serval_node.io.netlink import HostNetwork
from serval_node.io.raw_ip import RawIp
from serval_node.io.sock_diag import InetSocket
from serval_node.sal.delay_queue import DelayVerdict
from serval_node.sal.events import Event, FlowClosed, RuleExpired, SegmentedSingly, SentAgain
from serval_node.sal.outputs import Deliver, DoubtSent, InstallPath, RemovePath, Send, SendAgain
from serval_node.sal.service_table import ResolutionMode
from serval_node.sal.stack import Stack, StackConfig
from serval_node.wire.ipv4 import PROTOCOL_UDP, Address, address_text
from serval_node.wire.naming import Naming
from serval_node.wire.sal_header import BARE_LENGTH
from serval_node.wire.serviceid import Prefix

MakeSocket = Callable[[], socket.socket]


def _plain_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


class Node:
    """A running node. Raises in construction: ControlPathError, ResolverError, TunError, NamespaceError,
    OSError, ValueError.
    """

    def __init__(self, config: NodeConfig, loop: EventLoop, make_socket: MakeSocket | None = None) -> None:
        self.config = config
        self.loop = loop
        self.boot = secrets.token_hex(8)
        self.warnings: list[str] = []
        self._closers: list[Callable[[], None]] = []
        self._controller: ControllerLink | None = None
        self._left_counters: dict[int, tuple[int, ...]] = {}
        self._own_events: list[Event] = []
        try:
            self._build(make_socket or _plain_socket)
        except BaseException:
            self.close()
            raise

    def _build(self, make_socket: MakeSocket) -> None:
        config, loop = self.config, self.loop
        os.makedirs(config.run_dir, exist_ok=True)
        operations = Operations(self)
        # First of all: a second daemon must fail before it touches sal0.
        server = ControlServer(config.control_path, loop, operations.handle, operations.closed)
        self._closers.append(server.close)
        naming = Naming(config.providers)
        self.serves = tuple(_served(naming, text) for text in config.serves)
        self.names = HostNames(naming, VirtualAddresses(config.names_path))
        self.events = EventLog(self.names.describe)
        self.loads = ServiceLoads(loop.call_later, lambda: self.announce(views.stats(self)))
        blackouts = Blackouts(self.events.add, loop.call_later)
        self._reactions = StackEvents(self.events.add, self.loads, self.announce, self._announce_later, blackouts)
        # Before any setting is changed: it is what fails without privileges.
        self._raw = RawIp()
        self._closers.append(self._raw.close)
        prepare_host()
        self.network = HostNetwork()
        self._closers.append(self.network.close)
        self._open_data_path()
        resolver = Resolver(loop, NameServer(self.names.name_address, config.hosts))
        self._closers.append(resolver.close)
        self.advertiser = Advertiser(
            loop, self.stack.service_table, self.names, self._advertise, os.path.join(config.run_dir, "bindings.json")
        )
        self._closers.append(self.advertiser.close)
        self.rules = RuleBook(self.stack.service_table, self.advertiser.listening, naming, self.network.is_local)
        self.advertiser.follow(self.rules, self.state_changed)
        self.datagram_sockets = DatagramSockets(loop, self.stack, self.names, self.advertiser, self._take_outputs)
        self._closers.append(self.datagram_sockets.close)
        self.advertiser.watch_connections(self._socket_gone)
        self.standbys = Standbys(naming, self.state_changed)
        self._default_rule = DefaultRule(self.rules)
        self.adhoc = AdHocMode(
            self.stack,
            self.network,
            self._default_rule.set_broadcasts,
            on=config.adhoc,
            relay=config.adhoc_relay,
            hops=config.adhoc_hops,
        )
        for rule in config.rules:
            self.rules.set(hand_rule(naming, rule))
        self._connect_controller(make_socket)
        self.discovery = self._open_discovery()
        loop.add_reader(self.network.fileno(), self._network_changed)
        loop.settle = self._settle

    def _open_data_path(self) -> None:
        config = self.config
        offload = vector_available() if config.offload is None else config.offload
        mtu = config.mtu or self.network.smallest_mtu()
        self.tun = open_sal0(mtu, offload, config.congestion, self.warnings)
        self._closers.append(self.tun.close)
        choices = encapsulation.choices(config.encapsulation, config.encapsulated_peers)
        self._udp = encapsulation.open_sockets(self._raw, choices, join=offload, warnings=self.warnings)
        if self._udp is not None:
            self._closers.append(self._udp.close)
            self._udp.tell = self._segments_lost
        self.stack = Stack(
            config=StackConfig(
                forwarding=config.forwarding,
                delay=config.delay_limits,
                mode=ResolutionMode(config.resolution_mode),
                encapsulation=choices,
                keepalive=config.keepalive,
                sal0_mtu=mtu - BARE_LENGTH,
            ),
            environment=HostEnvironment(
                self.network, self.names, lambda local_flow: self.data_path.counters(local_flow)
            ),
            rng=random.SystemRandom(),
        )
        self.migrations = Migrations(self.stack, self.network, self._take_outputs)
        self.automatic = AutomaticMoves(
            self.migrations, self.network, self.stack.probing, self.events.add, wanted=config.auto_migrate
        )
        self.data_path = DataPath(
            self.tun,
            self._raw,
            stack_kernel=self._kernel_packet,
            stack_network=self._network_packet,
            on_first_packet=self._first_packet,
            mtu=self.network.largest_mtu(),
            vector=offload,
            udp=self._udp,
        )
        self._closers.append(self.data_path.close)
        self._activity = Activity(self.data_path, self.stack.probing)
        self.data_path.keeping = config.migrate_congestion == "keep"
        self.loop.add_reader(self.data_path.fileno(), self.data_path.ready)

    def _open_discovery(self) -> RouterDiscovery:
        discovery = RouterDiscovery(
            self.loop,
            self.network,
            name=self.config.name,
            is_router=lambda: self.stack.forwarding,
            use=self._default_rule.set_router,
            tell=self.events.add,
            controlled=lambda: self._controller is not None and self._controller.up,
            rng=random.SystemRandom(),
        )
        self._closers.append(discovery.close)
        try:
            discovery.open(find=self.config.find_router, controller_expected=self.config.controller is not None)
        except OSError as error:
            self.warnings.append(f"service routers cannot be found, nor this one: UDP port {PORT}: {error.strerror}")
        return discovery

    def _connect_controller(self, make_socket: MakeSocket) -> None:
        if self.config.controller is None:
            return
        channel = NodeChannel(datapath_id=node_datapath_id(self.config.node_id), state=self.state)
        requests = ControllerRequests(self)
        self._controller = ControllerLink(
            self.loop, self.config.controller, channel, make_socket, requests.handle, random.SystemRandom()
        )
        requests.link = self._controller
        # Below the advertiser, whose farewell goes through the channel.
        self._closers.insert(-1, self._controller.close)

    @property
    def role(self) -> str:
        """What it is now: forwarding can be switched at run time."""
        return "router" if self.stack.forwarding else "host"

    def set_capabilities(self, *, forwarding: bool | None, mode: str | None) -> None:
        """Switch what is not None."""
        if mode is not None:
            self.stack.mode = ResolutionMode(mode)
        if forwarding is not None and forwarding != self.stack.forwarding:
            self.stack.forwarding = forwarding
            self.state_changed()

    # -- packets

    def _kernel_packet(self, packet: memoryview, gso_size: int) -> None:
        self.stack.kernel_packet(packet, gso_size, time.monotonic())
        self._take_outputs()

    def _network_packet(self, packet: memoryview) -> None:
        self.stack.network_packet(packet, time.monotonic())
        self._take_outputs()

    def _socket_gone(self, sock: InetSocket) -> None:
        if sock.protocol == PROTOCOL_UDP:
            self.datagram_sockets.ended(sock)
            return
        # The last four bytes are the IPv4 address, also of a dual-stack socket (::ffff:a.b.c.d).
        local, peer = (sock.local_address[-4:], sock.local_port), (sock.peer_address[-4:], sock.peer_port)
        self.stack.kernel_socket_gone(local, peer, time.monotonic())
        self._take_outputs()

    def _first_packet(self, local_flow: int) -> None:
        self.stack.note_peer_activity(local_flow, time.monotonic())
        self._take_outputs()

    def _take_outputs(self) -> None:
        # After every packet and not once per batch: a later packet of the flow may already take the fast path.
        path = self.data_path
        for output in self.stack.take_outputs():
            if isinstance(output, Send):
                path.send(output)
            elif isinstance(output, Deliver):
                path.deliver(output)
            elif isinstance(output, InstallPath):
                path.install(output.state)
            elif isinstance(output, RemovePath):
                self._keep_counters(output.local_flow, path.remove(output.local_flow))
            elif isinstance(output, DoubtSent):
                path.doubt(output)
            elif isinstance(output, SendAgain):
                segments, size = path.send_again(output)
                if segments:
                    again = SentAgain(time.monotonic(), output.local_flow, output.service_id, segments, size)
                    self._own_events.append(again)

    def _settle(self) -> float | None:
        stack, activity, now = self.stack, self._activity, time.monotonic()
        when = stack.next_timer()
        due = when is not None and when <= now
        activity.tell(now, judged=due)
        if due:
            stack.handle_timer(now)
        self._take_outputs()
        while events := self._take_events():
            for event in events:
                self._reactions.handle(event)
                self.automatic.heard_of(event)
                if isinstance(event, FlowClosed):
                    self._left_counters.pop(event.flow_id, None)
                elif isinstance(event, RuleExpired):
                    self.rules.ended(event.prefix)
        times = stack.next_timer(), activity.next_time()
        return min((time for time in times if time is not None), default=None)

    def _take_events(self) -> list[Event]:
        """What happened since the last call, to the stack and because of what it wanted done, in the order of time."""
        events = self.stack.take_events()
        if self._own_events:
            events = sorted([*events, *self._own_events], key=lambda event: event.time)
            self._own_events = []
        return events

    def _segments_lost(self, local: Address, peer: Address, why: str) -> None:
        self.events.add(SegmentedSingly(time.monotonic(), local, peer, why))

    def _network_changed(self) -> None:
        happened = self.loop.woken  # before whatever else came at the same moment
        change = self.network.readable()
        if change.places:
            self._raw.addresses_changed()
            self.adhoc.network_changed()
            self.discovery.network_changed()
            self.stack.encapsulation.forget()
            if self._udp is not None:
                self._udp.addresses_changed()
            self._follow_mtu()
        self.automatic.network_changed(change, happened)
        if (change.added or change.removed) and self._controller is not None:
            self._controller.send_state()

    def _follow_mtu(self) -> None:
        """sal0 is as wide as the narrowest link, so that the kernel's segments fit on each."""
        if self.config.mtu is None:
            self.tun.set_mtu(self.network.smallest_mtu() - BARE_LENGTH)

    # -- the controller

    def announce(self, message: NodeMessage) -> None:
        """Tell the controller, if there is one now."""
        if self._controller is not None:
            self._controller.send(message)

    def _advertise(self, message: NodeMessage) -> None:
        if isinstance(message, Unregister):
            self.loads.withdrawn(message.prefix)
        self.announce(message)

    def _announce_later(self, make: Callable[[], NodeMessage]) -> None:
        if self._controller is not None:
            self._controller.send_later(make)

    def delay_verdict(self, prefix: Prefix, verdict: DelayVerdict) -> int:
        """Release, drop or refuse what waits for services of `prefix`; how many packets.

        Raises ValueError when nothing waits, and when what was released waits again because a rule still says DELAY.
        """
        number = self.stack.delay_verdict(prefix, verdict, time.monotonic())
        if not number:
            raise ValueError(f"nothing waits for {self.names.describe(prefix)}")
        again = [item for item in self.stack.waiting() if prefix.covers(item.service_id)]
        if verdict is DelayVerdict.RELEASE and again:
            rule = self.names.describe(again[0].prefix)
            raise ValueError(
                f"{len(again)} of {number} packets wait again: the rule {rule} -> DELAY still stands; "
                "set or remove a rule first, which also releases"
            )
        return number

    def _delayed(self) -> tuple[DelayNotify, ...]:
        table = self.stack.service_table
        return tuple(
            DelayNotify(Prefix.of(service_id), entry.prefix)
            for service_id in self.stack.delayed()
            if (entry := table.lookup(service_id)) is not None
        )

    def _keep_counters(self, local_flow: int, counters: FlowCounters | None) -> None:
        """A flow that has left the fast path is still in lists while it closes."""
        if counters is None:
            return
        before = self._left_counters.get(local_flow, (0, 0, 0, 0))
        now = (counters.sent_packets, counters.sent_bytes, counters.received_packets, counters.received_bytes)
        self._left_counters[local_flow] = tuple(old + new for old, new in zip(before, now, strict=True))

    def flow_counters(self, local_flow: int) -> tuple[int, ...]:
        """Fast-path figures of a flow, or all of a flow of datagrams: packets and bytes out, packets and bytes in."""
        flow = self.stack.flows.get(local_flow)
        if flow is not None and flow.datagrams is not None:
            return flow.datagrams.traffic
        left = self._left_counters.get(local_flow, (0, 0, 0, 0))
        counters = self.data_path.counters(local_flow)
        if counters is None:
            return left
        now = (counters.sent_packets, counters.sent_bytes, counters.received_packets, counters.received_bytes)
        return tuple(old + new for old, new in zip(left, now, strict=True))

    def state_changed(self) -> None:
        """What no message of its own tells has changed (rules by hand, offers, the role): the controller's picture of
        this node is out of date.
        """
        if self._controller is not None:
            self._controller.send_state()

    def state(self) -> NodeState:
        """Everything that a controller should know about this node."""
        return NodeState(
            name=self.config.name,
            role=self.role,
            boot=self.boot,
            addresses=tuple(address_text(item) for item in self.network.own_addresses()),
            serves=self.serves,
            bindings=self.advertiser.registrations(),
            rules=self.rules.from_outside(),
            delayed=self._delayed(),
            standbys=self.standbys.offers(),
        )

    def status(self) -> dict[str, Any]:
        """For `serval stat` and for whoever waits for this node."""
        controller = self.config.controller
        return {
            "name": self.config.name,
            "role": self.role,
            "pid": os.getpid(),
            "boot": self.boot,
            "addresses": [address_text(item) for item in self.network.own_addresses()],
            "serves": [self.names.describe(prefix) for prefix in self.serves],
            "resolution_mode": self.stack.mode.value,
            "auto_migrate": self.automatic.view(),
            "adhoc": self.adhoc.on,
            "migrate_congestion": "keep" if self.data_path.keeping else "reset",
            "controller": None if controller is None else f"{controller.host}:{controller.port}",
            "controller_up": self._controller is not None and self._controller.up,
            "warnings": self.warnings,
        }

    def close(self) -> None:
        """Unregister every service, close everything, remove sal0 and the control socket."""
        self.loop.settle = None
        while self._closers:
            self._closers.pop()()


def _served(naming: Naming, text: str) -> Prefix:
    """A prefix that a router serves: a provider's label alone, or any text form of a prefix."""
    return naming.parse(text) if "." in text or "/" in text or text.startswith("0x") else naming.block(text)
