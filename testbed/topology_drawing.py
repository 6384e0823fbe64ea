"""A topology as an SVG picture: nodes in columns from the clients to the servers, links with their shapes. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from xml.sax.saxutils import escape

from testbed import topology_view as view
from topologies.declarations import Declared

COLUMN, ROW, MARGIN = 210, 92, 36
WIDTH, LINE = 124, 15
HEAD, FOOT = 58, 46
PARALLEL = 22
SWEEPS = 4
COLOURS: Mapping[str, tuple[str, str]] = {
    view.HOST: ("#dbe9f6", "#2b6ca3"),
    view.VM: ("#fbe3cf", "#c2570c"),
    view.SERVICE_ROUTER: ("#e6dcf2", "#6b3fa0"),
    view.PLAIN_HOST: ("#f1f1f1", "#666666"),
    view.IP_ROUTER: ("#ffffff", "#333333"),
    view.SWITCH: ("#e3f1df", "#3d7a2c"),
    view.BRIDGE: ("#e3f1df", "#3d7a2c"),
}
"""Fill and edge of each kind."""


@dataclass(frozen=True)
class Box:
    """A node in the picture: its middle, its height and its lines, the name first."""

    x: float
    y: float
    height: float
    lines: tuple[str, ...]


def svg(name: str, topo: Declared) -> str:
    """The picture as a document of its own."""
    columns = _columns(topo)
    boxes = _boxes(topo, columns)
    width = max(2 * MARGIN + WIDTH + COLUMN * (len(columns) - 1), 560)
    height = HEAD + FOOT + max(box.y + box.height / 2 for box in boxes.values()) + MARGIN / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' height="{height:g}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        _text(MARGIN, 26, name, size=17, weight="bold", anchor="start"),
        _text(MARGIN, 45, topo.summary, anchor="start", colour="#555555"),
        f'<g transform="translate(0 {HEAD})">',
        *_links(topo, boxes),
        *(_node(topo, node, box) for node, box in boxes.items()),
        "</g>",
        *_legend(topo, height - FOOT / 2),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _columns(topo: Declared) -> list[list[str]]:
    """Nodes by their distance from the clients; in each column as near as may be to their neighbours."""
    near: dict[str, list[str]] = defaultdict(list)
    for first, second in topo.links():
        near[first].append(second)
        near[second].append(first)
    serving = {host for service in topo.services for host in service.hosts}
    clients = [
        name
        for name in topo.serval_nodes()
        if name not in serving and name not in topo.service_routers() and not topo.nodeInfo(name).get("ip_forward")
    ]
    distance = dict.fromkeys(clients or topo.hosts()[:1], 0)
    waiting = deque(distance)
    while waiting:
        name = waiting.popleft()
        for other in near[name]:
            if other not in distance:
                distance[other] = distance[name] + 1
                waiting.append(other)
    columns: list[list[str]] = [[] for _ in range(max(distance.values()) + 1)]
    for name in topo.nodes():
        columns[distance.get(name, 0)].append(name)
    for _ in range(SWEEPS):
        for number in (*range(1, len(columns)), *range(len(columns) - 2, -1, -1)):
            _sort(columns, number, near)
    return columns


def _sort(columns: list[list[str]], number: int, near: Mapping[str, Sequence[str]]) -> None:
    """By the mean place of a node's neighbours in the other columns; nodes without any stay where they are."""
    place = {name: (row + 0.5) / len(column) for column in columns for row, name in enumerate(column)}
    own = set(columns[number])

    def wanted(name: str) -> float:
        others = [place[other] for other in near[name] if other not in own]
        return fmean(others) if others else place[name]

    columns[number].sort(key=wanted)


def _boxes(topo: Declared, columns: Sequence[Sequence[str]]) -> dict[str, Box]:
    tallest = max(len(column) for column in columns)
    boxes = {}
    for number, column in enumerate(columns):
        top = (tallest - len(column)) * ROW / 2
        for row, name in enumerate(column):
            lines = tuple(_lines(topo, name))
            x = MARGIN + WIDTH / 2 + number * COLUMN
            boxes[name] = Box(x, top + row * ROW + ROW / 2, 14 + LINE * len(lines), lines)
    return boxes


def _lines(topo: Declared, name: str) -> Iterator[str]:
    """What stands in a node's box."""
    yield name
    kind = view.kind(topo, name)
    if kind in (view.IP_ROUTER, view.SWITCH, view.BRIDGE):
        yield kind
        return
    yield from view.addresses(topo).get(name, [])
    served = [service.name for service in topo.services if name in service.hosts]
    yield from served[:3]


def _links(topo: Declared, boxes: Mapping[str, Box]) -> Iterator[str]:
    """Links behind the boxes; several between the same two nodes side by side."""
    groups: dict[frozenset[str], list[dict]] = defaultdict(list)
    for _, _, info in topo.links(withInfo=True):
        groups[frozenset((info["node1"], info["node2"]))].append(info)
    for group in groups.values():
        for number, info in enumerate(group):
            yield from _link(info, boxes, (number - (len(group) - 1) / 2) * PARALLEL)


def _link(info: dict, boxes: Mapping[str, Box], aside: float) -> Iterator[str]:
    one, other = sorted((boxes[info["node1"]], boxes[info["node2"]]), key=lambda box: box.x)
    y1, y2 = one.y + aside, other.y + aside
    yield f'<line x1="{one.x:g}" y1="{y1:g}" x2="{other.x:g}" y2="{y2:g}" stroke="#777777" stroke-width="1.5"/>'
    label = view.shape(info)
    if label != view.UNLIMITED:
        # In the gap between the columns, on the line, with the paper's colour behind it.
        x, y = (one.x + other.x) / 2, (y1 + y2) / 2
        for number, part in enumerate(label.split(", ")):
            yield _text(x, y - 4 + 12 * number, part, size=10, colour="#444444", halo=True)


def _node(topo: Declared, name: str, box: Box) -> str:
    fill, edge = COLOURS[view.kind(topo, name)]
    left, top = box.x - WIDTH / 2, box.y - box.height / 2
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{WIDTH}" height="{box.height:g}" rx="7" fill="{fill}"'
        f' stroke="{edge}" stroke-width="1.4"/>'
    ]
    for number, line in enumerate(box.lines):
        y = top + 18 + number * LINE
        parts.append(_text(box.x, y, line, size=13 if number == 0 else 11, weight="bold" if number == 0 else "normal"))
    return "\n".join(parts)


def _legend(topo: Declared, y: float) -> Iterator[str]:
    x: float = MARGIN
    there = {view.kind(topo, name) for name in topo.nodes()}
    for kind, (fill, edge) in COLOURS.items():
        if kind in there:
            yield f'<rect x="{x:g}" y="{y - 9:g}" width="16" height="11" rx="3" fill="{fill}" stroke="{edge}"/>'
            yield _text(x + 22, y, kind, size=11, anchor="start", colour="#333333")
            x += 40 + 6.6 * len(kind)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "middle",
    colour: str = "#111111",
    halo: bool = False,
) -> str:
    around = ' stroke="#ffffff" stroke-width="4" paint-order="stroke"' if halo else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
        f' fill="{colour}"{around}>{escape(text)}</text>'
    )
