"""The node's side of the controller channel: bytes in, bytes and events out; no sockets, no clock.

A shell connects a TCP socket and then

    channel.connected(now)                       after each connect
    channel.receive(data, now)                   for what it read
    sock.send(channel.take_output())             after every call; partial sends are the shell's to finish
    for event in channel.take_events(): ...
    channel.next_timer() / channel.handle_timer(now)
    channel.disconnected()                       when the socket is gone; connect again after a while

A controller that stops answering echo requests counts as gone (ChannelFailed). Every request of the controller
arrives as a `Request`; the shell answers it with `answer(xid, ...)` or `result(xid, ...)`, except LOADS. STATE_GET is
answered here, from the `state` callable, which is also asked when the handshake is complete: so the controller
always gets the node's full state before any other message of a connection. Controller apps made for switches may ask
and change what they like: a datapath without tables and ports has no statistics (empty replies), and refuses flows,
groups, meters and packets as a switch refuses those for a table or port that it has not. What this node does not know
at all is answered by an OpenFlow error too; none of this ends the connection. A barrier is answered when every request
before it has been.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from serval_node.control import experimenter, messages, openflow
from serval_node.control.messages import ControllerMessage, Message, NodeMessage, NodeState, Result
from serval_node.control.openflow import BadRequest, ErrorType, Multipart, OpenFlowMessage, Type
from serval_node.control.rules import MessageError

ECHO_INTERVAL = 5.0
"""Seconds of silence after which the node asks whether the controller is there."""

ECHO_TIMEOUT = 15.0
"""Seconds of silence after which it is taken for gone."""

_FROM_CONTROLLER = get_args(ControllerMessage)


@dataclass(frozen=True, slots=True)
class ChannelUp:
    """The handshake is complete and NODE_STATE is on its way; from now on `send` takes messages."""


@dataclass(frozen=True, slots=True)
class Request:
    """The controller asks for something."""

    xid: int
    message: ControllerMessage


@dataclass(frozen=True, slots=True)
class ChannelFailed:
    """The connection is of no use: send what is left in the output, close it, connect again later."""

    reason: str


ChannelEvent = ChannelUp | Request | ChannelFailed


class NodeChannel:
    """One node's channel; serves any number of connections one after the other.

    datapath_id  see `experimenter.node_datapath_id`
    state        gives the node's state now; called at each connect and on STATE_GET
    """

    def __init__(self, *, datapath_id: int, state: Callable[[], NodeState]) -> None:
        self._datapath_id = datapath_id
        self._state = state
        self._output = bytearray()
        self._events: list[ChannelEvent] = []
        self._xid = 0
        self._reset(open_=False)

    def _reset(self, *, open_: bool) -> None:
        self._open = open_
        self._up = False
        self._hello_seen = False
        self._framer = openflow.Framer()
        self._assembler = experimenter.Assembler()
        self._config = (0, 128)
        self._unanswered: set[int] = set()
        self._barriers: list[tuple[int, set[int]]] = []
        self._heard = 0.0
        self._asked = 0.0
        self._output.clear()

    @property
    def up(self) -> bool:
        """Whether the controller has (or is being sent) the node's state."""
        return self._up

    def connected(self, now: float) -> None:
        """A new connection; what was left of the last one is forgotten."""
        self._reset(open_=True)
        self._heard = self._asked = now
        self._output += openflow.hello(self._next_xid())

    def disconnected(self) -> None:
        """The connection is gone. Messages sent from here on are not kept: the next NODE_STATE says it all."""
        self._reset(open_=False)

    def send(self, message: NodeMessage, xid: int | None = None) -> bool:
        """Queue a message; False (and nothing queued) while the channel is not up."""
        if not self._up:
            return False
        self._queue(message, self._next_xid() if xid is None else xid)
        return True

    def send_state(self) -> bool:
        """Queue NODE_STATE: for changes that no other message tells (hand rules made here, addresses)."""
        return self.send(self._state())

    def answer(self, xid: int, message: NodeMessage) -> bool:
        """Queue the answer to the request with this xid."""
        sent = self.send(message, xid)
        self._unanswered.discard(xid)
        self._pass_barriers()
        return sent

    def result(self, xid: int, reason: str | None = None) -> bool:
        """Acknowledge a request, or with a reason refuse it."""
        return self.answer(xid, Result(reason is None, reason or ""))

    def take_output(self) -> bytes:
        """Bytes to send, once."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def take_events(self) -> list[ChannelEvent]:
        events, self._events = self._events, []
        return events

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called, in the time base of `now`."""
        if not self._open:
            return None
        return min(max(self._heard, self._asked) + ECHO_INTERVAL, self._heard + ECHO_TIMEOUT)

    def handle_timer(self, now: float) -> None:
        if not self._open:
            return
        if now - self._heard >= ECHO_TIMEOUT:
            self._fail(f"the controller has been silent for {now - self._heard:.0f} s")
        elif now - max(self._heard, self._asked) >= ECHO_INTERVAL:
            self._asked = now
            self._output += openflow.build(Type.ECHO_REQUEST, self._next_xid())

    def receive(self, data: bytes, now: float) -> None:
        """Bytes of the controller. Never raises: what cannot be read becomes an OpenFlow error or ChannelFailed."""
        if not self._open:
            return
        self._heard = now
        try:
            received = self._framer.feed(data)
        except openflow.FramingError as error:
            self._fail(str(error))
            return
        for message in received:
            if self._open:
                self._handle(message)

    def _handle(self, message: OpenFlowMessage) -> None:
        if message.type == Type.HELLO:
            self._handle_hello(message)
        elif not self._hello_seen:
            self._fail("the controller did not begin with HELLO")
        elif message.version != openflow.VERSION:
            self._refuse(message, BadRequest.VERSION)
        else:
            handler = _HANDLERS.get(message.type)
            if handler is None:
                self._refuse(message, BadRequest.TYPE)
                return
            try:
                handler(self, message)
            except struct.error:
                self._refuse(message, BadRequest.LENGTH)

    def _handle_hello(self, message: OpenFlowMessage) -> None:
        self._hello_seen = True
        if not openflow.speaks_our_version(message):
            reason = f"this node speaks OpenFlow 1.3 (0x04), the controller offers 0x{message.version:02x}"
            self._output += openflow.hello_failed(message.xid, reason)
            self._fail(reason)

    def _echo_request(self, message: OpenFlowMessage) -> None:
        self._output += openflow.build(Type.ECHO_REPLY, message.xid, message.body)

    def _features(self, message: OpenFlowMessage) -> None:
        self._output += openflow.features_reply(message.xid, self._datapath_id)

    def _set_config(self, message: OpenFlowMessage) -> None:
        self._config = struct.unpack_from("!HH", message.body)

    def _get_config(self, message: OpenFlowMessage) -> None:
        self._output += openflow.get_config_reply(message.xid, *self._config)

    def _barrier(self, message: OpenFlowMessage) -> None:
        self._barriers.append((message.xid, set(self._unanswered)))
        self._pass_barriers()

    def _pass_barriers(self) -> None:
        while self._barriers and not self._barriers[0][1] & self._unanswered:
            self._output += openflow.build(Type.BARRIER_REPLY, self._barriers.pop(0)[0])

    def _multipart(self, message: OpenFlowMessage) -> None:
        (kind,) = struct.unpack_from("!H", message.body)
        if kind == Multipart.DESCRIPTION:
            self._output += openflow.multipart_reply(message.xid, kind, openflow.description(self._state().name))
        elif kind == Multipart.PORT_DESCRIPTION:
            self._output += openflow.multipart_reply(message.xid, kind)
            # The last step of the controller's handshake: messages that came earlier would find no one there.
            self._come_up()
        elif kind in openflow.EMPTY_REPLIES:
            self._output += openflow.multipart_reply(message.xid, kind, openflow.EMPTY_REPLIES[kind])
        else:
            self._refuse(message, BadRequest.MULTIPART)

    def _come_up(self) -> None:
        if not self._up:
            self._up = True
            self._queue(self._state(), self._next_xid())
            self._events.append(ChannelUp())

    def _experimenter(self, message: OpenFlowMessage) -> None:
        experimenter_id, exp_type = struct.unpack_from("!II", message.body)
        if experimenter_id != experimenter.EXPERIMENTER:
            self._refuse(message, BadRequest.EXPERIMENTER)
            return
        try:
            request = self._assembler.add(exp_type, message.xid, message.body[8:])
        except experimenter.UnknownMessageType:
            self._refuse(message, BadRequest.EXPERIMENTER_TYPE)
            return
        except MessageError as error:
            self._queue(Result(False, str(error)), message.xid)
            return
        if isinstance(request, messages.StateGet):
            self._come_up()
            self._queue(self._state(), message.xid)
        elif isinstance(request, _FROM_CONTROLLER):
            if not isinstance(request, messages.Loads):
                self._unanswered.add(message.xid)
            self._events.append(Request(message.xid, request))
        elif request is not None:
            self._refuse(message, BadRequest.EXPERIMENTER_TYPE)

    def _change(self, message: OpenFlowMessage) -> None:
        refusal = openflow.REFUSALS[message.type]
        if refusal.applies(message.body):
            self._output += openflow.error(refusal.kind, refusal.code, message)

    def _ignore(self, message: OpenFlowMessage) -> None:
        """Echo replies count by their arrival; of errors about our messages nothing can be done here."""

    def _refuse(self, message: OpenFlowMessage, code: BadRequest) -> None:
        self._output += openflow.error(ErrorType.BAD_REQUEST, code, message)

    def _fail(self, reason: str) -> None:
        self._open = self._up = False
        self._events.append(ChannelFailed(reason))

    def _queue(self, message: Message, xid: int) -> None:
        for exp_type, data in experimenter.encode(message):
            self._output += openflow.experimenter(xid, experimenter.EXPERIMENTER, exp_type, data)

    def _next_xid(self) -> int:
        # The upper half is left to the controller's requests, so that the logs of both sides cannot be mistaken.
        self._xid = (self._xid + 1) & 0x7FFFFFFF
        return self._xid


_HANDLERS: dict[int, Callable[[NodeChannel, OpenFlowMessage], None]] = {
    Type.ERROR: NodeChannel._ignore,
    Type.ECHO_REQUEST: NodeChannel._echo_request,
    Type.ECHO_REPLY: NodeChannel._ignore,
    Type.EXPERIMENTER: NodeChannel._experimenter,
    Type.FEATURES_REQUEST: NodeChannel._features,
    Type.GET_CONFIG_REQUEST: NodeChannel._get_config,
    Type.SET_CONFIG: NodeChannel._set_config,
    Type.MULTIPART_REQUEST: NodeChannel._multipart,
    Type.BARRIER_REQUEST: NodeChannel._barrier,
    **dict.fromkeys(openflow.REFUSALS, NodeChannel._change),
}
