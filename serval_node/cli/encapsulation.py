"""`serval encapsulation`: say, or choose, which peers get their packets inside UDP (S52)."""

from __future__ import annotations

import argparse
from typing import Any

from serval_node.cli.errors import CommandError
from serval_node.cli.output import columns, print_json
from serval_node.control.local import Client

_MEANINGS = {
    "raw": "packets are raw, IP protocol 144",
    "udp": "packets go inside UDP",
    "auto": "packets are raw; a peer that does not answer them gets them inside UDP",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "encapsulation",
        parents=[as_json],
        help="which packets go inside UDP, for NATs and networks that drop IP protocol 144",
        description="Say, or choose, what goes inside UDP. The choice is for connections that begin and flows that "
        "move; what comes is always answered in its own form.",
    )
    parser.add_argument(
        "mode",
        nargs="?",
        choices=(*_MEANINGS, "default"),
        help="raw, udp, or auto (raw first, both forms when nobody answers); default takes back what --peer chose",
    )
    parser.add_argument(
        "--peer", metavar="NETWORK", help="choose for an address or network (10.0.0.0/8) only; the longest one decides"
    )


def encapsulation(client: Client, options: argparse.Namespace) -> int:
    if options.mode == "default" and options.peer is None:
        raise CommandError("default needs --peer: it takes back what was chosen for that network", 2)
    fields = {key: value for key, value in (("mode", options.mode), ("peer", options.peer)) if value is not None}
    answer = client.request("encapsulation", **fields)
    if options.json:
        print_json(answer)
    else:
        print(text(answer))
    return 0


def text(answer: dict[str, Any]) -> str:
    lines = [f"{answer['mode']}: {_MEANINGS[answer['mode']]}"]
    rows: list[list[object]] = [[peer, mode, "chosen"] for peer, mode in sorted(answer["peers"].items())]
    rows += [[peer, "udp", "did not answer raw packets"] for peer in sorted(answer["learned"])]
    if rows:
        lines.append(columns(["PEER", "FORM", "WHY"], rows))
    return "\n".join(lines)
