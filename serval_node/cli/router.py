"""`serval router`: whether this host has found a service router, or works by itself (host-only mode)."""

from __future__ import annotations

import argparse
import time
from typing import Any

from serval_node.cli.output import print_json
from serval_node.control.local import Client

_PAUSE = 0.02
_LIMIT = 5.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "router",
        parents=[as_json],
        help="the service router that this host found on its links, or host-only mode",
        description="Say how the search for a service router stands, or switch it on (again) and wait for its end, or "
        "off. What is found becomes the default rule; the rules of the controller and those made by hand go before.",
    )
    parser.add_argument(
        "state", nargs="?", choices=("on", "off"), help="search (anew), or do not; without: say how it is"
    )


def router(client: Client, options: argparse.Namespace) -> int:
    """Print how it stands; a search that was begun here is waited for."""
    fields = {} if options.state is None else {"find": options.state == "on"}
    answer = client.request("router", **fields)
    deadline = time.monotonic() + _LIMIT
    while options.state == "on" and answer["state"] == "searching" and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        answer = client.request("router")
    print_json(answer) if options.json else print(router_text(answer))
    return 0


def router_text(answer: dict[str, Any]) -> str:
    """The state of the search, and where SYNs go that no longer rule matches."""
    if answer["is_router"]:
        return f"this node is a service router; it has answered {answer['answered']} hosts' questions for one"
    text = {
        "off": "this host looks for no service router (serval router on)",
        "searching": "this host is looking for a service router on its links",
        "host-only": "host-only mode: no service router on the links has answered; now and then they are asked again",
        "controller": "this host has a controller, and looks for no service router by itself",
    }.get(answer["state"])
    if text is None:
        text = (
            f"service router {answer['name'] or 'without a name'}, {answer['router']}:"
            f" found {answer['found']:.1f} s ago, heard {answer['heard']:.1f} s ago"
        )
    return f"{text}\n{_DEFAULTS[answer['default']]}"


_DEFAULTS = {
    "router": "what no rule matches goes to it",
    "adhoc": "what no rule matches goes to everyone on the links (serval adhoc)",
    "controller": "what no other rule matches meets the controller's default rule",
    "hand": "what no other rule matches meets the default rule made by hand",
    None: "what no rule matches fails at once",
}
