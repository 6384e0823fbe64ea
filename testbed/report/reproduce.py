"""`testbed reproduce slide46`: runs the experiment that a slide's figure is of, and says how near it came.

Which experiment that is stands in its own `source` ("slide 46"); nothing here has a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.experiment import analysis, catalogue, command
from testbed.experiment.analysis import HELD, NOT_HELD
from testbed.experiment.specification import Experiment
from testbed.report import command as pages
from testbed.report import page
from testbed.report.deviation import deviations
from testbed.report.view import Results

REPRODUCED, NOT_REPRODUCED, CANNOT_TELL = 0, 1, 2
"""Exit statuses."""

_SAID = {
    REPRODUCED: "is reproduced: all that was asked for held",
    NOT_REPRODUCED: "is NOT reproduced",
    CANNOT_TELL: "cannot be told to be reproduced or not",
}


def run(word: str | None, arguments: Sequence[str]) -> int:
    """Run the experiment of a slide ("slide46", "46") with options of its own command, or list what there is.

    Returns REPRODUCED, NOT_REPRODUCED or CANNOT_TELL, or where it did not come to an end the status of the command.
    """
    experiments = catalogue.every()
    if word is None:
        print(listed(experiments))
        return 0
    number = slide(word)
    experiment = find(number, experiments)
    outcomes: list[int] = []

    def finish(document: dict[str, Any], directory: Path) -> None:
        outcomes.append(tell(number, document, directory))

    status = command.run(experiment, arguments, finish=finish)
    return outcomes[0] if outcomes else status


def slides(source: str) -> list[int]:
    """The slides that a source names, in its order: "slides 34 and 40; thesis" -> [34, 40]."""
    found = re.findall(r"\bslides?\s+(\d+(?:(?:\s*,\s*|\s+and\s+|,\s+and\s+)\d+)*)", source, flags=re.IGNORECASE)
    return [int(number) for group in found for number in re.findall(r"\d+", group)]


def slide(word: str) -> int:
    """ "slide46", "slide 46" and "46" mean the same. Raises TestbedError."""
    match = re.fullmatch(r"(?:slide)?\s*[-_]?(\d+)", word.strip(), flags=re.IGNORECASE)
    if match is None:
        raise TestbedError(f"{word!r} is no slide", "a slide is named so: slide46; `testbed reproduce` lists them")
    return int(match.group(1))


def find(number: int, experiments: Sequence[Experiment]) -> Experiment:
    """The experiment that names this slide; the one that names it first, where several do. Raises TestbedError."""
    naming = [experiment for experiment in experiments if number in slides(experiment.source)]
    first = [experiment for experiment in naming if slides(experiment.source)[0] == number]
    if not naming:
        raise TestbedError(f"no experiment reproduces slide {number}", listed(experiments))
    chosen = first or naming
    if len(chosen) > 1:
        words = " or ".join(f"python -m experiments.{experiment.name}" for experiment in chosen)
        raise TestbedError(f"several experiments are about slide {number}", f"say which: {words}")
    return chosen[0]


def listed(experiments: Sequence[Experiment]) -> str:
    """A line for each slide that can be reproduced."""
    rows = sorted(
        (number, experiment.name, experiment.title)
        for experiment in experiments
        for number in slides(experiment.source)
    )
    if not rows:
        return "there is no experiment about a slide"
    return "there are:\n" + "\n".join(f"  slide{number}  {title} ({name})" for number, name, title in rows)


def tell(number: int, document: Mapping[str, Any], directory: Path) -> int:
    """Figures, page, and the comparison in words; returns the outcome."""
    status = outcome(document)
    found = deviations(Results(document))
    print("\nBeside the slide")
    print("\n".join(f"  {deviation.words()}" for deviation in found) or "  it has no figure to compare with")
    print()
    for path in pages.draw(document, directory, ("svg", "png", "pdf")):
        if path.suffix == ".svg":
            print(f"figure: {path} (.png, .pdf)")
    print(f"\nslide {number} {_SAID[status]}")
    print("\n".join(f"  {sentence}" for sentence in page.verdict(document)))
    return status


def outcome(document: Mapping[str, Any]) -> int:
    """From the acceptance: one thing that did not hold is enough; all of it has to be known to hold."""
    judgements = analysis.judgements(document)
    verdicts = {judgement.verdict for judgement in judgements}
    if NOT_HELD in verdicts:
        return NOT_REPRODUCED
    known = verdicts == {HELD} and not page.unasked(document)
    return REPRODUCED if known else CANNOT_TELL
