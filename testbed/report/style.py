"""How contenders look: one colour, marker and line each, the same in all pictures of a result, told apart also by those
who see no red or no green, and in grey print.

The colours are those of M. Okabe and K. Ito, "Color Universal Design" (2002), without the yellow, which white swallows;
the last three are of P. Tol's "muted" scheme.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

GREY, FAINT, INK = "#6b7280", "#c3c8cf", "#1f2933"
SLIDE = "#7a1f5c"
"""What a slide says, in every picture."""

DOTTED = (0, (1, 1.5))
LINES = ("-", (0, (5, 1)), DOTTED, (0, (5, 1.5, 1, 1.5)))
_PALETTE = (
    ("#0072b2", "o"),
    ("#4d4d4d", "s"),
    ("#e69f00", "^"),
    ("#d55e00", "v"),
    ("#cc79a7", "D"),
    ("#56b4e9", "P"),
    ("#009e73", "X"),
    ("#999933", "<"),
    ("#882255", ">"),
    ("#332288", "h"),
)
_KEPT = {"serval": 0, "tcp": 1, "tcp-reconnect": 2, "mptcp": 3, "mptcp-tuned": 4, "serval-udp": 5}
"""What is the same in every experiment has its colour in every experiment."""
PHASES = (("#332288", ""), ("#88ccee", "////"), ("#ddcc77", "...."), ("#999933", "xxxx"))
"""Colours and hatching of what follows in time; after P. Tol's colour schemes."""


@dataclass(frozen=True, slots=True)
class Style:
    colour: str
    marker: str
    line: object


def styles(contenders: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """The styles of a result's contenders, given as (name, transport) in the order of its specification.

    Who is called as a transport has that one's; so has the first of a transport that nobody is called as. The others
    have what no transport has, then what is left; only then a colour stands twice, with another line.
    """
    wanted = dict(contenders)
    places = {name: (_KEPT[name], 0) for name in wanted if name in _KEPT}
    for name, transport in wanted.items():
        if name not in places and transport in _KEPT and (_KEPT[transport], 0) not in places.values():
            places[name] = (_KEPT[transport], 0)
    own = [index for index in range(len(_PALETTE)) if index not in _KEPT.values()]
    order = [*own, *_KEPT.values()]
    free = ((index, turn) for turn in range(len(wanted)) for index in order)
    for name in wanted:
        if name not in places:
            places[name] = next(place for place in free if place not in places.values())
    return {name: Style(*_PALETTE[index], LINES[turn % len(LINES)]) for name, (index, turn) in places.items()}


def shade(colour: str, index: int, count: int) -> str:
    """One of `count` tones of a colour, the first the colour itself, the others lighter."""
    share = 0.0 if count < 2 else 0.55 * index / (count - 1)
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)
