"""What iperf3's output means."""

from __future__ import annotations

import pytest

from testbed.errors import TestbedError
from testbed.iperf import received_rate, settled_rate


def interval(start: float, size: int, seconds: float = 0.1, *, sender: bool = False) -> dict:
    return {"sum": {"start": start, "seconds": seconds, "bytes": size, "sender": sender}}


def test_slow_start_and_a_stub_of_an_interval_do_not_count() -> None:
    result = {
        "intervals": [
            interval(0.0, 100),
            interval(0.4, 200),
            interval(0.5, 1_000_000),
            interval(0.6, 1_250_000),
            interval(0.7, 900_000, 0.001),
        ]
    }
    assert settled_rate(result) == pytest.approx(90.0)


@pytest.mark.parametrize("stalled", range(4, 12))
def test_a_receiver_that_was_late_and_catches_up_got_no_more_than_the_link_carries(stalled: int) -> None:
    sizes = [1_195_500] * 30  # 95.64 Mbit/s
    sizes[stalled], sizes[stalled + 1] = 0, 2 * sizes[stalled]
    result = {"intervals": [interval(number / 10, size) for number, size in enumerate(sizes)]}
    assert settled_rate(result) <= 95.6401


def test_what_a_sender_wrote_into_its_socket_is_no_rate() -> None:
    with pytest.raises(ValueError, match="the sender's"):
        settled_rate({"intervals": [interval(1.0, 1_250_000, sender=True)]})


def test_the_rate_of_an_upload_is_the_receivers() -> None:
    # As iperf3 3.12 gave it for a link that leaves 95.6 Mbit/s: the sender's intervals come to 96.3.
    result = {
        "intervals": [interval(number / 10, 1_203_750, sender=True) for number in range(30)],
        "end": {
            "sum_sent": {"bytes": 37_000_000, "seconds": 3.000112},
            "sum_received": {"bytes": 35_879_696, "seconds": 3.019851},
        },
    }
    assert received_rate(result) == pytest.approx(95.05, abs=0.01)


@pytest.mark.parametrize("result", [{"error": "refused"}, {"end": {"sum_received": {}}, "error": "refused"}])
def test_an_upload_of_which_the_server_said_nothing_is_an_error(result: dict) -> None:
    with pytest.raises(TestbedError, match="refused"):
        received_rate(result)


def test_a_transfer_that_measured_nothing_is_an_error() -> None:
    with pytest.raises(TestbedError, match="refused"):
        settled_rate({"intervals": [], "error": "connection refused"})
