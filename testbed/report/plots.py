"""What pictures an experiment declares. Pure data: nothing is drawn here, and the result file carries all of it.

    plots=(
        TimeSeries(name="goodput", title="Two flows, one moved", flows=("flow1", "flow2"), bin=0.1),
        Bars(name="dip", title="Longest silence", metric="dip"),
    )

Each contender has one colour and one marker in all pictures of a result. Whatever a picture shows of a doubtful run is
hollow or dotted, and its heading says DOUBTFUL. What a slide says stands beside it as a dashed line with its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from testbed.experiment.schedule import SpecificationError
from testbed.experiment.specification import Reference
from testbed.experiment.traffic import BIN_SECONDS

if TYPE_CHECKING:
    from testbed.experiment.specification import Experiment

RECEIVED, SENT = "received", "sent"
PHASES = ("detect", "decide", "signal", "recover")
"""Of a blackout, in their order in time (docs/migration.md)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A curve of a slide or a law: (x, y) in the units of the axes. by_eye: read off a picture."""

    label: str
    points: tuple[tuple[float, float], ...]
    source: str
    by_eye: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What all kinds have.

    name        of the files: NAME.svg
    caption     what to look at, in a sentence or two
    contenders  whom it shows; empty: all
    point       only runs at these values of swept parameters
    """

    kind: ClassVar[str] = ""
    name: str
    title: str
    caption: str = ""
    contenders: tuple[str, ...] = ()
    point: Mapping[str, float] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that it shows."""
        return ()

    def check(self, experiment: Experiment) -> None:
        """Raises SpecificationError when it shows what the experiment does not have."""
        place = f"{experiment.name}, plot {self.name!r}"
        for name in self.contenders:
            experiment.contender(name)
        _known(place, "metric", self.metrics(), [metric.name for metric in experiment.metrics])
        _known(place, "parameter", self.point, experiment.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSeries(Picture):
    """Goodput over time, a panel per contender, events marked: of the run that is nearest to the median of all, or
    with `every` all runs faint and their median.

    flows       names of streams or bulk transfers; empty: all
    bin         seconds of a value, a multiple of BIN_SECONDS
    side        whether data counts where it is RECEIVED or SENT
    total       the sum of the flows too
    begin, end  of the time axis; None: the run's
    top         Mbit/s, the end of the other axis; None: as the data asks
    shapes      what the slide shows
    """

    kind: ClassVar[str] = "time-series"
    flows: tuple[str, ...] = ()
    bin: float = 0.1
    side: str = RECEIVED
    every: bool = False
    total: bool = False
    begin: float = 0.0
    end: float | None = None
    top: float | None = None
    shapes: tuple[Shape, ...] = ()

    def check(self, experiment: Experiment) -> None:
        Picture.check(self, experiment)
        whole = self.bin / BIN_SECONDS
        if self.bin <= 0 or abs(whole - round(whole)) > 1e-6:
            raise SpecificationError(
                f"{experiment.name}, plot {self.name!r}: a bin is a multiple of {BIN_SECONDS:g} s, not {self.bin:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances(Picture):
    """Which instance answered how many requests a second, a panel per contender, events marked: of the run that is
    nearest to the median.

    traffic  the requests' name
    bin      seconds of a value
    """

    kind: ClassVar[str] = "instances"
    traffic: str
    bin: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cdf(Picture):
    """The distribution, a step curve per contender: of a metric over runs, or of single samples of all runs.

    metric   its name; or else
    traffic  whose samples, and which: `series` one of "requests", "connects", "gaps", `time` one of its fields
    unit     of the samples shown, which are `scale` times those recorded
    """

    kind: ClassVar[str] = "cdf"
    metric: str = ""
    traffic: str = ""
    series: str = "requests"
    time: str = "seconds"
    label: str = ""
    unit: str = "ms"
    scale: float = 1e3
    log: bool = False

    def metrics(self) -> tuple[str, ...]:
        return (self.metric,) if self.metric else ()

    def check(self, experiment: Experiment) -> None:
        Picture.check(self, experiment)
        if bool(self.metric) == bool(self.traffic):
            raise SpecificationError(f"{experiment.name}, plot {self.name!r} needs a metric or a traffic's samples")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlackoutPhases(Picture):
    """Where the time of a blackout goes: detect, decide, signal and recover as stacked medians, a bar per contender
    and point. Contenders whose nodes tell nothing (rivals) have no bar; their gaps are metrics.

    host   only blackouts that this host tells of
    cause  only those whose cause has these words
    """

    kind: ClassVar[str] = "blackout-phases"
    host: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts(Picture):
    """The same with metrics as parts of a whole: freeze, address, RSYN. All in the unit of the first.

    parts  metrics in their order in time
    """

    kind: ClassVar[str] = "parts"
    parts: tuple[str, ...]

    def metrics(self) -> tuple[str, ...]:
        return self.parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars(Picture):
    """Medians of a metric with intervals, and each run as a dot: a group per point, a bar per contender.

    references  contender -> what the slide says for it; besides the experiment's for the metric
    log         logarithmic axis
    """

    kind: ClassVar[str] = "bars"
    metric: str
    references: Mapping[str, Reference] = field(default_factory=dict)
    log: bool = False

    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def check(self, experiment: Experiment) -> None:
        Picture.check(self, experiment)
        for name in self.references:
            experiment.contender(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve(Picture):
    """A metric against a swept parameter: medians joined, with their intervals. `point` fixes other parameters."""

    kind: ClassVar[str] = "curve"
    metric: str
    x: str
    log_x: bool = False
    log_y: bool = False
    shapes: tuple[Shape, ...] = ()

    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def check(self, experiment: Experiment) -> None:
        Picture.check(self, experiment)
        _known(f"{experiment.name}, plot {self.name!r}", "parameter", (self.x,), experiment.parameters)


KINDS: dict[str, type[Picture]] = {
    kind.kind: kind for kind in (TimeSeries, Instances, Cdf, BlackoutPhases, Parts, Bars, Curve)
}


def restored(data: Mapping[str, Any]) -> Picture | None:
    """The picture that `described` gave; None for a kind that is not known (any more). Fields that a version did not
    have yet get their defaults, others are left out. Raises TypeError, ValueError when it is no such description.
    """
    kind = KINDS.get(data.get("kind", ""))
    if kind is None:
        return None
    known = {item.name for item in fields(kind)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name in known
    }
    if "shapes" in values:
        values["shapes"] = tuple(
            Shape(**{**shape, "points": tuple((x, y) for x, y in shape["points"])}) for shape in values["shapes"]
        )
    if "references" in values:
        values["references"] = {name: Reference(**value) for name, value in values["references"].items()}
    return kind(**values)


def _known(place: str, what: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise SpecificationError(f"{place}: no {what} {name!r}; there are: {', '.join(known)}")
