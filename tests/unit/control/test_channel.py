"""The node's side of the controller channel, against scripted controllers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.control import experimenter, messages, openflow
from serval_node.control.channel import (
    ECHO_INTERVAL,
    ECHO_TIMEOUT,
    ChannelFailed,
    ChannelUp,
    NodeChannel,
    Request,
)
from serval_node.control.openflow import BadRequest, ErrorType, OpenFlowMessage, Type
from serval_node.control.rules import RuleSpec, forward
from serval_node.wire.serviceid import Prefix

STATE = messages.NodeState("dan", "host", "b1", ("10.2.1.1",))
DPID = experimenter.node_datapath_id(4)
RULE = RuleSpec(Prefix.from_text("0x9c1185/24"), (forward("10.0.0.1"),))


class Controller:
    """Speaks to a channel and reads what it says."""

    def __init__(self, channel: NodeChannel) -> None:
        self.channel = channel
        self.framer = openflow.Framer()
        self.assembler = experimenter.Assembler()
        self.now = 0.0

    def hear(self) -> list[OpenFlowMessage]:
        return self.framer.feed(self.channel.take_output())

    def say(self, *parts: bytes) -> list[OpenFlowMessage]:
        self.channel.receive(b"".join(parts), self.now)
        return self.hear()

    def send(self, xid: int, message: messages.Message, **options: int) -> list[OpenFlowMessage]:
        pieces = experimenter.encode(message, **options)
        return self.say(*(openflow.experimenter(xid, experimenter.EXPERIMENTER, kind, data) for kind, data in pieces))

    def read(self, message: OpenFlowMessage) -> messages.Message | None:
        assert message.type == Type.EXPERIMENTER
        experimenter_id, kind = struct.unpack_from("!II", message.body)
        assert experimenter_id == experimenter.EXPERIMENTER
        return self.assembler.add(kind, message.xid, message.body[8:])

    def shake_hands(self) -> list[OpenFlowMessage]:
        self.channel.connected(self.now)
        return self.say(
            openflow.hello(1),
            openflow.build(Type.FEATURES_REQUEST, 2),
            openflow.build(Type.MULTIPART_REQUEST, 3, struct.pack("!HH4x", 13, 0)),
        )


@pytest.fixture
def controller() -> Controller:
    return Controller(NodeChannel(datapath_id=DPID, state=lambda: STATE))


def up(controller: Controller) -> Controller:
    controller.shake_hands()
    controller.channel.take_events()
    return controller


def error_of(message: OpenFlowMessage) -> tuple[int, int]:
    assert message.type == Type.ERROR
    kind, code = struct.unpack_from("!HH", message.body)
    return kind, code


def test_the_handshake_ends_with_the_full_state(controller: Controller) -> None:
    hello, features, ports, state = controller.shake_hands()
    assert hello.type == Type.HELLO and openflow.speaks_our_version(hello)
    datapath_id, _, tables = struct.unpack_from("!QIB", features.body)
    assert (datapath_id, tables, features.xid) == (DPID, 0, 2)
    assert ports.type == Type.MULTIPART_REPLY and ports.body == struct.pack("!HH4x", 13, 0)
    assert controller.read(state) == STATE
    assert controller.channel.take_events() == [ChannelUp()]
    assert controller.channel.up


def test_set_config_echo_barrier_and_description_are_answered(controller: Controller) -> None:
    up(controller)
    assert controller.say(openflow.build(Type.SET_CONFIG, 1, struct.pack("!HH", 1, 500))) == []
    config, echo, barrier, description = controller.say(
        openflow.build(Type.GET_CONFIG_REQUEST, 5),
        openflow.build(Type.ECHO_REQUEST, 6, b"ping"),
        openflow.build(Type.BARRIER_REQUEST, 7),
        openflow.build(Type.MULTIPART_REQUEST, 8, struct.pack("!HH4x", 0, 0)),
    )
    assert (config.type, config.body) == (Type.GET_CONFIG_REPLY, struct.pack("!HH", 1, 500))
    assert (echo.type, echo.xid, echo.body) == (Type.ECHO_REPLY, 6, b"ping")
    assert (barrier.type, barrier.xid, barrier.body) == (Type.BARRIER_REPLY, 7, b"")
    assert b"dan" in description.body and len(description.body) == 8 + 1056


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        (200, b"", BadRequest.TYPE),
        (Type.MULTIPART_REQUEST, struct.pack("!HH4x", 99, 0), BadRequest.MULTIPART),
        (Type.MULTIPART_REQUEST, b"", BadRequest.LENGTH),
        (Type.SET_CONFIG, b"\0", BadRequest.LENGTH),
        (Type.FLOW_MOD, bytes(10), BadRequest.LENGTH),
        (Type.EXPERIMENTER, struct.pack("!II", 0x2320, 1), BadRequest.EXPERIMENTER),
        (Type.EXPERIMENTER, struct.pack("!II", experimenter.EXPERIMENTER, 99), BadRequest.EXPERIMENTER_TYPE),
        (Type.EXPERIMENTER, b"\0\0", BadRequest.LENGTH),
    ],
)
def test_what_a_node_does_not_know_gets_an_error_and_no_disconnect(
    controller: Controller, kind: int, body: bytes, code: BadRequest
) -> None:
    up(controller)
    request = openflow.build(kind, 77, body)
    (answer,) = controller.say(request)
    assert error_of(answer) == (ErrorType.BAD_REQUEST, code)
    assert answer.xid == 77 and answer.body[4:] == request[:64]
    assert controller.channel.up and controller.channel.take_events() == []
    (echo,) = controller.say(openflow.build(Type.ECHO_REQUEST, 78))
    assert echo.type == Type.ECHO_REPLY


def flow_mod(command: int, table: int = 0) -> bytes:
    return struct.pack("!QQBBHHHIIIH2xHH4x", 0, 0, table, command, 0, 0, 1, 0xFFFFFFFF, 0, 0, 0, 1, 4)


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        (Type.FLOW_MOD, flow_mod(0), (5, 2)),
        (Type.FLOW_MOD, flow_mod(1), (5, 2)),
        (Type.FLOW_MOD, flow_mod(3, table=0xFF), None),  # all flows deleted
        (Type.PACKET_OUT, struct.pack("!IIH6xHHIH6x4s", 0xFFFFFFFF, 1, 16, 0, 16, 1, 0, b"data"), (2, 4)),
        (Type.GROUP_MOD, struct.pack("!HBxI", 0, 0, 1), (6, 3)),
        (Type.GROUP_MOD, struct.pack("!HBxI", 2, 0, 0xFFFFFFFC), None),
        (Type.PORT_MOD, bytes(32), (7, 0)),
        (Type.TABLE_MOD, bytes(8), (8, 0)),
        (Type.QUEUE_GET_CONFIG_REQUEST, bytes(8), (9, 0)),
        (Type.ROLE_REQUEST, bytes(16), (11, 1)),
        (Type.METER_MOD, struct.pack("!HHI", 0, 1, 1), (12, 11)),
        (Type.METER_MOD, struct.pack("!HHI", 2, 0, 1), None),
    ],
)
def test_what_apps_want_of_tables_and_ports_is_refused_as_by_a_switch_that_lacks_them(
    controller: Controller, kind: int, body: bytes, error: tuple[int, int] | None
) -> None:
    up(controller)
    request = openflow.build(kind, 77, body)
    *answers, echo = controller.say(request, openflow.build(Type.ECHO_REQUEST, 78))
    assert [error_of(answer) for answer in answers] == ([] if error is None else [error])
    assert all(answer.xid == 77 and answer.body[4:] == request[:64] for answer in answers)
    assert echo.type == Type.ECHO_REPLY
    assert controller.channel.up and controller.channel.take_events() == []


@pytest.mark.parametrize("kind", range(1, 13))
def test_statistics_of_tables_and_ports_are_empty(controller: Controller, kind: int) -> None:
    up(controller)
    (answer,) = controller.say(openflow.build(Type.MULTIPART_REQUEST, 5, struct.pack("!HH4x", kind, 0)))
    assert (answer.type, answer.xid) == (Type.MULTIPART_REPLY, 5)
    assert struct.unpack_from("!HH", answer.body) == (kind, 0)
    assert answer.body[8:] == bytes({2: 24, 8: 40, 11: 16}.get(kind, 0))


def test_a_body_of_no_meaning_is_refused_with_the_reason(controller: Controller) -> None:
    up(controller)
    data = b'{"prefix":"0x00/0","targets":[{"action":"fly"}]}'
    kind = messages.MessageType.RULE_SET
    (answer,) = controller.say(openflow.experimenter(9, experimenter.EXPERIMENTER, kind, data))
    result = controller.read(answer)
    assert answer.xid == 9 and isinstance(result, messages.Result)
    assert not result.ok and "fly" in result.reason


def test_requests_come_out_and_answers_carry_their_xid(controller: Controller) -> None:
    up(controller)
    assert controller.send(41, messages.RuleSet(RULE), piece_bytes=10) == []
    assert controller.channel.take_events() == [Request(41, messages.RuleSet(RULE))]
    controller.channel.result(41, "no room")
    (answer,) = controller.hear()
    assert answer.xid == 41 and controller.read(answer) == messages.Result(False, "no room")


def test_a_barrier_waits_for_the_requests_before_it(controller: Controller) -> None:
    up(controller)
    controller.send(1, messages.RuleSet(RULE))
    controller.send(2, messages.Loads(RULE.prefix, {"10.0.0.1": 1.0}))
    assert controller.say(openflow.build(Type.BARRIER_REQUEST, 3)) == []
    controller.send(4, messages.RuleRemove(RULE.prefix))
    controller.channel.result(1)
    result, barrier = controller.hear()
    assert (result.xid, barrier.type, barrier.xid) == (1, Type.BARRIER_REPLY, 3)


def test_state_get_is_answered_at_once(controller: Controller) -> None:
    up(controller)
    (answer,) = controller.send(12, messages.StateGet())
    assert answer.xid == 12 and controller.read(answer) == STATE


def test_nothing_is_kept_while_the_channel_is_down(controller: Controller) -> None:
    assert not controller.channel.send(messages.Unregister(RULE.prefix))
    controller.channel.connected(0.0)
    assert not controller.channel.send(messages.Unregister(RULE.prefix))
    assert [message.type for message in controller.hear()] == [Type.HELLO]
    up(controller)
    assert controller.channel.send(messages.Unregister(RULE.prefix))
    controller.channel.disconnected()
    assert controller.channel.take_output() == b"" and not controller.channel.up
    assert len(controller.shake_hands()) == 4, "a new connection begins anew"


def test_a_message_may_arrive_byte_by_byte(controller: Controller) -> None:
    controller.channel.connected(0.0)
    stream = openflow.hello(1) + openflow.build(Type.ECHO_REQUEST, 2, b"x")
    for byte in stream:
        controller.channel.receive(bytes([byte]), 0.0)
    assert [message.type for message in controller.hear()] == [Type.HELLO, Type.ECHO_REPLY]


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("!BBHI", 4, 0, 3, 1),  # shorter than its own header
        openflow.build(Type.FEATURES_REQUEST, 1),  # before HELLO
        struct.pack("!BBHI", 1, 0, 8, 1),  # OpenFlow 1.0 only
        struct.pack("!BBHIHHI", 6, 0, 16, 1, 1, 8, 1 << 6),  # a bitmap without 1.3
    ],
)
def test_a_stream_that_cannot_be_followed_ends_the_connection(controller: Controller, stream: bytes) -> None:
    controller.channel.connected(0.0)
    controller.channel.receive(stream, 0.0)
    (event,) = controller.channel.take_events()
    assert isinstance(event, ChannelFailed) and event.reason


def test_a_newer_controller_that_offers_our_version_is_fine(controller: Controller) -> None:
    controller.channel.connected(0.0)
    controller.channel.receive(struct.pack("!BBHIHHI", 6, 0, 16, 1, 1, 8, 1 << 6 | 1 << 4), 0.0)
    assert controller.channel.take_events() == []


def test_a_silent_controller_is_asked_and_then_given_up(controller: Controller) -> None:
    up(controller)
    channel = controller.channel
    assert channel.next_timer() == ECHO_INTERVAL
    channel.handle_timer(ECHO_INTERVAL)
    (echo,) = controller.hear()
    assert echo.type == Type.ECHO_REQUEST
    controller.now = ECHO_INTERVAL + 1
    assert controller.say(openflow.build(Type.ECHO_REPLY, echo.xid)) == []
    assert channel.next_timer() == controller.now + ECHO_INTERVAL
    now = controller.now
    while now < controller.now + ECHO_TIMEOUT:
        assert channel.take_events() == []
        timer = channel.next_timer()
        assert timer is not None and timer > now
        now = timer
        channel.handle_timer(now)
    (event,) = channel.take_events()
    assert isinstance(event, ChannelFailed) and "silent" in event.reason
    assert channel.next_timer() is None


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_no_bytes_of_a_controller_raise(chunks: list[bytes]) -> None:
    controller = up(Controller(NodeChannel(datapath_id=DPID, state=lambda: STATE)))
    for chunk in chunks:
        controller.channel.receive(struct.pack("!BBHI", 4, len(chunk) % 30, 8 + len(chunk), 5) + chunk, 0.0)
    controller.channel.receive(b"".join(chunks), 0.0)
