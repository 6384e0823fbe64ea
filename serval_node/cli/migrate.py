"""`serval migrate`: move flows to another interface or address of this host while their programs go on (slide 40)."""

from __future__ import annotations

import argparse
import time
from typing import Any

from serval_node.cli import arguments
from serval_node.cli.errors import CommandError
from serval_node.cli.output import columns, print_json
from serval_node.control.local import Client
from serval_node.control.triggers import TRIGGERS

_PAUSE = 0.005


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "migrate",
        help="move flows to another interface or address of this host; their programs notice nothing",
        description="Move flows while their programs go on: RSYN to the peer, RSYN-ACK back, ACK. "
        "FLOWID is the number in `serval flows`; TO is an interface (eth1) or an address of this host.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="WHAT")
    for kind, which, text, whose in (
        ("flow", "FLOWID", "one flow, by its flowID", "the number in `serval flows`"),
        (
            "interface",
            "FROM",
            "every flow at an interface, or at an address",
            "an interface, or an address of this host",
        ),
        ("service", "SERVICE", "every flow to or from a service", "the service's name"),
    ):
        moved = kinds.add_parser(kind, parents=[as_json], help=text, description=f"Move {text}.")
        moved.add_argument("which", metavar=which, type=_flow_id if kind == "flow" else str, help=whose)
        moved.add_argument("to", metavar="TO", help="the interface or address to move to")
        moved.add_argument(
            "--timeout",
            type=arguments.seconds,
            default=10.0,
            metavar="S",
            help="how long to wait for the peers' answers (default 10)",
        )
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in TRIGGERS.items())
    auto = kinds.add_parser(
        "auto",
        parents=[as_json],
        help="what makes flows move by themselves, and to switch it",
        description=f"Say, or set, what makes flows move by themselves. {meanings}.",
    )
    auto.add_argument(
        "words",
        nargs="*",
        metavar="TRIGGER|on|off",
        help=f"nothing: say how it is; `on` or `off`: all triggers; `TRIGGER on` or `TRIGGER off`: one of "
        f"{', '.join(TRIGGERS)}",
    )
    congestion = kinds.add_parser(
        "congestion",
        parents=[as_json],
        help="whether flows keep their congestion window when their old path is lost",
        description="Say, or set, what a lost path means for the congestion control of the flows that leave it. keep: "
        "the node sends again at once what was under way, and the kernel's congestion window stays as it was. reset: "
        "the node sends nothing again; the kernel notices the loss by itself, waits for its time-out, and starts "
        "slowly on the new path.",
    )
    congestion.add_argument("state", nargs="?", choices=("keep", "reset"), help="set it; without: say how it is")


def _flow_id(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = 0
    if not 0 < number <= 0xFFFFFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not a flowID; `serval flows` lists them")
    return number


def migrate(client: Client, options: argparse.Namespace) -> int:
    """0 when all chosen flows have moved, 1 when one was refused or nobody answered in time."""
    if options.kind == "auto":
        return _auto(client, options)
    if options.kind == "congestion":
        return _congestion(client, options)
    key = {"flow": "flow_id", "interface": "from", "service": "service"}[options.kind]
    since = client.request("events", since=time.monotonic())["now"]
    rows = client.request("migrate", **{key: options.which, "to": options.to})["flows"]
    _wait(client, rows, since, options.timeout)
    if options.json:
        print_json(rows)
    else:
        print(columns(["FLOWID", "FROM", "TO", "RESULT"], [_row(row) for row in rows]))
    failed = [row for row in rows if row["refusal"]]
    if failed:
        raise CommandError(f"{len(failed)} of {len(rows)} flows did not move")
    return 0


def _wait(client: Client, rows: list[dict[str, Any]], since: float, timeout: float) -> None:
    """Add how each move ended; one that has not ended in time goes on, which its row says."""
    waiting = {row["flow_id"]: row for row in rows if not row["refusal"]}
    deadline = time.monotonic() + timeout
    while waiting:
        for event in client.request("events", since=since)["events"]:
            row = waiting.get(event.get("flow_id", 0))
            if row is None or event["event"] not in ("FlowMigrated", "MigrationFailed", "FlowClosed"):
                continue
            del waiting[event["flow_id"]]
            if event["event"] == "FlowMigrated":
                row["milliseconds"] = round(1000 * (event["time"] - event["started"]), 3)
                row["rsyns"] = event["rsyns"]
            else:
                row["refusal"] = event["reason"]
        if waiting and time.monotonic() >= deadline:
            for row in waiting.values():
                row["refusal"] = f"no answer from the peer after {timeout:g} s; the node goes on asking"
            return
        if waiting:
            time.sleep(_PAUSE)


def _row(row: dict[str, Any]) -> list[object]:
    if row["refusal"]:
        return [row["flow_id"], row["source"], row["target"], row["refusal"]]
    times = "" if row["rsyns"] == 1 else f", {row['rsyns']} RSYNs"
    return [row["flow_id"], row["source"], row["target"], f"moved, answered after {row['milliseconds']:g} ms{times}"]


def _auto(client: Client, options: argparse.Namespace) -> int:
    answer = client.request("auto_migrate", **_wish(options.words))
    if options.json:
        print_json(answer)
        return 0
    triggers: dict[str, bool] = answer["triggers"]
    if not any(triggers.values()):
        print("flows move by hand only")
    rows = [[name, "on" if on else "off", TRIGGERS.get(name, "")] for name, on in triggers.items()]
    print(columns(["TRIGGER", "STATE", "FLOWS MOVE WHEN"], rows))
    return 0


def _wish(words: list[str]) -> dict[str, Any]:
    """The request's fields; raises CommandError."""
    if not words:
        return {}
    *triggers, state = words
    if state not in ("on", "off") or len(triggers) > 1 or not set(triggers) <= {*TRIGGERS, "all"}:
        raise CommandError(
            f"`serval migrate auto {' '.join(words)}`: what is wanted is `on` or `off`, alone for all triggers or "
            f"after one of {', '.join(TRIGGERS)}",
            2,
        )
    fields: dict[str, Any] = {"on": state == "on"}
    if triggers and triggers != ["all"]:
        fields["trigger"] = triggers[0]
    return fields


def _congestion(client: Client, options: argparse.Namespace) -> int:
    fields = {} if options.state is None else {"state": options.state}
    answer = client.request("migrate_congestion", **fields)
    if options.json:
        print_json(answer)
    elif answer["state"] == "keep":
        print("keep: what a lost path swallowed is sent again, and the congestion window stays")
    else:
        print("reset: what a lost path swallowed is left to the kernel, which starts slowly")
    return 0
