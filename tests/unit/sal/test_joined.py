"""Two and three joined stacks on a bad network, by hypothesis: bytes exact, nothing stuck, nothing left over.

The same scenarios run for longer in `make fuzz ARGS="--target joined"`.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.sal.joined import Scenario, draw_scenario, play

SEEDS = range(160)


@pytest.mark.parametrize("tenth", range(10))
def test_scenarios_by_chance(tenth: int) -> None:
    """The same ones each time; they reach more than hypothesis in as many."""
    for seed in SEEDS[tenth::10]:
        scenario = draw_scenario(random.Random(seed).choice)
        try:
            play(scenario)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{scenario}") from error


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    return draw_scenario(lambda options: draw(st.sampled_from(options)))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(scenarios())
def test_bytes_are_exact_nothing_gets_stuck_and_nothing_is_left(scenario: Scenario) -> None:
    play(scenario)
