"""`serval watch` on fixed snapshots: the screen as rich draws it, lines of changes, keys; and who imports rich."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from serval_node.cli import watch_lines
from serval_node.cli.__main__ import main
from serval_node.cli.terminal import keys_in
from serval_node.cli.watch_keys import Keyboard
from serval_node.cli.watch_model import Model
from serval_node.cli.watch_options import EVENTS, FLOW, SERVICE, TABLES
from serval_node.cli.watch_screen import View, screen, share_lines

START = 1000.0  # of the node's clock
WALL = 1_700_000_000.0


def target(where: str, **fields: Any) -> dict[str, Any]:
    counted = {"packets": 0, "bytes": 0, "dropped_packets": 0, "origin": "controller", "priority": 1, "weight": 1}
    counted |= {"idle_timeout": 0.0, "hard_timeout": 0.0}
    return {"action": "forward", "where": where, **counted, **fields}


def rule(service: str, *targets: dict[str, Any]) -> dict[str, Any]:
    return {"service": service, "prefix": f"0x{service.encode().hex()}/80", "bits": 80, "targets": list(targets)}


def flow(flow_id: int, **fields: Any) -> dict[str, Any]:
    known = {"state": "ESTABLISHED", "incoming": False, "service": "web.example", "socket": "198.18.0.1:4000"}
    ends = {"local": "10.0.0.1", "peer": "10.0.0.4", "peer_flow": 9, "bytes_out": 100, "bytes_in": 2000}
    return {"flow_id": flow_id, **known, **ends, **fields}


def sent(time: float, flow_id: int) -> dict[str, Any]:
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "service_id": "web.example"}
    return {"event": "SynSent", "time": time, "flow_id": flow_id, **ends}


def snapshot(
    now: float, table: list[dict[str, Any]], flows: list[dict[str, Any]], events: list[dict[str, Any]], boot: str = "b"
) -> dict[str, Any]:
    status = {"name": "ann", "role": "host", "boot": boot, "controller": "127.0.0.1:6653", "controller_up": True}
    return {"status": status, "now": now, "table": table, "flows": flows, "events": events}


FIRST = snapshot(START, [rule("web.example", target("10.0.0.2"), target("10.0.0.3"))], [flow(1)], [sent(START - 1, 1)])
SECOND = snapshot(
    START + 1,
    [
        rule("web.example", target("10.0.0.2", packets=7, bytes=420)),
        rule("new.example", target("10.0.0.4", weight=3)),
    ],
    [flow(1, state="TIMEWAIT"), flow(2)],
    [sent(START - 1, 1), sent(START + 0.5, 2)],
)


def watched(*snapshots: dict[str, Any], tables: tuple[str, ...] = TABLES) -> Model:
    model = Model(tables)
    model.name_hosts({"ann": "10.0.0.1", "cleo": "10.0.0.2"})
    for answer in snapshots:
        model.take(answer, answer["now"], WALL)
    return model


def drawn(model: Model, now: float, *, width: int = 120, height: int = 40, view: View | None = None) -> list[str]:
    """The lines of the screen, drawn without any colour."""
    console = Console(record=True, width=width, height=height, file=io.StringIO(), color_system=None)
    view = view or View(model.tables)
    console.print(screen(model, view, now=now, size=(width, height), interval=1.0, clock="12:00:00"))
    return [line.rstrip() for line in console.export_text(styles=False).splitlines()]


def line_with(lines: list[str], *parts: str) -> str:
    (found,) = [line for line in lines if all(part in line for part in parts)]
    return found


def test_the_screen_marks_what_changed_without_colour() -> None:
    lines = drawn(watched(FIRST, SECOND), START + 1)
    assert lines[0] == "ann (host)  controller: up  every 1 s  12:00:00"
    changed = line_with(lines, "web.example", "FORWARD", "10.0.0.2 (cleo)")
    assert changed.startswith("* ") and "7*" in changed and "420*" in changed and "1*" not in changed
    assert line_with(lines, "new.example", "FORWARD").startswith("+ ")
    assert line_with(lines, "web.example", "10.0.0.3").startswith("- ")
    assert "TIMEWAIT*" in line_with(lines, "* ", "198.18.0.1:4000")
    assert line_with(lines, "ESTABLISHED").startswith("+ ")
    assert line_with(lines, "SynSent", "flow 2").startswith("+ ")
    assert line_with(lines, "SynSent", "flow 1").startswith("  ")
    assert "service table: 2" in lines and "flow table: 2" in lines and "last events: 2" in lines
    assert lines[-1].startswith("+ new  * changed  - gone")


def test_marks_and_gone_rows_leave_the_screen() -> None:
    model = watched(FIRST, SECOND)
    model.take({**SECOND, "now": START + 5}, START + 5, WALL)
    lines = drawn(model, START + 5)
    assert not [line for line in lines[:-1] if line[:1] in ("+", "-", "*") or "*" in line]
    assert not [line for line in lines if "10.0.0.3" in line]


def test_styles_differ_in_more_than_colour() -> None:
    from serval_node.cli.watch_changes import Mark
    from serval_node.cli.watch_screen import STYLES

    words = [frozenset(style.split()) & {"bold", "dim", "strike"} for style in STYLES.values()]
    assert STYLES[Mark.GONE] == "dim strike" and len(set(STYLES.values())) == 4
    assert all(word for mark, word in zip(STYLES, words, strict=True) if mark is not Mark.SAME)


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 12), (30, 9), (20, 3)])
def test_more_rows_than_the_screen(width: int, height: int) -> None:
    before = snapshot(START, [], [flow(number) for number in range(1, 101)], [])
    after = snapshot(START + 1, [], [flow(number, bytes_in=2000 + (number < 11)) for number in range(1, 101)], [])
    model = watched(before, after)
    lines = drawn(model, START + 1, width=width, height=height)
    assert len(lines) <= max(height, 10) and all(len(line) <= width for line in lines)
    alone = drawn(model, START + 1, width=80, height=24, view=View((FLOW,)))
    assert len(alone) == 24
    assert alone[1] == "flow table: 100, 80 not on the screen (10 of these changed)"
    assert alone[3].split()[0] == "100", "the newest flow is first"
    lowest = drawn(model, START + 1, width=80, height=24, view=View((FLOW,), scroll=999))
    assert lowest[-2].split()[:2] == ["*", "1"] and lowest[1] == "flow table: 100, 80 not on the screen"


def test_the_last_events_are_seen_and_scrolling_leads_back() -> None:
    model = watched(snapshot(START, [], [], [sent(START - 100 + number, number) for number in range(1, 61)]))
    view = View((EVENTS,))
    assert "flow 60 " in drawn(model, START, height=24, view=view)[-2]
    assert "flow 50 " in drawn(model, START, height=24, view=View((EVENTS,), scroll=10))[-2]
    assert "flow 1 " in drawn(model, START, height=24, view=View((EVENTS,), scroll=999))[3]


def test_a_narrow_screen_leaves_out_what_matters_least() -> None:
    model = watched(FIRST)
    lines = {width: drawn(model, START, width=width, view=View((SERVICE, FLOW))) for width in (110, 80, 60, 40)}
    for width, found in lines.items():
        assert all(len(line) <= width for line in found)
        assert line_with(found, "web.example", "FORWARD", "10.0.0.2 (cleo)")
        assert line_with(found, "ESTABLISHED", "web.example")
    heads = {width: found[2].split() for width, found in lines.items()}
    assert heads[110][-1] == "BY" and "BY" not in heads[60] and "PACKETS" in heads[60]
    assert "…" not in "".join(lines[80][:-1]), "nothing is cut at the usual width"


def test_lines_are_shared_fairly() -> None:
    assert share_lines([2, 3, 4], 100) == [2, 3, 4]
    assert share_lines([50, 1, 50], 21) == [10, 1, 10]
    assert share_lines([5, 5, 5], 0) == [0, 0, 0]
    assert share_lines([5], -3) == [0]
    assert sum(share_lines([9, 9, 9], 10)) == 10


def test_a_node_that_does_not_answer_is_told_and_its_last_tables_stay() -> None:
    model = watched(FIRST)
    assert model.lose("nothing listens on /run/serval/control.sock", START + 2)
    assert not model.lose("nothing listens on /run/serval/control.sock", START + 3)
    lines = drawn(model, START + 9)
    assert "! no answer, waiting since 7 s  nothing listens on /run/serval/control.sock" in lines[0]
    assert line_with(lines, "web.example", "10.0.0.3")
    assert drawn(Model(TABLES), START)[0].startswith("serval watch")


def test_a_restarted_node_has_events_of_its_own() -> None:
    model = watched(FIRST)
    model.lose("gone", START + 1)
    assert model.request()["since"] == 0.0
    model.take(snapshot(START + 9, [], [], [sent(START + 8, 7)], boot="c"), START + 9, WALL)
    assert [shown.row.cells[2].count("flow 7") for shown in model.shown(EVENTS, START + 9)] == [1]


def test_events_that_two_snapshots_have_in_common_come_once() -> None:
    model = watched(FIRST, SECOND)
    assert model.request() == {"parts": ["table", "flows", "events"], "since": START, "last": 200}
    assert len(model.shown(EVENTS, START + 1)) == 2


def test_lines_of_changes() -> None:
    model = watched(FIRST)
    start = watch_lines.start_lines(model, START, "12:00:00.000")
    assert start[0].startswith("12:00:00.000 = service web.example FORWARD 10.0.0.2 (cleo), BITS 80, PRIO 1")
    assert len(start) == 3, "two targets and a flow"
    lines = watch_lines.change_lines(model.take(SECOND, START + 1, WALL), "12:00:01.000")
    assert "12:00:01.000 * service web.example FORWARD 10.0.0.2 (cleo): PACKETS 0 -> 7, BYTES 0 -> 420" in lines
    assert "12:00:01.000 * flow 1 -> web.example: STATE ESTABLISHED -> TIMEWAIT" in lines
    assert [line.split()[1:4] for line in lines] == [
        ["*", "service", "web.example"],
        ["+", "service", "new.example"],
        ["-", "service", "web.example"],
        ["+", "flow", "2"],
        ["*", "flow", "1"],
        ["+", "event", "SynSent"],
    ]


def test_one_picture_as_plain_text() -> None:
    text = watch_lines.picture(watched(FIRST, tables=(SERVICE, EVENTS)), START)
    assert (
        text.startswith("service table of ann: 2\nSERVICEID    BITS  ACTION") and "\n\nlast events of ann: 1\n" in text
    )
    assert "flow table" not in text


def test_keys() -> None:
    assert keys_in("q\x1b[A\x1b[B\x1bOA\x1b[5~\x1b[6~\x1b[H\x1bx\x1b[1;5Zs") == [
        *("q", "up", "down", "up", "page up", "page down", "home", "\x1b", "x", "?", "s"),
    ]
    keyboard = Keyboard((SERVICE, FLOW))
    assert not keyboard.press(["f", "down", "down", "page down", "up"], page=10)
    assert keyboard.view == View((FLOW,), 11)
    keyboard.press(["e"], page=10)  # not watched
    assert keyboard.view == View((FLOW,), 11)
    keyboard.press(["a", "up"], page=10)
    assert keyboard.view == View((SERVICE, FLOW), 0)
    assert keyboard.press(["?", "q"], page=10)


def test_without_a_daemon_one_picture_fails_and_lines_wait(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    nobody = str(tmp_path / "control.sock")
    assert main(["--control", nobody, "watch", "--once"]) == 1
    assert "is the daemon running in this host?" in capsys.readouterr().err
    assert main(["--control", nobody, "watch", "--seconds", "0.5", "--interval", "0.2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("is the daemon running in this host?; waiting for it")


@pytest.mark.parametrize("words", [["--interval", "0.1"], ["--interval", "x"], ["--interval", "nan"], ["--table", "x"]])
def test_wrong_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["watch", *words])
    assert end.value.code == 2 and "usage: serval watch" in capsys.readouterr().err


def test_only_watch_itself_loads_rich() -> None:
    """Node, launcher and the other commands must not become slower or larger by it."""
    program = """
import sys
import serval_node.daemon.launcher, serval_node.daemon.servald, serval_node.socket
from serval_node.cli.__main__ import main
main(["--control", "/nonexistent", "table"])
print([name for name in sys.modules if name == "rich" or name.startswith("serval_node.cli.watch")])
main(["--control", "/nonexistent", "watch", "--once"])
print("rich" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["['serval_node.cli.watch_options']", "False"]
