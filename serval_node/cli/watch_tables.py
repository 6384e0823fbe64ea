"""The tables that `serval watch` shows: columns, and rows from a node's `snapshot`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serval_node.cli.event_text import EventWords
from serval_node.cli.output import clock, size
from serval_node.cli.watch_changes import Row
from serval_node.cli.watch_options import EVENTS, FLOW, SERVICE


@dataclass(frozen=True, slots=True)
class Columns:
    """The header of a table. `numbers` are the columns that are aligned to the right, `label` those that tell in a line
    of text which row it is; `wide` gets the room that is left; `spare` go first when there is too little.
    """

    part: str
    names: tuple[str, ...]
    numbers: frozenset[int]
    label: tuple[int, ...]
    wide: int
    spare: tuple[int, ...] = ()


COLUMNS = {
    SERVICE: Columns(
        "table",
        ("SERVICEID", "BITS", "ACTION", "SOCK/ADDR", "PRIO", "WEIGHT", "PACKETS", "BYTES", "DROPPED", "BY"),
        frozenset({1, 4, 5, 6, 7, 8}),
        (0, 2, 3),
        0,
        (9, 1, 7, 8, 5, 4, 6),
    ),
    FLOW: Columns(
        "flows",
        ("FLOWID", "STATE", "SERVICE", "SOCKET", "LOCAL", "PEER", "PEER FLOW", "OUT", "IN"),
        frozenset({0, 6, 7, 8}),
        (0, 2),
        2,
        (4, 6, 3, 7, 8, 5),
    ),
    EVENTS: Columns("events", ("TIME", "EVENT", "WHAT"), frozenset(), (1, 2), 2),
}
"""`part` is the name in the `snapshot` request."""


def service_rows(entries: Sequence[Mapping[str, Any]], words: EventWords) -> list[Row]:
    """One row for each target of each rule, longest prefix first (slide 20)."""
    rows = []
    for entry in entries:
        for target in entry["targets"]:
            where = words.name(target["where"])
            counted = (target["packets"], target["bytes"], target["dropped_packets"])
            key = "|".join((entry["prefix"], target["action"], target["where"], target["origin"]))
            values = (
                entry["service"],
                entry["bits"],
                target["action"].upper(),
                f"{target['where']} ({where})" if where != target["where"] else where,
                target["priority"],
                target["weight"],
                *counted,
                target["origin"],
            )
            rows.append(_row(key, values, {7: size(target["bytes"])}))
    return rows


def flow_rows(flows: Sequence[Mapping[str, Any]], words: EventWords) -> list[Row]:
    """Newest first, so that what comes is seen on a screen with too many; then reserved flowIDs."""
    rows = []
    for flow in [*_reversed(flows, reserved=False), *_reversed(flows, reserved=True)]:
        service = ("<- " if flow["incoming"] else "-> ") + flow["service"] if flow["service"] else ""
        values = (
            flow["flow_id"],
            flow["state"],
            service,
            flow["socket"],
            flow["local"],
            words.name(flow["peer"]),
            flow["peer_flow"] or "",
            flow["bytes_out"],
            flow["bytes_in"],
        )
        texts = {7: size(flow["bytes_out"]), 8: size(flow["bytes_in"])}
        rows.append(_row(str(flow["flow_id"]), values, texts))
    return rows


def _reversed(flows: Sequence[Mapping[str, Any]], *, reserved: bool) -> list[Mapping[str, Any]]:
    return [flow for flow in reversed(flows) if (flow["state"] == "RESERVED") is reserved]


def event_rows(events: Sequence[Mapping[str, Any]], words: EventWords, wall_offset: float) -> list[Row]:
    """Oldest first. `wall_offset`: what makes seconds of the epoch of the events' monotonic times."""
    rows = []
    for event in events:
        text = words.text(event)
        values = (clock(event["time"] + wall_offset), event["event"], text)
        key = f"{event['time']!r}|{event['event']}|{text}"
        rows.append(Row(key, values, values))
    return rows


def _row(key: str, values: tuple[Any, ...], texts: Mapping[int, str]) -> Row:
    cells = tuple(texts.get(index, str(value)) for index, value in enumerate(values))
    return Row(key, cells, values)
