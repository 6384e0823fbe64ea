"""The report: one HTML file with everything in it, readable without a network and without scripts. And an index.

The templates are in `templates/`; here is what they are given. All words about figures come from
`testbed.experiment.summary`, so that page and terminal say the same.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from testbed.errors import TestbedError
from testbed.experiment import analysis, result, schedule, summary
from testbed.experiment.analysis import CANNOT_TELL, HELD, NOT_HELD
from testbed.experiment.plan import point_words
from testbed.measure.table import number
from testbed.ownership import owned_by_caller
from testbed.report import draw
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
        metrics=_metrics(results),
        schedules=_schedules(document),
        cases=_cases(document),
        plots=[_plot(described, figures) for described in results.experiment["plots"]],
        trust=summary.trust_lines(document),
        trustworthy=analysis.trust(document).trustworthy,
        calibration=_calibration(document),
        runs=_runs(results),
        metric_names=[with_unit(metric["label"], metric["unit"]) for metric in results.experiment["metrics"]],
        manifest=list(_flat(document["manifest"])),
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
        path.write_text(text, encoding="utf-8")
        return owned_by_caller(path)
    except OSError as error:
        raise TestbedError(f"cannot write {path}: {error.strerror}") from None


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


def _metrics(results: Results) -> list[dict[str, Any]]:
    compared = {(one.metric, one.contender, one.setting): one for one in analysis.comparisons(results.document)}
    found = []
    for metric in results.experiment["metrics"]:
        rows = []
        for one in results.summaries:
            if one.metric != metric["name"]:
                continue
            beside = compared.get((one.metric, one.contender, one.setting))
            counts = ((one.failed, "failed"), (one.without, "without a value"), (one.doubtful, "doubtful"))
            rows.append(
                {
                    "contender": one.contender_label,
                    "colour": results.styles[one.contender].colour,
                    "point": point_words(one.point),
                    "count": one.estimate.count,
                    "median": number(one.estimate.median),
                    "interval": summary.between(one.estimate).strip(" ()"),
                    "difference": "" if beside is None else summary.difference(beside),
                    "verdict": "" if beside is None or beside.verdict is None else beside.verdict,
                    "notes": ", ".join(f"{count} {what}" for count, what in counts if count),
                }
            )
        reference = results.experiment["references"].get(metric["name"])
        found.append({**metric, "title": with_unit(metric["label"], metric["unit"]), "rows": rows, "said": reference})
    return found


def _schedules(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What flows and what happens: each different plan once, with those that it is for."""
    found: dict[str, dict[str, Any]] = {}
    for scene in document["scenes"]:
        events = [_event_words(event) for event in scene["events"] if _is_for(event, scene["contender"])]
        traffic = [_traffic_words(item) for item in scene["traffic"]]
        options = ", ".join(f"{name} {value}" for name, value in scene["options"].items())
        network = f"{scene['topology']}{f' ({options})' if options else ''}, {scene['seconds']:g} s"
        entry = {"network": network, "events": events, "traffic": traffic, "whose": []}
        found.setdefault(repr(entry), entry)["whose"].append((scene["contender"], scene["setting"]))
    return [{**entry, "whose": _whose(document, entry["whose"])} for entry in found.values()]


def _whose(document: Mapping[str, Any], pairs: Sequence[tuple[str, int]]) -> str:
    """ "Serval; kernel TCP at rtt_ms=20": contenders with the points at which they had the same plan."""
    contenders, points = document["experiment"]["contenders"], document["points"]
    if len(pairs) == len(contenders) * len(points):
        return "Everybody"
    words = []
    for contender in contenders:
        settings = [setting for name, setting in pairs if name == contender["name"]]
        places = "" if len(settings) == len(points) else " or ".join(point_words(points[at]) for at in settings)
        words += [f"{contender['label']} at {places}" if places else contender["label"]] if settings else []
    return "; ".join(words)


