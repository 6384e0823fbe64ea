"""`serval mode`: which targets of a rule are used, and whether this host is a service router."""

from __future__ import annotations

import argparse
from typing import Any

from serval_node.cli.output import print_json
from serval_node.control.local import Client
from serval_node.control.rules import RESOLUTION_MODES


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "mode",
        parents=[as_json],
        help="the resolution mode, and whether this host is a service router",
        description="Say, or set, which targets of a rule a first packet gets. anycast: one, by the rule's selector. "
        "all: each FORWARD target a copy. demux-only, forward-only: as all, of this kind only.",
    )
    parser.add_argument("mode", nargs="?", choices=RESOLUTION_MODES, help="set it; without: say how it is")
    parser.add_argument("--forwarding", choices=("on", "off"), help="be a service router, or be none")


def mode(client: Client, options: argparse.Namespace) -> int:
    """Print how it is, after the change if there is one to make."""
    fields: dict[str, Any] = {}
    if options.mode is not None:
        fields["mode"] = options.mode
    if options.forwarding is not None:
        fields["forwarding"] = options.forwarding == "on"
    answer = client.request("mode", **fields)
    print_json(answer) if options.json else print(mode_text(answer))
    return 0


def mode_text(answer: dict[str, Any]) -> str:
    role = "a service router" if answer["forwarding"] else "no service router"
    total, service, source = answer["delay_limits"]
    limits = f"DELAY keeps {total} packets, {service} for one service, {source} from one sender"
    return f"resolution mode {answer['mode']}; this host is {role}; {limits}"
