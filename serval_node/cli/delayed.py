"""`serval delayed`: what waits under DELAY, and verdicts on it."""

from __future__ import annotations

import argparse
from typing import Any

from serval_node.cli.errors import CommandError
from serval_node.cli.output import columns, print_json
from serval_node.control.local import Client
from serval_node.control.messages import VERDICTS

_VERDICTS = {
    "release": "let it meet the rules again",
    "drop": "throw it away",
    "refuse": 'throw it away, and let its connects fail with "Connection refused"',
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "delayed",
        parents=[as_json],
        help="what waits under DELAY, and verdicts on it",
        description="List the first packets that wait here under DELAY, or decide about those of a service. "
        + " ".join(f"{name}: {_VERDICTS[name]}." for name in VERDICTS),
    )
    parser.add_argument("verdict", nargs="?", choices=VERDICTS, help="what becomes of what waits; without: list it")
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="for a verdict: the service, or a block of them")


def delayed(client: Client, options: argparse.Namespace) -> int:
    """List, or decide; raises ControlError when nothing waits, or when it waits again."""
    if options.verdict is None:
        rows = client.request("delayed")["delayed"]
        print_json(rows) if options.json else print(delayed_text(rows))
        return 0
    if options.service is None:
        raise CommandError(f"which service? serval delayed {options.verdict} SERVICE", 2)
    answer = client.request("delay_verdict", service=options.service, verdict=options.verdict)
    if options.json:
        print_json(answer)
    return 0


def delayed_text(rows: list[dict[str, Any]]) -> str:
    """One line for each packet, those of a service together."""
    lines = [
        [
            row["service"] if number == 0 else "",
            item["client"] or "this host",
            item["flow_id"] or "-",
            f"{item['seconds']:.1f} s",
            row["rule"],
        ]
        for row in rows
        for number, item in enumerate(row["waiting"])
    ]
    return columns(["SERVICE", "CLIENT", "FLOW", "FOR", "BY RULE"], lines)