_CASES = {
    schedule.BY_ORDER: "Told to move while the path still carried, which flatters Serval",
    schedule.BY_LINK: "A link or an address that says that it is gone",
    schedule.BY_NOBODY: "Silent loss, which no link tells of and which does not flatter Serval",
}


def _cases(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(how those whose path goes learn of it, who meets that), also what nobody meets. Empty where no path goes."""
    found: dict[str, list[tuple[str, int]]] = {notice: [] for notice in _CASES}
    for scene in document["scenes"]:
        for event in scene["events"]:
            pair = (scene["contender"], scene["setting"])
            met = found.get(event.get("notice"))
            if met is not None and _is_for(event, scene["contender"]) and pair not in met:
                met.append(pair)
    if not any(found.values()):
        return []
    return [(_CASES[notice], _whose(document, pairs) or "not in this result") for notice, pairs in found.items()]


def _is_for(event: Mapping[str, Any], contender: str) -> bool:
    return not event["only"] or contender in event["only"]


def _event_words(event: Mapping[str, Any]) -> str:
    if "at" in event:
        return f"at {event['at']:g} s: {event['action']}"
    after = f", {event['after']:g} s later" if event["after"] else ""
    return f"when {event['when']}{after}: {event['action']}"


def _traffic_words(item: Mapping[str, Any]) -> str:
    ends = [item["source"], item["target"]]
    if item.get("direction") == "down":
        ends.reverse()
    rate = item.get("rate")
    if item["kind"] == "requests":
        pace = "one after the other" if rate is None else f"{rate:g} a second"
        return f"{item['name']}: requests from {item['source']} to {item['service']}, {pace}"
    pace = "as fast as it goes" if rate is None else f"{rate:g} Mbit/s"
    return f"{item['name']}: {item['kind']} of {item['service']} from {ends[0]} to {ends[1]}, {pace}"


def _calibration(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "place": point_words(document["points"][entry["setting"]]),
            "good": entry["good"],
            "error": entry["error"],
            "paths": [
                {
                    "ends": f"{path['source']} to {path['target']}",
                    "quantities": [_quantity(quantity) for quantity in path.get("quantities", ())],
                }
                for path in entry["paths"]
            ],
        }
        for entry in document["calibration"]
    ]


def _quantity(measured: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table of links: `testbed.calibration.Quantity`."""
    unit, bounds = measured["unit"], [measured["low"], measured["high"]]
    words = [
        f"{sign} {number(bound)} {unit}".rstrip()
        for sign, bound in zip(("from", "to"), bounds, strict=True)
        if bound is not None
    ]
    return {
        "name": measured["name"],
        "asked": "no limit" if measured["asked"] is None else f"{number(measured['asked'])} {unit}".rstrip(),
        "achieved": f"{number(measured['achieved'])} {unit}".rstrip(),
        "bounds": " ".join(words),
        "verdict": measured["verdict"],
        "why": measured["why"],
    }


def _runs(results: Results) -> list[dict[str, Any]]:
    """Every attempt, in the order in which they were made."""
    rows = []
    for run in results.document["runs"]:
        failed = run["failed"] is not None
        doubt = "" if failed or run["fidelity"]["trustworthy"] else "; ".join(run["fidelity"]["reasons"]) or "doubtful"
        values = [
            number(None if (value := run["metrics"].get(metric["name"])) is None else value * metric["scale"])
            for metric in results.experiment["metrics"]
        ]
        rows.append(
            {
                "number": run["number"],
                "attempt": run["attempt"] + 1,
                "repetition": run["repetition"] + 1,
                "contender": run["contender"],
                "point": point_words(results.document["points"][run["setting"]]),
                "seed": run["seed"],
                "values": ["" for _ in values] if failed else values,
                "failed": run["failed"] or "",
                "doubt": doubt,
            }
        )
    return rows


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """("packages: numpy", "2.2.6") of every leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}: {key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(item) for item in value)
    else:
        yield name, "not known" if value is None else str(value)
