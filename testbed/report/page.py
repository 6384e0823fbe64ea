"""The report: one HTML file with everything in it, readable without a network and without scripts. And an index.

The templates are in `templates/`; here and in `sections` is what they are given. All words about figures come from
`testbed.experiment.summary`, so that page and terminal say the same.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from testbed.errors import TestbedError
from testbed.experiment import analysis, result, summary
from testbed.experiment.analysis import CANNOT_TELL, HELD, NOT_HELD
from testbed.experiment.plan import point_words
from testbed.measure import files
from testbed.report import draw, sections
from testbed.report.deviation import deviations
from testbed.report.plots import Picture, restored
from testbed.report.view import DOUBTFUL, Results, with_unit

FILE_NAME = "report.html"
INDEX_NAME = "index.html"

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def report(document: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """The page of one result. figures: those that `figures_of` made."""
    results = Results(document)
    judgements = analysis.judgements(document)
    return _TEMPLATES.get_template("report.html").render(
        experiment=results.experiment,
        paragraphs=[part.split("\n") for part in results.experiment["description"].strip().split("\n\n")],
        heading=[line for line in summary.heading(document).splitlines()[1:] if not line.startswith("  left out")],
        quick=results.quick,
        verdict=verdict(document),
        judgements=[
            {
                "text": one.text,
                "place": point_words(one.point),
                "verdict": one.verdict,
                "measured": summary.measured(one),
                "asked": summary.asked(one),
                "why": one.why,
                "doubtful": f"{one.doubtful} of {one.count} runs" if one.doubtful else "",
            }
            for one in judgements
        ],
        unasked=unasked(document),
        deviations=deviations(results),
        metrics=sections.metrics(results),
        schedules=sections.schedules(document),
        cases=sections.cases(document),
        plots=[_plot(described, figures) for described in results.experiment["plots"]],
        trust=summary.trust_lines(document),
        trustworthy=analysis.trust(document).trustworthy,
        calibration=sections.calibration(document),
        runs=sections.runs(results),
        metric_names=[with_unit(metric["label"], metric["unit"]) for metric in results.experiment["metrics"]],
        manifest=list(sections.flat(document["manifest"])),
        command=shlex.join(document["command"]),
        again=again(document),
        document=document,
        DOUBTFUL=DOUBTFUL,
    )


def index(entries: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    """The page over several results. entries: (document, the relative path of its page)."""
    rows = [
        {
            "title": document["experiment"]["title"],
            "name": document["experiment"]["name"],
            "source": document["experiment"]["source"],
            "created": document["created"],
            "runs": f"{len(result.good_runs(document))} of {len(document['plan'])}",
            "verdict": verdict(document)[0],
            "trustworthy": analysis.trust(document).trustworthy,
            "quick": document["settings"]["quick"],
            "path": path,
        }
        for document, path in entries
    ]
    return _TEMPLATES.get_template("index.html").render(rows=rows, DOUBTFUL=DOUBTFUL)


def write(text: str, path: Path) -> Path:
    """Raises TestbedError."""
    try:
        files.write_whole(path, text)
    except OSError as error:
        raise TestbedError(f"cannot write {path}: {error.strerror}") from None
    return path


def figures_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """name -> (picture, its matplotlib Figure, None when the result has nothing for it), of the kinds known here."""
    results = Results(document)
    found: dict[str, tuple[Picture, Any]] = {}
    for described in results.experiment["plots"]:
        picture = restored(described)
        if picture is not None:
            found[picture.name] = (picture, draw.figure(picture, results))
    return found


def verdict(document: Mapping[str, Any]) -> list[str]:
    """In sentences: whether what was asked for holds, and whether that can be believed."""
    judgements = analysis.judgements(document)
    counts = {word: sum(1 for one in judgements if one.verdict == word) for word in (HELD, NOT_HELD, CANNOT_TELL)}
    if not judgements:
        sentences = ["Nothing was asked for of what ran; the figures stand for themselves."]
    elif counts[HELD] == len(judgements):
        sentences = ["All that was asked for held."]
    else:
        parts = [
            f"{count} {words}"
            for count, words in (
                (counts[HELD], "held"),
                (counts[NOT_HELD], "did not hold"),
                (counts[CANNOT_TELL], "cannot be told"),
            )
            if count
        ]
        of = f"Of {len(judgements)} things" if len(judgements) > 1 else "Of the one thing"
        sentences = [f"{of} asked for {' and '.join(parts)}."]
    trust = analysis.trust(document)
    if not trust.trustworthy:
        sentences.append(
            f"{DOUBTFUL}: {trust.doubtful} of {trust.runs} runs, and {_links(document, len(trust.calibration))}."
        )
    if wrong := summary.wrong_bytes(document):
        sentences.append(f"WRONG BYTES arrived in {len(wrong)} flows: that must not be, ever.")
    if document["settings"]["quick"]:
        sentences.append("A quick run: it shows that everything works, and no more.")
    if document["ended"] is not None:
        sentences.append(f"Ended early: {document['ended']}.")
    return sentences


def again(document: Mapping[str, Any]) -> str:
    """The command that makes the same runs in the same order."""
    settings = document["settings"]
    words = [".venv/bin/python", "-m", f"experiments.{document['experiment']['name']}"]
    words += ["--quick"] if settings["quick"] else []
    words += ["--runs", str(settings["runs"]), "--seed", str(settings["seed"])]
    words += ["--contenders", ",".join(settings["contenders"])] if settings.get("contenders") else []
    words += ["--points", settings["points"]] if settings.get("points") else []
    for name, value in settings["given"].items():
        words += ["--set", f"{name}={value:g}"]
    return shlex.join(words)


def inlined(figure: Any, name: str, title: str) -> str:
    """A figure as an SVG element whose ids clash with no other's in the page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|xlink:href="#|href="#|url\(#)', rf"\g<1>{name}-", text)
    label = escape(title)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _links(document: Mapping[str, Any], count: int) -> str:
    if not document["calibration"]:
        return "the links were not measured"
    if not count:
        return "the links were as asked"
    return f"calibration has {count} {'remark' if count == 1 else 'remarks'}"


def _plot(described: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    name, title = described.get("name", "?"), described.get("title", "?")
    if name not in figures:
        return {"title": title, "caption": f"This program cannot draw {described.get('kind')!r}.", "svg": ""}
    picture, figure = figures[name]
    if figure is None:
        return {"title": title, "caption": "No run has what this picture shows.", "svg": ""}
    return {
        "title": title,
        "caption": picture.caption,
        "svg": Markup(inlined(figure, name, title)),
    }


def unasked(document: Mapping[str, Any]) -> list[str]:
    """What was to hold for contenders that did not run, or at points that were not run."""
    judged = {(one.text, one.metric, one.contender) for one in analysis.judgements(document)}
    return [
        wanted["text"]
        for wanted in document["experiment"]["acceptance"]
        if (wanted["text"], wanted["metric"], wanted["contender"]) not in judged
    ]
