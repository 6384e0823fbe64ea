"""`serval load`: how busy this host is with a service that it serves, counted or as its instance says."""

from __future__ import annotations

import argparse
from typing import Any

from serval_node.cli.output import print_json
from serval_node.control.local import Client

COUNTED = "flows"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "load",
        parents=[as_json],
        help="how busy this host is with a service that it serves, for policies that look at it",
        description="Say how busy this host is with a service that it serves. The load is the number of open flows, "
        "unless the instance says something else: any number, lower is better. It holds for as long as the service is "
        "served here. Policies such as least-loaded and two-choices go by it.",
    )
    parser.add_argument("service", metavar="SERVICE", help="a service that is served here")
    parser.add_argument(
        "figure",
        nargs="?",
        type=_figure,
        metavar="FIGURE",
        help=f"a number in the place of the open flows; {COUNTED}: count these again; without: say how it is",
    )


def _figure(text: str) -> float | str:
    try:
        return COUNTED if text == COUNTED else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {COUNTED!r}") from None


def load(client: Client, options: argparse.Namespace) -> int:
    """Print the load, after the change if there is one to make."""
    fields: dict[str, Any] = {}
    if options.figure is not None:
        fields["figure"] = None if options.figure == COUNTED else options.figure
    answer = client.request("load", service=options.service, **fields)
    print_json(answer) if options.json else print(load_text(answer))
    return 0


def load_text(answer: dict[str, Any]) -> str:
    """The figure that counts, and where it comes from."""
    flows = f"{answer['flows']} open flow{'' if answer['flows'] == 1 else 's'}"
    return f"load {flows}" if answer["figure"] is None else f"load {answer['figure']:g}, by the instance; {flows}"
