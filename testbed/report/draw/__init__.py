"""Pictures, drawn. `figure` makes one from what an experiment declared and a result; a module per kind.

Nothing here computes a statistic of its own (`testbed.experiment.analysis` does), and nothing
reads the experiment's code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbed.report.draw import bars, curve, distribution, instances, stacked, time_series
from testbed.report.plots import Bars, BlackoutPhases, Cdf, Curve, Instances, Parts, Picture, TimeSeries
from testbed.report.view import Results

_DRAW: dict[type[Picture], Callable[[Any, Results], Any]] = {
    TimeSeries: time_series.draw,
    Instances: instances.draw,
    Cdf: distribution.draw,
    BlackoutPhases: stacked.draw_blackouts,
    Parts: stacked.draw_parts,
    Bars: bars.draw,
    Curve: curve.draw,
}


def figure(picture: Picture, results: Results) -> Any:
    """A matplotlib Figure; None when the result has nothing for it."""
    return _DRAW[type(picture)](picture, results)
