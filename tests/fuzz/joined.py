"""Fuzz target: whole lives of joined stacks (tests/unit/sal/joined.py), each a line of JSON."""

from __future__ import annotations

import json
import random

from tests.unit.sal.joined import draw_scenario, play


def draw(rng: random.Random) -> list[bytes]:
    return [json.dumps(draw_scenario(rng.choice)).encode()]


def live(scenario: bytes) -> None:
    play(json.loads(scenario))
