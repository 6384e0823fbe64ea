"""`serval adhoc`: whether SYNs that no rule matches go to everyone on the link (slide 38)."""

from __future__ import annotations

import argparse
from typing import Any

from serval_node.cli.output import print_json
from serval_node.control.local import Client


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "adhoc",
        parents=[as_json],
        help="ad hoc mode: services are found by broadcast, without service router and controller",
        description="Say, or set, whether a SYN that no rule matches goes to everyone on the links, and whether this "
        "host answers such SYNs of others. The rules of the controller and those made by hand go before.",
    )
    parser.add_argument("state", nargs="?", choices=("on", "off"), help="set it; without: say how it is")
    parser.add_argument(
        "--relay",
        choices=("on", "off"),
        help="send what others ask, and is not served here, on over the other links (as before; at first off)",
    )
    parser.add_argument(
        "--hops",
        type=int,
        metavar="N",
        help="how many links a SYN may cross, of this host or by it as a relay, 1 to 19 (as before; at first 8)",
    )


def adhoc(client: Client, options: argparse.Namespace) -> int:
    """Print how it is, after the change if there is one to make."""
    fields: dict[str, Any] = {}
    if options.state is not None:
        fields["on"] = options.state == "on"
    if options.relay is not None:
        fields["relay"] = options.relay == "on"
    if options.hops is not None:
        fields["hops"] = options.hops
    answer = client.request("adhoc", **fields)
    print_json(answer) if options.json else print(adhoc_text(answer))
    return 0


def adhoc_text(answer: dict[str, Any]) -> str:
    """The mode in a few lines."""
    if not answer["on"]:
        return "ad hoc mode is off: what no rule matches fails at once, and SYNs by broadcast are not answered"
    relay = "SYNs of others are relayed" if answer["relay"] else "SYNs of others are not relayed"
    lines = [f"ad hoc mode is on; hop limit {answer['hops']}; {relay}"]
    lines += [f"  {link['interface']}: {link['address']}, broadcast {link['broadcast']}" for link in answer["links"]]
    if not answer["links"]:
        lines.append("  no link of this host is up and has a broadcast address")
    lines.append(_DEFAULTS[answer["default"]])
    return "\n".join(lines)


_DEFAULTS = {
    "adhoc": "what no rule matches goes to everyone on these links",
    "router": "what no rule matches goes to the service router that was found (serval router)",
    "controller": "what no other rule matches meets the controller's default rule",
    "hand": "what no other rule matches meets the default rule made by hand",
    None: "what no rule matches fails at once",
}
