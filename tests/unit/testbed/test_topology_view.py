"""Topologies as a person sees them: the list, one of them in full, the drawing."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from testbed import topology_command, topology_drawing, topology_view
from topologies import TOPOLOGIES
from topologies.mobile_client import MobileClient

SVG = "{http://www.w3.org/2000/svg}"


def test_the_list_has_each_topology_with_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert topology_command.main(None, []) == 0
    shown = capsys.readouterr().out
    for name, kind in TOPOLOGIES.items():
        assert f"{name}: {kind.summary}" in shown
        assert "--" in topology_view.picture(kind), f"{name} has no picture"


def test_one_is_shown_as_its_options_make_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert topology_command.main("mobile-client", ["--cell-rate", "7", "--interfaces", "1"]) == 0
    shown = capsys.readouterr().out
    assert "7 Mbit/s, 25 ms" in shown
    assert "ann   Serval host     10.1.0.1/24\n" in shown
    assert "--wifi-delay" in shown and "web.example   dan" in shown


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("mobil-client", [], "no topology 'mobil-client'"),
        ("two-hosts", ["--rate", "0"], "link ann-dan: a link's rate must be"),
        ("two-hosts", ["--rate", "fast"], "--rate: 'fast' is no number"),
        ("multihomed-server", ["--hosts", "9"], "hosts must be a whole number from 1 to 8"),
    ],
)
def test_what_makes_no_network_is_refused(
    name: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert topology_command.main(name, arguments) == 2
        said = capsys.readouterr().err
    except topology_command.TestbedError as error:
        said = error.message
    assert words in said


@pytest.mark.parametrize("name", list(TOPOLOGIES))
def test_every_node_and_link_is_drawn_inside_the_picture(name: str) -> None:
    topo = TOPOLOGIES[name]()
    root = ElementTree.fromstring(topology_drawing.svg(name, topo))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert all(node in words for node in topo.nodes())
    assert len(list(root.iter(f"{SVG}line"))) == len(topo.links())
    for box in root.iter(f"{SVG}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        assert x >= 0 and y >= 0
        assert x + float(box.attrib["width"]) <= width and y + float(box.attrib["height"]) <= height


def test_nodes_of_a_column_do_not_overlap() -> None:
    topo = MobileClient(hosts=8)
    root = ElementTree.fromstring(topology_drawing.svg("mobile-client", topo))
    group = next(root.iter(f"{SVG}g"))
    spans: dict[str, list[tuple[float, float]]] = {}
    for box in group.iter(f"{SVG}rect"):
        y = float(box.attrib["y"])
        spans.setdefault(box.attrib["x"], []).append((y, y + float(box.attrib["height"])))
    for column in spans.values():
        column.sort()
        assert all(one[1] < other[0] for one, other in zip(column, column[1:], strict=False))


def test_the_drawing_goes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.svg"
    assert topology_command.main("two-hosts", ["--svg", str(file)]) == 0
    assert file.read_text().startswith("<svg ") and f"drawn: {file}" in capsys.readouterr().out
    with pytest.raises(topology_command.TestbedError, match="cannot write"):
        topology_command.main("two-hosts", ["--svg", str(tmp_path / "nowhere" / "two.svg")])
