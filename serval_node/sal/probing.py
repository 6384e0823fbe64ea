"""Probes on the wire, and what the stack's flows tell the judge of their paths (`liveness`).

A probe is CONTROL with NACK alone and a verno from before the flow's first one, a different one each time; its answer
is NACK|ACK with that verno as ackno. Both carry nonces, take no number and change nothing. The original sends neither:
to any CONTROL with an old verno it answers by a bare ACK (protocol notes 2.2), and that is an answer too.

A path for raw packets that has fallen silent is asked inside UDP as well, unless its peer shall get raw ones alone:
something on the way may drop what it does not know. The answer's form tells which question it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serval_node.sal.context import LOOPBACK, Context
from serval_node.sal.encapsulation import Encapsulation
from serval_node.sal.events import PathAnswers, PathSilent, Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.liveness import Answers, Ask, Back, Liveness, PathKey
from serval_node.sal.places import Place
from serval_node.sal.states import ESTABLISHED, State
from serval_node.wire.encapsulation import TO_SERVER
from serval_node.wire.ipv4 import Ipv4Header
from serval_node.wire.sal_header import Control, ControlFlag
from serval_node.wire.serial import MASK

_NACK, _ACK = ControlFlag.NACK, ControlFlag.ACK

# The number of every probe inside UDP; those that the judge asks for begin at 1.
_INSIDE = 0


class Probing:
    """Watches the paths of one stack's flows while it is switched on; answers the peers' probes always."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._on = False
        self._follow_answers: Callable[[Flow, float], None] | None = None
        self._go_inside: Callable[[Flow, float, float], None] | None = None
        self.liveness = Liveness()

    def follow_answers(self, follow: Callable[[Flow, float], None]) -> None:
        """``follow(flow, now)`` hears of each flow inside UDP whose path is answered while its own packets are not."""
        self._follow_answers = follow

    def follow_inside(self, follow: Callable[[Flow, float, float], None]) -> None:
        """``follow(flow, since, now)`` hears of each raw flow whose path, silent since then, answers inside UDP."""
        self._go_inside = follow

    @property
    def on(self) -> bool:
        """Whether paths are judged and probes sent."""
        return self._on

    def switch(self, *, on: bool) -> None:
        if self._on and not on:
            self.liveness.forget_all()
        self._on = on

    # -- what flows tell

    def traffic(
        self, local_flow: int, now: float, *, heard: float | None, gap: float, owing: bool, payload: bool
    ) -> None:
        """An established flow had traffic on the fast path; see Liveness.traffic."""
        flow = self._context.flows.get(local_flow)
        key = None if flow is None else self._watched(flow)
        if flow is not None and key is not None:
            back = self.liveness.traffic(
                key,
                local_flow,
                now,
                heard=heard,
                gap=gap,
                owing=owing,
                payload=payload,
                marked=flow.marked,
                rtt=flow.control.rtt,
            )
            self._tell(back, now)

    def owes(self, flow: Flow, now: float) -> None:
        """The stack itself waits for the peer: for the end of a close, or the answer to an RSYN."""
        key = self._watched(flow)
        if key is not None:
            self.liveness.waits(key, flow.local_flow, now, marked=flow.marked, rtt=flow.control.rtt)

    def heard(self, flow: Flow, header: Ipv4Header, now: float) -> None:
        """A packet of this flow came to the stack, its flowIDs (and nonce, if any) checked."""
        if not self._on:
            return
        self._tell(self.liveness.heard(_path(header), now), now)
        waiting = flow.control.pending is not None or (flow.fin_end is not None and not flow.fin_acked)
        key = None if waiting else self._watched(flow)
        if key is not None:
            self.liveness.settled(key, flow.local_flow)

    # -- packets

    def receive(self, flow: Flow, header: Ipv4Header, control: Control, now: float) -> None:
        """NACK with a right nonce: a probe, which is answered to where it came from, or the answer to one of ours."""
        context, state = self._context, flow.control
        if control.flags == _NACK and state.is_stale(control):
            answer = Control(_NACK | _ACK, state.snd_nxt, control.verno, state.local_nonce)
            context.send(flow, (answer,), b"", Place(header.source, header.ports), source=header.destination)
            self.heard(flow, header, now)
        elif control.flags == _NACK | _ACK:
            if self._on and flow.ports is None and header.ports is not None:
                self._answered_inside(flow, now)
            elif self._on:
                number = state.initial - control.ackno & MASK
                self._tell(self.liveness.answered(_path(header), number, now), now)
        else:
            context.refuse(Refusal.UNEXPECTED_CONTROL, now)

    def _ask(self, ask: Ask) -> None:
        flow = self._context.flows.get(ask.flow_id)
        if flow is not None:
            self._send_probe(flow, ask.path, ask.number)

    def _ask_inside(self, path: PathKey) -> None:
        local, peer = path
        flow_id = self.any_at(path)
        flow = None if flow_id is None else self._context.flows.get(flow_id)
        chosen = self._context.config.encapsulation.of(peer.address)
        if flow is not None and flow.marked and peer.ports is None and chosen is not Encapsulation.RAW:
            self._send_probe(flow, (local, peer._replace(ports=TO_SERVER)), _INSIDE)

    def _send_probe(self, flow: Flow, path: PathKey, number: int) -> None:
        state = flow.control
        probe = Control(_NACK, state.initial - number & MASK, state.rcv_nxt, state.local_nonce)
        self._context.send(flow, (probe,), b"", path[1], source=path[0])

    # -- time

    def next_timer(self) -> float | None:
        return self.liveness.next_timer()

    def run(self, now: float) -> None:
        """Do what is due."""
        for item in self.liveness.run(now, self):
            if isinstance(item, Ask):
                self._ask(item)
            else:
                local, peer = item.path
                self._context.events.append(PathSilent(now, local, peer.address, peer.ports, item.since))
                self._ask_inside(item.path)

    def _tell(self, news: Sequence[Back | Answers], now: float) -> None:
        for item in news:
            local, peer = item.path
            if isinstance(item, Answers):
                self._answered_alone(item.path, now)
                continue
            self._context.events.append(PathAnswers(now, local, peer.address, peer.ports))

    def _answered_alone(self, path: PathKey, now: float) -> None:
        if path[1].ports is None or self._follow_answers is None:
            return
        for flow in [flow for flow in self._context.flows if self._watched(flow) == path]:
            self._follow_answers(flow, now)

    def _answered_inside(self, flow: Flow, now: float) -> None:
        path = self._watched(flow)
        since = None if path is None else self.liveness.silent_since(path)
        if path is None or since is None or self._go_inside is None:
            return
        for other in [other for other in self._context.flows if self._watched(other) == path]:
            self._go_inside(other, since, now)

    # -- what the judge asks

    def is_at(self, flow_id: int, path: PathKey) -> bool:
        flow = self._context.flows.get(flow_id)
        return flow is not None and self._watched(flow) == path

    def any_at(self, path: PathKey) -> int | None:
        return next((flow.local_flow for flow in self._context.flows if self._watched(flow) == path), None)

    def used_since(self, path: PathKey) -> float | None:
        return min((flow.placed for flow in self._context.flows if self._watched(flow) == path), default=None)

    def _watched(self, flow: Flow) -> PathKey | None:
        """The path of a flow that is judged; None where the peer cannot answer, or needs no network to."""
        settled = flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT
        if not self._on or not settled or flow.unconfirmed or flow.resetting:
            return None
        peer = flow.peer
        if peer.address == LOOPBACK or self._context.environment.is_local(peer.address):
            return None
        return flow.local_address, peer


def _path(header: Ipv4Header) -> PathKey:
    """The path on which a packet came."""
    return header.destination, Place(header.source, header.ports)
