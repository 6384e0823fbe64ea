"""The targets of `make fuzz`, by hypothesis with few examples; and what the command does with a failing input."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import __main__ as command
from tests.fuzz import live_stack, parsers
from tests.fuzz.mutation import INTERESTING, KINDS, Step, damage, mend
from tests.fuzz.targets import TARGETS, Target

STEPS = st.lists(
    st.builds(
        Step, st.sampled_from(KINDS), st.integers(0, 65535), st.sampled_from(INTERESTING) | st.integers(0, 2**32 - 1)
    ),
    max_size=4,
)
CI = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


def damaged(corpus: Callable[[], list[bytes]], most: int = 1, packet_at: int | None = None) -> st.SearchStrategy:
    """Lists of items as tests.fuzz.targets.damaged makes them."""

    def item(position: int, steps: list[Step], mended: bool) -> bytes:
        found = damage(corpus()[position % len(corpus())], steps)
        return found[:packet_at] + mend(found[packet_at:]) if mended and packet_at is not None else found

    return st.lists(st.builds(item, st.integers(0, 2**16), STEPS, st.booleans()), min_size=1, max_size=most)


@settings(CI, max_examples=400)
@given(damaged(parsers.golden_packets, packet_at=0))
def test_packets(items: list[bytes]) -> None:
    parsers.read_packet(*items)


@settings(CI, max_examples=400)
@given(damaged(parsers.message_bodies))
def test_messages(items: list[bytes]) -> None:
    parsers.read_message(*items)


@settings(CI, max_examples=400)
@given(damaged(parsers.channel_messages, 4))
def test_channel(items: list[bytes]) -> None:
    parsers.read_channel(*items)


@settings(CI, max_examples=200)
@given(damaged(parsers.control_requests, 4))
def test_requests(items: list[bytes]) -> None:
    parsers.answer_requests(*items)


@settings(CI, max_examples=400)
@given(damaged(parsers.control_requests, 3))
def test_lines(items: list[bytes]) -> None:
    parsers.read_lines(*items)


@settings(CI, max_examples=400)
@given(damaged(parsers.dns_queries))
def test_dns(items: list[bytes]) -> None:
    parsers.answer_query(*items)


@settings(CI, max_examples=400)
@given(damaged(live_stack.items, 6, packet_at=1))
def test_stack(items: list[bytes]) -> None:
    live_stack.feed(*items)


def test_every_good_request_and_every_odd_field_is_answered() -> None:
    lines = parsers.control_requests()
    parsers.answer_requests(*random.Random(1).sample(lines, 2000), b"[" * 100_000)


def test_whole_good_packets_are_in_the_corpus_of_the_stack() -> None:
    """Else the target would test the checksums only: fed in order to their hosts, hardly any is malformed."""
    figure = live_stack.open_figure()
    packets = [item for item in live_stack.items() if item[:1] in b"acde"][:20]
    for item in packets:
        getattr(figure, item[:1].decode()).stack.network_packet(item[1:], figure.world.now)
    malformed = ("truncated", "bad_checksum", "bad_transport_checksum", "bad_header_length", "bad_ip_header")
    assert not sum(host.count(reason) for host in figure.world.hosts.values() for reason in malformed)


def test_a_failing_input_is_kept_and_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: bytes) -> None:
        assert item[0] % 7 or broken, "found"

    broken: list[int] = []
    target = Target("a test", lambda rng: [rng.randbytes(3)], run)
    monkeypatch.setitem(command.TARGETS, "toy", target)
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    assert command.main(["--target", "toy", "--seconds", "20", "--seed", "5"]) == 1
    (kept,) = tmp_path.iterdir()
    assert str(kept) in capsys.readouterr().out
    assert command.main(["--replay", str(kept)]) == 1
    broken.append(1)
    assert command.main(["--replay", str(kept)]) == 0
    for wrong in ("{}", "x", '{"target": "toy", "items": 5}'):
        kept.write_text(wrong)
        with pytest.raises(SystemExit):
            command.main(["--replay", str(kept)])
    assert "no input that was kept here" in capsys.readouterr().err
    assert set(TARGETS) == {"toy", "packets", "messages", "channel", "requests", "lines", "dns", "stack", "joined"}
