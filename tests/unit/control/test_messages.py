"""Messages survive the wire, also in pieces; what does not fit its type is refused with the field's name."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.control import experimenter, messages
from serval_node.control.enquiries import FlowStat, Standby
from serval_node.control.experimenter import MORE, Assembler, UnknownMessageType, decode, encode
from serval_node.control.messages import Binding, DelayNotify, FlowEvent, NodeState, ServiceLoad
from serval_node.control.rules import (
    ACTIONS,
    EXPECTATIONS,
    ORIGINS,
    RESOLUTION_MODES,
    SELECTORS,
    MessageError,
    RuleSpec,
    TargetSpec,
    forward,
)
from serval_node.sal.delay_queue import DelayVerdict
from serval_node.sal.service_table import Action, ResolutionMode, Selector
from serval_node.wire.serviceid import Prefix

numbers = st.integers(0, 2**32 - 1)
prefixes = st.builds(Prefix, st.binary(min_size=32, max_size=32), st.integers(0, 256))
addresses = st.ip_addresses(v=4).map(str)
counters = {name: st.integers(0, 2**63) for name in ("packets", "bytes", "dropped_packets", "dropped_bytes")}
choices = {"priority": numbers, "weight": st.integers(1, 2**32 - 1), "load": st.floats(-1e9, 1e9), **counters}
forwards = st.builds(TargetSpec, st.just("forward"), address=addresses, **choices)
demuxes = st.builds(
    TargetSpec,
    st.just("demux"),
    port=st.integers(1, 65535),
    protocol=st.sampled_from(("tcp", "udp")),
    listen_address=st.none() | addresses,
    **choices,
)
alone = st.sampled_from(("delay", "drop")).map(lambda action: (TargetSpec(action),))
targets = st.lists(forwards | demuxes, max_size=4).map(tuple) | alone
weights = st.dictionaries(st.text(max_size=5), st.integers(1, 2**32 - 1), max_size=3)
rules = st.builds(
    RuleSpec,
    prefixes,
    targets,
    st.sampled_from(SELECTORS),
    st.sampled_from(ORIGINS),
    st.text(max_size=20),
    weights.map(lambda pairs: tuple(sorted(pairs.items()))),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.text(max_size=10),
    st.text(max_size=10),
)
bindings = st.builds(Binding, prefixes, st.none() | addresses, st.integers(1, 1000), st.text(max_size=20))
notices = st.builds(DelayNotify, prefixes, prefixes)
some = {"max_size": 3}
modes = st.sampled_from(RESOLUTION_MODES)
flow_stats = st.builds(
    FlowStat,
    numbers,
    st.text(max_size=20),
    st.sampled_from(("CONNECTED", "RESERVED")),
    st.booleans(),
    numbers,
    st.none() | addresses,
    st.none() | addresses,
    *[st.integers(0, 2**63)] * 4,
)
all_messages = st.one_of(
    st.builds(
        NodeState,
        name=st.text(),
        role=st.sampled_from(("host", "router")),
        boot=st.text(),
        addresses=st.lists(addresses, **some).map(tuple),
        serves=st.lists(prefixes, **some).map(tuple),
        bindings=st.lists(bindings, **some).map(tuple),
        rules=st.lists(rules, **some).map(tuple),
        delayed=st.lists(notices, **some).map(tuple),
        standbys=st.lists(st.builds(Standby, prefixes, st.text(max_size=20), st.booleans()), **some).map(tuple),
    ),
    st.builds(messages.Register, bindings),
    st.builds(messages.Unregister, prefixes),
    notices,
    st.builds(FlowEvent, st.text(), prefixes, numbers, numbers, st.none() | addresses, st.booleans()),
    st.builds(
        messages.Stats,
        st.lists(st.builds(ServiceLoad, prefixes, numbers, numbers, st.none() | st.floats(-1e9, 1e9)), **some).map(
            tuple
        ),
        st.dictionaries(st.text(), numbers, **some),
    ),
    st.builds(messages.Result, st.booleans(), st.text(), st.lists(rules, **some).map(tuple)),
    st.builds(messages.Rules, st.lists(rules, **some).map(tuple)),
    st.builds(messages.StateGet),
    st.builds(messages.RuleSet, rules, st.sampled_from(EXPECTATIONS)),
    st.builds(messages.RuleRemove, prefixes, st.text()),
    st.builds(messages.RulesGet, st.none() | prefixes),
    st.builds(messages.Loads, prefixes, st.dictionaries(addresses, st.floats(0, 1e6), **some)),
    st.builds(messages.DelayVerdict, prefixes, st.sampled_from(messages.VERDICTS), st.text()),
    st.builds(messages.StatsGet),
    st.builds(messages.Migrate, st.sampled_from(messages.MIGRATE_KINDS), st.text(), st.text()),
    st.builds(messages.Resolve, prefixes),
    st.builds(messages.Resolved, st.none() | rules, st.text()),
    st.builds(
        messages.Capabilities, st.booleans(), st.sampled_from(RESOLUTION_MODES), st.tuples(numbers, numbers, numbers)
    ),
    st.builds(messages.CapabilitiesSet, st.none() | st.booleans(), st.none() | modes),
    st.builds(messages.FlowsGet, st.lists(numbers, **some).map(tuple)),
    st.builds(messages.Flows, st.lists(flow_stats, **some).map(tuple)),
    st.builds(messages.RuleExpired, prefixes, st.text(), st.text(), st.floats(0, 1e9), numbers, numbers, numbers),
    st.builds(messages.Start, prefixes, st.text()),
)


def test_every_message_has_a_number_of_its_own() -> None:
    kinds = [kind.TYPE for kind in get_args(messages.Message)]
    assert sorted(kinds) == sorted(messages.MessageType), "and each number a message"


@given(all_messages, st.integers(1, 200))
def test_every_message_survives_the_wire_in_pieces_of_any_size(message: messages.Message, size: int) -> None:
    assembler = Assembler()
    pieces = encode(message, piece_bytes=size)
    assert all(len(data) <= size for _, data in pieces)
    assert [bool(kind & MORE) for kind, _ in pieces] == [True] * (len(pieces) - 1) + [False]
    results = [assembler.add(kind, 7, data) for kind, data in pieces]
    assert results[:-1] == [None] * (len(pieces) - 1)
    assert results[-1] == message
    assert json.dumps(results[-1].to_json()) == json.dumps(message.to_json()), "loads and counters survive, too"


def test_a_table_of_thousands_of_rules_fits() -> None:
    rule = [RuleSpec(Prefix(n.to_bytes(32, "little"), 256), (forward("10.0.0.1"),)) for n in range(5000)]
    pieces = encode(messages.Rules(tuple(rule)))
    assert len(pieces) > 1
    assert max(len(data) for _, data in pieces) + 16 <= 65535


KEYS = ("prefix", "targets", "rules", "name", "role", "loads", "action", "service", "mode", "flows")


@given(st.integers(0, 0x7FFFFFFF), st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_garbage_raises_nothing_but_message_errors(exp_type: int, body: bytes) -> None:
    for kind in (exp_type, exp_type % 30):
        try:
            decode(kind, body)
        except MessageError:
            pass


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"prefix": "xyz", "targets": []}, "prefix"),
        ({"prefix": "0x12/300", "targets": []}, "prefix"),
        ({"targets": []}, "prefix"),
        ({"prefix": "0x12/8"}, "targets"),
        ({"prefix": "0x12/8", "targets": [{"action": "fly"}]}, "fly"),
        ({"prefix": "0x12/8", "targets": [{"action": "forward"}]}, "address"),
        ({"prefix": "0x12/8", "targets": [{"action": "forward", "address": "10.0.0"}]}, "address"),
        ({"prefix": "0x12/8", "targets": [{"action": "demux"}]}, "port"),
        ({"prefix": "0x12/8", "targets": [{"action": "demux", "port": 0}]}, "port"),
        ({"prefix": "0x12/8", "targets": [{"action": "drop", "address": "1.1.1.1"}]}, "address"),
        ({"prefix": "0x12/8", "targets": [{"action": "forward", "address": "1.1.1.1", "weight": 0}]}, "weight"),
        ({"prefix": "0x12/8", "targets": [{"action": "drop"}, {"action": "forward", "address": "1.1.1.1"}]}, "only"),
        ({"prefix": "0x12/8", "targets": [], "selector": "best"}, "selector"),
        ({"prefix": "0x12/8", "targets": [], "origin": "nowhere"}, "origin"),
        ({"prefix": "0x12/8", "targets": [], "name": 7}, "name"),
        ({"prefix": "0x12/8", "targets": [], "policy_weights": {"dan": 0}}, "dan"),
        ({"prefix": "0x12/8", "targets": [], "policy_weights": [1]}, "weights"),
        ({"prefix": "0x12/8", "targets": [], "idle_timeout": -1}, "time-out"),
        ({"prefix": "0x12/8", "targets": [], "hard_timeout": "soon"}, "hard_timeout"),
        ({"prefix": "0x12/8", "targets": [], "hard_timeout": 1e12}, "time-out"),
        ({"prefix": "0x12/8", "targets": [], "decider": 5}, "decider"),
        ({"prefix": "0x12/8", "targets": [], "expect": "perhaps"}, "expect"),
    ],
)
def test_a_bad_rule_is_refused_with_its_field(body: object, word: str) -> None:
    with pytest.raises(MessageError, match=word) as caught:
        decode(messages.MessageType.RULE_SET, json.dumps(body).encode())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "body", "word"),
    [
        ("RESOLVE", {}, "service"),
        ("RESOLVE", {"service": 7}, "service"),
        ("RESOLVED", {"rule": [1]}, "rule"),
        ("CAPABILITIES", {"forwarding": True, "mode": "both"}, "mode"),
        ("CAPABILITIES", {"forwarding": True, "mode": "all", "delay_limits": [1, 2]}, "delay_limits"),
        ("CAPABILITIES", {"forwarding": True, "mode": "all", "delay_limits": [1, 2, -3]}, "delay_limits"),
        ("CAPABILITIES_SET", {"forwarding": "yes"}, "forwarding"),
        ("CAPABILITIES_SET", {"mode": None}, "mode"),
        ("FLOWS_GET", {"flows": [1 << 32]}, "flows"),
        ("FLOWS_GET", {"flows": "all"}, "flows"),
        ("FLOWS", {"flows": [{"flow_id": 1}]}, "state"),
        ("FLOWS", {"flows": [{"flow_id": 1, "state": "OPEN", "peer": "10.0.0"}]}, "peer"),
        ("RULE_EXPIRED", {"prefix": "0x12/8", "origin": "hand", "cause": "idle"}, "seconds"),
        ("START", {"name": "web.example"}, "prefix"),
        ("NODE_STATE", {"name": "a", "role": "host", "boot": "", "addresses": [], "standbys": [{}]}, "prefix"),
        ("DELAY_VERDICT", {"service": "0x12/8", "verdict": "perhaps"}, "verdict"),
        ("RESULT", {"ok": True, "rules": [{"prefix": "0x12/8"}]}, "targets"),
        ("RULES_GET", {"service": "web"}, "service"),
    ],
)
def test_a_bad_message_is_refused_with_its_field(kind: str, body: object, word: str) -> None:
    with pytest.raises(MessageError, match=word) as caught:
        decode(messages.MessageType[kind], json.dumps(body).encode())
    assert "\n" not in str(caught.value)


def test_an_unknown_type_and_mixed_pieces_are_told_apart() -> None:
    with pytest.raises(UnknownMessageType):
        decode(99, b"{}")
    assembler = Assembler()
    assert assembler.add(messages.MessageType.RESULT | MORE, 1, b'{"ok":') is None
    with pytest.raises(MessageError, match="mixed"):
        assembler.add(messages.MessageType.RESULT, 2, b"true}")
    assert assembler.add(messages.MessageType.RESULT, 3, b'{"ok":true}') == messages.Result(True)


def test_rules_are_the_same_whatever_the_order_the_loads_and_the_counters() -> None:
    prefix = Prefix.default()
    one = RuleSpec(prefix, (forward("10.0.0.1", load=3), forward("10.0.0.2")))
    other = RuleSpec(prefix, (forward("10.0.0.2"), TargetSpec("forward", "10.0.0.1", packets=5)))
    assert one.same_as(other)
    assert not one.same_as(RuleSpec(prefix, (forward("10.0.0.2"), forward("10.0.0.1", weight=2))))
    assert not one.same_as(RuleSpec(prefix, one.targets, "ring"))
    assert not one.same_as(None)


def test_actions_and_selectors_are_the_service_tables() -> None:
    assert set(ACTIONS) == {action.name.lower() for action in Action}
    assert set(SELECTORS) == {selector.value for selector in Selector}
    assert list(RESOLUTION_MODES) == [mode.value for mode in ResolutionMode]
    assert list(messages.VERDICTS) == [verdict.value for verdict in DelayVerdict]


def test_datapath_ids_carry_the_tag() -> None:
    assert experimenter.node_datapath_id(0x123456789ABC) == 0x5356123456789ABC
    assert experimenter.is_serval_datapath(experimenter.node_datapath_id(1))
    assert not experimenter.is_serval_datapath(1)
    with pytest.raises(ValueError, match="48 bits"):
        experimenter.node_datapath_id(1 << 48)
