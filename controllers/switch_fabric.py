"""The switch fabric app: a shim around `fabric`, which decides; here is only the OpenFlow 1.3 of it."""

from __future__ import annotations

import itertools
import logging
import random
import time
from typing import Any

from controllers import fabric, flows, framework
from controllers.datapath_app import DatapathApp
from controllers.framework import ofp_event, set_ev_cls
from controllers.hand import EventHandRequest
from controllers.topology import End

LOG = logging.getLogger("controllers.fabric")

COOKIE_BITS = 16
_GROUP_BIT = "01:00:00:00:00:00"


class SwitchFabric(DatapathApp):
    """All datapaths without the Serval tag, as one switched network."""

    serval_nodes = False
    log = LOG
    tick_seconds = 0.05
    hand_operations = frozenset({"status", "switches"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fabric = fabric.Fabric()
        # Each connection of a switch has a cookie of its own; the start is random, so that flows of a controller
        # that ran before can be told from ours.
        self._cookies: dict[int, int] = {}
        self._silent: frozenset[End] = frozenset()
        self._former_links: dict[int, set[int]] = {}
        self._next_cookie = itertools.count(random.SystemRandom().getrandbits(COOKIE_BITS))

    def tick_due(self) -> bool:
        timer = self.fabric.next_timer()
        return timer is not None and timer <= time.monotonic()

    def tick(self) -> None:
        self._carry_out(self.fabric.handle_timer(time.monotonic()))
        silent = self.fabric.silent
        for switch, port in sorted(silent - self._silent):
            LOG.warning("switch %016x: probes out of port %d are not heard at the other end of the link", switch, port)
        for switch, port in sorted(self._silent - silent):
            LOG.info("switch %016x: the link at port %d is no longer silent", switch, port)
        self._silent = silent

    def joined(self, datapath: Any, *, again: bool) -> None:
        self._cookies[datapath.id] = next(self._next_cookie) % (1 << COOKIE_BITS)
        self._former_links[datapath.id] = set()
        # The answers come in this order: when the ports are known, the flows are.
        datapath.send_msg(datapath.ofproto_parser.OFPFlowStatsRequest(datapath, 0, 0))
        datapath.send_msg(datapath.ofproto_parser.OFPPortDescStatsRequest(datapath, 0))

    def left(self, datapath_id: int) -> None:
        LOG.info("switch %016x is gone", datapath_id)
        self._carry_out(self.fabric.switch_down(datapath_id, time.monotonic()))

    @set_ev_cls(ofp_event.EventOFPFlowStatsReply, framework.MAIN)
    def _on_flows(self, event: Any) -> None:
        message, datapath = event.msg, event.msg.datapath
        if self._is_current(datapath):
            for flow in message.body:
                if fabric.is_link_flow(flow.table_id, flow.priority) and "in_port" in flow.match:
                    self._former_links[datapath.id].add(flow.match["in_port"])

    @set_ev_cls(ofp_event.EventOFPPortDescStatsReply, framework.MAIN)
    def _on_ports(self, event: Any) -> None:
        message, datapath = event.msg, event.msg.datapath
        if not self._is_current(datapath):
            return
        # OVS describes about a thousand ports in one message; a second part only adds ports to the first.
        now = time.monotonic()
        ports = {port.port_no: _mac(port.hw_addr) for port in message.body if _is_live(datapath, port)}
        if getattr(datapath, "fabric_ports_known", False):
            for number, mac in ports.items():
                self._carry_out(self.fabric.port_up(datapath.id, number, mac, now))
            return
        datapath.fabric_ports_known = True
        LOG.info("switch %016x has %d ports", datapath.id, len(ports))
        self._carry_out(self.fabric.switch_up(datapath.id, ports, now, self._former_links.pop(datapath.id)))

    @set_ev_cls(ofp_event.EventOFPPortStatus, framework.MAIN)
    def _on_port_status(self, event: Any) -> None:
        message, datapath = event.msg, event.msg.datapath
        if not self._is_current(datapath):
            return
        port, now = message.desc, time.monotonic()
        if message.reason != datapath.ofproto.OFPPR_DELETE and _is_live(datapath, port):
            self._carry_out(self.fabric.port_up(datapath.id, port.port_no, _mac(port.hw_addr), now))
        else:
            self._carry_out(self.fabric.port_down(datapath.id, port.port_no, now))

    @set_ev_cls(ofp_event.EventOFPPacketIn, framework.MAIN)
    def _on_packet_in(self, event: Any) -> None:
        message, datapath = event.msg, event.msg.datapath
        if self._is_current(datapath):
            port, frame = message.match["in_port"], bytes(message.data)
            now = time.monotonic()
            self._carry_out(self.fabric.packet_in(datapath.id, port, message.table_id, frame, now))

    @set_ev_cls(ofp_event.EventOFPBarrierReply, framework.MAIN)
    def _on_barrier(self, event: Any) -> None:
        message, datapath = event.msg, event.msg.datapath
        if self._is_current(datapath):
            self._carry_out(self.fabric.barrier(datapath.id, message.xid, time.monotonic()))

    @set_ev_cls(EventHandRequest)
    def _on_hand_request(self, event: EventHandRequest) -> None:
        if event.request["op"] == "status":
            event.answer({"ok": True, "fabric_ready": self.fabric.ready, "switches": self.fabric.switches})
            return
        links, silent, stations = self.fabric.links, self.fabric.silent, self.fabric.stations
        switches = [
            {
                "datapath_id": f"{switch:016x}",
                "links": {str(a[1]): f"{b[0]:016x}:{b[1]}" for a, b in sorted(links.items()) if a[0] == switch},
                "silent": sorted(a[1] for a, b in links.items() if a[0] == switch and {a, b} & silent),
                "stations": {mac.hex(":"): end[1] for mac, end in stations.items() if end[0] == switch},
            }
            for switch in self.fabric.switches
        ]
        event.answer({"ok": True, "switches": switches})

    def _carry_out(self, commands: list[flows.Command]) -> None:
        for command in commands:
            datapath = self._datapaths.get(command.datapath_id)
            if datapath is not None:
                for message in self._messages(datapath, command):
                    datapath.send_msg(message)

    def _messages(self, datapath: Any, command: flows.Command) -> list[Any]:
        parser, ofproto = datapath.ofproto_parser, datapath.ofproto
        cookie = self._cookies[datapath.id]
        if isinstance(command, flows.SetFlow):
            return [
                parser.OFPFlowMod(
                    datapath,
                    cookie=cookie,
                    table_id=command.key.table,
                    priority=command.key.priority,
                    match=_match(parser, command.key.match),
                    instructions=_instructions(parser, ofproto, command.actions),
                )
            ]
        if isinstance(command, flows.DeleteFlow):
            return [
                parser.OFPFlowMod(
                    datapath,
                    command=ofproto.OFPFC_DELETE_STRICT,
                    table_id=command.key.table,
                    priority=command.key.priority,
                    match=_match(parser, command.key.match),
                    out_port=ofproto.OFPP_ANY,
                    out_group=ofproto.OFPG_ANY,
                )
            ]
        if isinstance(command, flows.DeleteOldFlows):
            return [_delete_by_bit(datapath, command.table, bit, cookie) for bit in range(COOKIE_BITS)]
        if isinstance(command, flows.PacketOut):
            actions = [parser.OFPActionOutput(port) for port in command.ports]
            return [
                parser.OFPPacketOut(
                    datapath,
                    buffer_id=ofproto.OFP_NO_BUFFER,
                    in_port=ofproto.OFPP_CONTROLLER,
                    actions=actions,
                    data=command.frame,
                )
            ]
        barrier = parser.OFPBarrierRequest(datapath)
        barrier.set_xid(command.token)
        return [barrier]


def _delete_by_bit(datapath: Any, table: int, bit: int, cookie: int) -> Any:
    """Deletes the flows whose cookie differs from ours in this bit: together, all flows with another cookie."""
    ofproto = datapath.ofproto
    return datapath.ofproto_parser.OFPFlowMod(
        datapath,
        cookie=~cookie & 1 << bit,
        cookie_mask=1 << bit,
        command=ofproto.OFPFC_DELETE,
        table_id=table,
        out_port=ofproto.OFPP_ANY,
        out_group=ofproto.OFPG_ANY,
    )


def _match(parser: Any, match: flows.Match) -> Any:
    fields: dict[str, Any] = {}
    if match.in_port is not None:
        fields["in_port"] = match.in_port
    if match.source is not None:
        fields["eth_src"] = match.source.hex(":")
    if match.ethertype is not None:
        fields["eth_type"] = match.ethertype
    if isinstance(match.destination, bytes):
        fields["eth_dst"] = match.destination.hex(":")
    elif match.destination is not None:
        fields["eth_dst"] = (_GROUP_BIT, _GROUP_BIT)
    return parser.OFPMatch(**fields)


def _instructions(parser: Any, ofproto: Any, actions: flows.Actions) -> list[Any]:
    outputs = [parser.OFPActionOutput(port) for port in actions.ports]
    if actions.controller:
        outputs.append(parser.OFPActionOutput(ofproto.OFPP_CONTROLLER, ofproto.OFPCML_NO_BUFFER))
    instructions = []
    if outputs:
        instructions.append(parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, outputs))
    if actions.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(actions.goto))
    return instructions


def _is_live(datapath: Any, port: Any) -> bool:
    """A real port that is up (the switch's own one, for instance, has a reserved number)."""
    ofproto = datapath.ofproto
    return (
        port.port_no <= ofproto.OFPP_MAX
        and not port.state & ofproto.OFPPS_LINK_DOWN
        and not port.config & ofproto.OFPPC_PORT_DOWN
    )


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
