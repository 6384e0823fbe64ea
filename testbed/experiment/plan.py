"""Which runs there will be, in which order, with which seeds, and how long they take. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.experiment.schedule import SpecificationError
from testbed.experiment.specification import BuildTopology, Contender, Experiment, Scene

DEFAULT_RUNS, QUICK_RUNS = 10, 1
QUICK_CONTENDERS = 2
"""A quick run has so many, unless they are named."""
ALL, ENDS = "all", "ends"
CALIBRATION_SECONDS = 6.0
"""About what measuring one path takes; building and ending its network comes on top."""
AROUND_SECONDS = 1.0
"""What a run takes beside its network and its schedule: traffic that gets ready, and its last bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked for. `given`: parameters; `contenders`: names, empty for all; `points`: which."""

    runs: int = DEFAULT_RUNS
    seed: int = 0
    quick: bool = False
    given: Mapping[str, float] = field(default_factory=dict)
    contenders: tuple[str, ...] = ()
    points: str | None = None
    calibrate: bool = True
    capture: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One run of the plan: repetition, which point (`setting`: its index) and whose. `seed` is that of all contenders
    of this repetition at this point, so that they meet the same chance.
    """

    number: int
    repetition: int
    setting: int
    contender: str
    seed: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A contender that cannot run here."""

    contender: Contender
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is known before anything is started."""

    experiment: Experiment
    settings: Settings
    points: tuple[Mapping[str, float], ...]
    contenders: tuple[Contender, ...]
    skipped: tuple[Skipped, ...]
    turns: tuple[Turn, ...]

    def values(self, setting: int) -> dict[str, float]:
        """All parameters at one of the points."""
        return self.experiment.values(self.points[setting], self.settings.given, quick=self.settings.quick)

    def scene(self, setting: int, contender: str) -> Scene:
        return self.experiment.scene(self.values(setting), self.experiment.contender(contender))

    def against(self) -> str:
        """The contender that the others are compared with: the one that was asked for, where it runs."""
        names = [contender.name for contender in self.contenders]
        wanted = self.experiment.against
        return wanted if wanted in names else names[0]

    def calibrations(self) -> list[tuple[int, str]]:
        """One (setting, contender) for each network that differs and has paths to be measured."""
        if not self.settings.calibrate:
            return []
        found: dict[str, tuple[int, str]] = {}
        for setting in range(len(self.points)):
            for contender in self.contenders:
                scene = self.scene(setting, contender.name)
                if scene.calibrate:
                    key = repr((scene.topology, sorted(scene.options.items()), scene.calibrate))
                    found.setdefault(key, (setting, contender.name))
        return list(found.values())

    def seconds(self, turn: Turn) -> float:
        """About how long one run takes."""
        return self.experiment.setup_seconds + AROUND_SECONDS + self.scene(turn.setting, turn.contender).seconds

    def calibration_seconds(self) -> float:
        scenes = [self.scene(setting, contender) for setting, contender in self.calibrations()]
        return sum(self.experiment.setup_seconds + CALIBRATION_SECONDS * len(scene.calibrate) for scene in scenes)

    def total_seconds(self) -> float:
        """About how long all of it takes, when nothing fails."""
        return self.calibration_seconds() + sum(self.seconds(turn) for turn in self.turns)


def make(experiment: Experiment, settings: Settings, build: BuildTopology) -> Plan:
    """Check everything that can be known beforehand, ask which contenders can run here, and lay out the runs.

    Raises SpecificationError that names the place.
    """
    if not experiment.points:
        raise SpecificationError(f"{experiment.name} has no point; without a sweep there is one, empty: ({{}},)")
    points = chosen_points(experiment, settings)
    for name in settings.given:
        if any(name in point for point in points):
            raise SpecificationError(f"{experiment.name}: {name} is swept; --points chooses among its values")
    experiment.check(build, settings.given, quick=settings.quick, points=points)
    contenders, skipped = _able(experiment, settings)
    if not contenders:
        raise SpecificationError(
            f"{experiment.name}: no contender can run here: "
            + "; ".join(f"{item.contender.name} ({item.why})" for item in skipped)
        )
    names = [contender.name for contender in contenders]
    turns = lay_out(names, len(points), settings.runs, settings.seed)
    return Plan(experiment, settings, points, contenders, skipped, turns)


def chosen_points(experiment: Experiment, settings: Settings) -> tuple[Mapping[str, float], ...]:
    """The points that `settings` ask for: all, the ends of the sweep, or "1,3", counted as a plan lists them."""
    which = settings.points or (ENDS if settings.quick else ALL)
    if which in (ALL, ENDS):
        return experiment.chosen_points(quick=which == ENDS)
    count = len(experiment.points)
    numbers = [word.strip() for word in which.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= count for word in numbers):
        raise SpecificationError(
            f"{experiment.name}: --points wants {ALL}, {ENDS}, or numbers from 1 to {count}, not {which!r}"
        )
    return tuple(experiment.points[number - 1] for number in sorted({int(word) for word in numbers}))


def _able(experiment: Experiment, settings: Settings) -> tuple[tuple[Contender, ...], tuple[Skipped, ...]]:
    """The contenders that were asked for and can run here, of a quick run's only the first ones; and the others."""
    for name in settings.contenders:
        experiment.contender(name)
    able: list[Contender] = []
    skipped: list[Skipped] = []
    for contender in experiment.contenders:
        if settings.contenders and contender.name not in settings.contenders:
            continue
        if settings.quick and not settings.contenders and len(able) == QUICK_CONTENDERS:
            break
        why = contender.obstacle()
        if why is None:
            able.append(contender)
        else:
            skipped.append(Skipped(contender, why))
    return tuple(able), tuple(skipped)


def lay_out(contenders: Sequence[str], points: int, runs: int, seed: int) -> tuple[Turn, ...]:
    """Every contender at every point once in each repetition, in an order of its own, so that what changes slowly
    (temperature, other load) favours nobody. The same seed gives the same order and the same seeds.
    """
    turns: list[Turn] = []
    for repetition in range(runs):
        chance = random.Random(f"{seed} {repetition}")
        seeds = [chance.randrange(1 << 31) for _ in range(points)]
        cells = [(setting, contender) for setting in range(points) for contender in contenders]
        chance.shuffle(cells)
        for setting, contender in cells:
            turn = Turn(
                number=len(turns) + 1,
                repetition=repetition,
                setting=setting,
                contender=contender,
                seed=seeds[setting],
            )
            turns.append(turn)
    return tuple(turns)


def point_words(point: Mapping[str, float]) -> str:
    """ "rtt_ms=20, loss=1"; nothing for an experiment without a sweep."""
    return ", ".join(f"{name}={value:g}" for name, value in point.items())
