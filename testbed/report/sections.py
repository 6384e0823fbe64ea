"""What the report's tables and lists hold, section by section, as its templates want it: words and figures, ready to be
shown. All words about figures come from `testbed.experiment.summary`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testbed.experiment import analysis, schedule, summary
from testbed.experiment.plan import point_words
from testbed.measure.table import number
from testbed.report.view import Results, with_unit


def metrics(results: Results) -> list[dict[str, Any]]:
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


def schedules(document: Mapping[str, Any]) -> list[dict[str, Any]]:
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


def cases(document: Mapping[str, Any]) -> list[tuple[str, str]]:
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


def calibration(document: Mapping[str, Any]) -> list[dict[str, Any]]:
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


def runs(results: Results) -> list[dict[str, Any]]:
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


def flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """("packages: numpy", "2.2.6") of every leaf."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(item, f"{name}: {key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(item) for item in value)
    else:
        yield name, "not known" if value is None else str(value)
