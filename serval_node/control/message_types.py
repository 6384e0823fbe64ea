"""The numbers of the messages between nodes and their controller (bytes: `experimenter`, values: `messages`)."""

from __future__ import annotations

from enum import IntEnum


class MessageType(IntEnum):
    """Experimenter types. Below 16: node to controller; from 16 on: controller to node."""

    NODE_STATE = 1
    REGISTER = 2
    UNREGISTER = 3
    DELAY_NOTIFY = 4
    FLOW_EVENT = 5
    STATS = 6
    RESULT = 7
    RULES = 8
    RESOLVED = 9
    CAPABILITIES = 10
    FLOWS = 11
    RULE_EXPIRED = 12
    STATE_GET = 16
    RULE_SET = 17
    RULE_REMOVE = 18
    RULES_GET = 19
    LOADS = 20
    DELAY_VERDICT = 21
    STATS_GET = 22
    MIGRATE = 23
    RESOLVE = 24
    CAPABILITIES_SET = 25
    FLOWS_GET = 26
    START = 27
