"""`serval events`: what the node's stack did, as lines of text or of JSON; the last ones, and with --follow what comes.

Times are those of the events: the machine's monotonic clock, which all hosts of a run share, and the wall clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime, timezone
from typing import Any

from serval_node.cli import arguments
from serval_node.cli.errors import CommandError
from serval_node.cli.event_text import EventWords
from serval_node.cli.output import clock
from serval_node.control.local import Client, ControlError

LAST = 50
_PAUSE = 0.1


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "events",
        help="what the node did, and with --follow what it does: connects, ends, moves, refusals",
        description="Print the node's last events, one line each; with --follow go on until Ctrl-C, also through the "
        "end and a new start of the node. A Blackout is the account of one move of a flow, a PeerBlackout that of "
        "one of its peer.",
    )
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what comes")
    parser.add_argument("--seconds", type=arguments.seconds, metavar="S", help="with --follow: end after this time")
    parser.add_argument(
        "--last", type=_count, default=LAST, metavar="N", help="begin with the last N events (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line, with both clocks")
    parser.add_argument(
        "--kind", action="append", metavar="KIND", help="only events of this kind, as FlowOpened; may be given again"
    )
    parser.add_argument("--service", metavar="NAME", help="only events of this service")
    parser.add_argument("--flow", type=_flow_id, metavar="FLOWID", help="only events of this flow")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) > 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 4096")
    return int(text)


def _flow_id(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 0xFFFFFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not a flowID; `serval flows` lists them")
    return int(text)


def events(client: Client, options: argparse.Namespace) -> int:
    """0; raises ControlError when the node does not answer at the beginning, or refuses a filter."""
    if options.seconds is not None and not options.follow:
        raise CommandError("--seconds says how long to --follow", 2)
    end = None if options.seconds is None else time.monotonic() + options.seconds
    follower = Follower(client, options)
    for line in follower.lines(options.last):
        print(line)
    try:
        while options.follow and (end is None or time.monotonic() < end):
            sys.stdout.flush()
            time.sleep(_PAUSE if end is None else max(0.0, min(_PAUSE, end - time.monotonic())))
            try:
                for line in follower.lines():
                    print(line)
            except ControlError as error:
                follower.wait(str(error))
    except KeyboardInterrupt:
        pass  # the usual way to end it
    return 0


class Follower:
    """Asks one node for its events, each once; after a new start of the node for those of the new one."""

    def __init__(self, client: Client, options: argparse.Namespace) -> None:
        self._client = client
        self._as_json = options.json
        asked = {"kinds": options.kind, "service": options.service, "flow_id": options.flow}
        self._filter = {key: value for key, value in asked.items() if value is not None}
        self._name = self._client.request("status")["name"]
        hosts = self._client.request("hosts")["hosts"]
        self._words = EventWords({address: name for name, address in hosts.items()})
        self._boot, self._number = "", 0
        # What makes seconds of the epoch of the node's times; kept, so that equal times stay equal.
        self._wall: float | None = None
        self._trouble = False

    def lines(self, last: int | None = None) -> list[str]:
        """A line for each new event, at the beginning for the `last` ones only."""
        fields = dict(self._filter) if last is None else {**self._filter, "last": last}
        answer = self._client.request("events", after=self._number, **fields)
        if self._boot not in ("", answer["boot"]):
            self._number = 0
            answer = self._client.request("events", after=0, **fields)
        if self._trouble:
            self._trouble = False
            _remark(f"the node of {self._name} answers again")
        if last is None and answer["missed"]:
            _remark(f"{answer['missed']} events came faster than they could be shown")
        self._boot, self._number = answer["boot"], answer["number"]
        if self._wall is None:
            self._wall = time.time() - answer["now"]
        return [self._line(event, self._wall) for event in answer["events"]]

    def wait(self, reason: str) -> None:
        """The node does not answer: say so once."""
        if not self._trouble:
            _remark(f"{reason}; waiting for it")
        self._trouble = True

    def _line(self, event: dict[str, Any], wall: float) -> str:
        at = event["time"] + wall
        if not self._as_json:
            return f"{clock(at)}  {event['event']:<14}  {self._words.text(event)}"
        stamp = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="microseconds")
        return json.dumps({"host": self._name, "wall": stamp, **event})


def _remark(text: str) -> None:
    print(f"serval: {text}", file=sys.stderr, flush=True)
