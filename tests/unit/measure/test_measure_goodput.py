"""Frames, bounds and rates of the goodput benchmark."""

from __future__ import annotations

import pytest

from experiments.benchmarks.goodput import frame_bytes, goodput
from serval_node.wire.sal_header import BARE_LENGTH
from testbed.errors import TestbedError
from testbed.link.shape import FRAME_BYTES


def test_full_frames_of_tcp_and_serval_fill_the_mtu() -> None:
    assert frame_bytes(1448, timestamps=True, serval=False) == FRAME_BYTES
    assert frame_bytes(1448, timestamps=False, serval=True) == FRAME_BYTES
    assert frame_bytes(1440, timestamps=False, serval=True, inside_udp=True) == FRAME_BYTES
    assert frame_bytes(0, timestamps=False, serval=True) - frame_bytes(0, timestamps=False, serval=False) == BARE_LENGTH


def test_goodput_is_counted_between_settling_and_the_end() -> None:
    marks = [
        [10.0, 0],
        [10.1, 5_000_000],
        [10.5, 10_000_000],
        [11.0, 72_500_000],
        [11.5, 135_000_000],
        [11.6, 136_000_000],
    ]
    assert goodput(marks, 10.0, 11.55, 0.4) == pytest.approx(1e9)
    with pytest.raises(TestbedError, match="only 6 marks"):
        goodput(marks, 10.0, 10.6, 0.4)
