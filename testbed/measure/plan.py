"""What is measured, as data: variants of a run, the pairs of them, and the figures that come out.

A *variant* is one way to do the same thing ("tcp", "serval"). A *pair* is two runs one after the other, one of each
side of a *comparison*; where both sides are the same variant, the pair shows nothing but noise. A *reading* is what
one run gave. Plans load without root and without Mininet.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

VALUE, RATIO, DIFFERENCE, RATE = "value", "ratio", "difference", "rate"
HIGHER, LOWER = "higher", "lower"
DEFAULT_PAIRS = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """What one run gave: metrics in SI units (seconds, bit/s), and the samples behind them."""

    metrics: Mapping[str, float]
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Pairs of two variants; `most` limits their number (a calibration needs no fine interval)."""

    subject: str
    reference: str
    most: int | None = None

    @property
    def name(self) -> str:
        return f"{self.subject} | {self.reference}"

    @property
    def equal(self) -> bool:
        return self.subject == self.reference

    def count(self, pairs: int) -> int:
        return pairs if self.most is None else min(pairs, self.most)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the result.

    how          VALUE: the subject's metric; RATIO: subject / reference; DIFFERENCE: subject - reference, pair by pair;
                 RATE: what the metric counts in all runs of the subject, by the sum of their "seconds"
    unit, scale  the figure is shown as metric x scale in this unit
    aim          in the figure's own unit after scaling; None: nothing is asked for
    noise        the variant whose equal pairs show the noise (default: the reference, for VALUE the subject)
    calibration  the variant of which the figure is also given as a multiple
    noise_absolute  the noise of a VALUE is what equal pairs differ by, and not their share of the value: for metrics
                 whose noise does not grow with them
    """

    label: str
    metric: str
    subject: str
    reference: str | None = None
    how: str = VALUE
    unit: str = ""
    scale: float = 1.0
    better: str = HIGHER
    aim: float | None = None
    noise: str | None = None
    calibration: str | None = None
    noise_absolute: bool = False

    @property
    def alone(self) -> bool:
        """Whether it is of the subject's own runs, whatever they are paired with."""
        return self.how in (VALUE, RATE)

    @property
    def noise_variant(self) -> str:
        return self.noise or self.reference or self.subject


class Bed(Protocol):
    """What stands while the pairs of a benchmark run."""

    def measure(self, variant: str) -> Reading:
        """One run. Raises TestbedError."""

    def facts(self) -> Mapping[str, Any]:
        """What the result should say about it: addresses, offloads, congestion control."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a whole run. `quick`: everything as short as it goes, to see that it works."""

    pairs: int = DEFAULT_PAIRS
    seed: int = 0
    quick: bool = False
    logs: Path = Path("/run/testbed/logs")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark. `parameters` go into the result and to `bed`; times in seconds are estimates for the progress.

    `title` may name them, "{count} connections at once": it is filled in with those of the run.
    """

    name: str
    title: str
    comparisons: tuple[Comparison, ...]
    figures: tuple[Figure, ...]
    bed: Callable[[Mapping[str, Any], Settings], AbstractContextManager[Bed]]
    parameters: Mapping[str, Any]
    run_seconds: float
    setup_seconds: float = 3.0
    quick: Mapping[str, Any] = field(default_factory=dict)
    """What replaces parameters in a quick run; "run_seconds" replaces the estimate."""
    by_name: bool = False
    """Too long for a run of all: measured only when it is named."""

    def chosen(self, settings: Settings) -> dict[str, Any]:
        """The parameters of this run."""
        replaced = {name: value for name, value in self.quick.items() if name != "run_seconds"}
        return {**self.parameters, **(replaced if settings.quick else {})}

    def titled(self, settings: Settings) -> str:
        """The title of this run."""
        return self.title.format(**self.chosen(settings))

    def seconds(self, settings: Settings, gap_seconds: float) -> float:
        """About how long it takes, without repeats."""
        each = self.quick.get("run_seconds", self.run_seconds) if settings.quick else self.run_seconds
        count = sum(comparison.count(settings.pairs) for comparison in self.comparisons)
        return self.setup_seconds + count * (2 * each + 2 * gap_seconds)

    def only(self, wanted: Collection[str]) -> Benchmark | None:
        """The same with the wanted variants alone, "serval" standing for all that begin so ("serval:down"); what they
        are compared with stays, and its noise. None when there is nothing left to compare.
        """

        def is_wanted(variant: str) -> bool:
            return any(variant == word or variant.startswith(f"{word}:") for word in wanted)

        compared = [one for one in self.comparisons if not one.equal and is_wanted(one.subject)]
        references = {one.reference for one in compared}
        pairs = tuple(one for one in self.comparisons if one in compared or (one.equal and one.subject in references))
        sides = {(one.subject, one.reference) for one in pairs}
        variants = {side for pair in sides for side in pair}
        figures = tuple(
            figure
            for figure in self.figures
            if (figure.subject in variants if figure.alone else (figure.subject, figure.reference) in sides)
        )
        return replace(self, comparisons=pairs, figures=figures) if compared else None

    def check(self) -> None:
        """Raises ValueError when a figure needs pairs that are not run."""
        sides = {(comparison.subject, comparison.reference) for comparison in self.comparisons}
        variants = {side for pair in sides for side in pair}
        for figure in self.figures:
            if figure.subject not in variants:
                raise ValueError(f"{self.name}: no run of {figure.subject!r} for {figure.label!r}")
            if not figure.alone and (figure.subject, figure.reference) not in sides:
                raise ValueError(f"{self.name}: no pairs of {figure.subject!r} and {figure.reference!r}")
            if figure.aim is not None and (figure.noise_variant, figure.noise_variant) not in sides:
                raise ValueError(f"{self.name}: no equal pairs of {figure.noise_variant!r} for {figure.label!r}")

    def described(self, settings: Settings) -> dict[str, Any]:
        """This run as plain data, for the result."""
        return {
            "name": self.name,
            "title": self.titled(settings),
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "figures": [asdict(figure) for figure in self.figures],
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """One pair of the schedule: the `number`-th of its comparison, and the two variants in the order of their runs."""

    comparison: Comparison
    number: int
    reference_first: bool

    @property
    def order(self) -> tuple[str, str]:
        sides = (self.comparison.subject, self.comparison.reference)
        return sides[::-1] if self.reference_first else sides


def schedule(comparisons: Iterable[Comparison], pairs: int, seed: object) -> list[Turn]:
    """All pairs in random order, so that nothing that changes slowly (temperature, other load) favours one comparison,
    and each pair in random order, so that being first favours nobody. The same seed gives the same order.
    """
    chance = random.Random(str(seed))
    turns = [
        Turn(comparison, number, chance.random() < 0.5)
        for comparison in comparisons
        for number in range(comparison.count(pairs))
    ]
    chance.shuffle(turns)
    return turns
