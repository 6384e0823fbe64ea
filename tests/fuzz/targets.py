"""The fuzz targets by name: what their inputs are made from, and what they are given to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz import joined, live_stack, parsers
from tests.fuzz.mutation import damage, draw_steps, mend

Draw = Callable[[random.Random], list[bytes]]


@dataclass(frozen=True)
class Target:
    """``draw`` makes an input by chance, a few items of bytes; ``run(*items)`` raises when something is wrong."""

    about: str
    draw: Draw
    run: Callable[..., None]


def damaged(corpus: Callable[[], list[bytes]], *, most: int = 1, packet_at: int | None = None) -> Draw:
    """Up to ``most`` good items, damaged. Where a packet begins at byte ``packet_at`` of an item, its lengths and
    checksums are mended more often than not.
    """

    def draw(rng: random.Random) -> list[bytes]:
        items = []
        for _ in range(rng.randint(1, most)):
            item = damage(rng.choice(corpus()), draw_steps(rng))
            if packet_at is not None and rng.random() < 0.7:
                item = item[:packet_at] + mend(item[packet_at:])
            items.append(item)
        return items

    return draw


TARGETS = {
    "packets": Target("decoders of packets", damaged(parsers.golden_packets, packet_at=0), parsers.read_packet),
    "messages": Target("messages of the controller", damaged(parsers.message_bodies), parsers.read_message),
    "channel": Target("the node's end of its channel", damaged(parsers.channel_messages, most=4), parsers.read_channel),
    "requests": Target("the control socket", damaged(parsers.control_requests, most=4), parsers.answer_requests),
    "lines": Target("its clients' reader", damaged(parsers.control_requests, most=3), parsers.read_lines),
    "dns": Target("the name server", damaged(parsers.dns_queries), parsers.answer_query),
    "stack": Target("packets to running stacks", damaged(live_stack.items, most=6, packet_at=1), live_stack.feed),
    "joined": Target("lives of joined stacks", joined.draw, joined.live),
}
