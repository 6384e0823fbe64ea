"""`serval rule`: this node's rules by hand, as `servicectl` has them for every node."""

from __future__ import annotations

import argparse
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from serval_node.cli.errors import CommandError
from serval_node.cli.output import print_json
from serval_node.control.local import Client
from serval_node.control.rules import (
    PROTOCOLS,
    SELECTORS,
    MessageError,
    RuleSpec,
    forward,
    selector_name,
    target_parts,
)

_EXPECT = {"add": "absent", "change": "present"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "rule",
        help="add, change or remove a rule of this node by hand",
        description="Add, change or remove a rule of this node. It stands above the controller's for the same prefix; "
        "`serval table` lists all. servicectl does the same at any node.",
    )
    kinds = parser.add_subparsers(dest="change", required=True, metavar="WHAT")
    for kind, text in {"add": "a rule where none is yet", "change": "another rule in the place of one"}.items():
        changed = kinds.add_parser(kind, help=text, description=f"Put {text}.")
        _add_service(changed)
        actions = changed.add_subparsers(dest="action", required=True, metavar="ACTION")
        sent_on = actions.add_parser("forward", parents=[as_json], help="send first packets on")
        sent_on.add_argument("targets", nargs="+", metavar="ADDRESS[*WEIGHT][@PRIORITY]", help="next hops")
        sent_on.add_argument(
            "--selector",
            type=selector_name,
            choices=SELECTORS,
            default=SELECTORS[0],
            help="how one is chosen; all: each",
        )
        demux = actions.add_parser("demux", parents=[as_json], help="give them to what listens on a port here")
        demux.add_argument("port", type=int, metavar="PORT", help="a kernel port on which something listens")
        demux.add_argument("--protocol", choices=sorted(PROTOCOLS), default="tcp", help="of the listener")
        others = [
            actions.add_parser("delay", parents=[as_json], help="let them wait for a decision"),
            actions.add_parser("drop", parents=[as_json], help="throw them away"),
        ]
        for action in (sent_on, demux, *others):
            action.add_argument("--idle", type=float, metavar="S", help="end the rule after S seconds without a packet")
            action.add_argument("--hard", type=float, metavar="S", help="end the rule after S seconds")
    removed = kinds.add_parser("remove", parents=[as_json], help="a rule made by hand or by the controller")
    _add_service(removed)


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", help="name, name:port, *.block, hex/bits, decimal or default")


def rule(client: Client, options: argparse.Namespace) -> int:
    """Carry it out; what is printed of a removed rule are its last counters."""
    if options.change == "remove":
        removed = client.request("rule_remove", prefix=options.service)["rule"]
        print_json(removed) if options.json else print(removed_text(removed))
        return 0
    fields: dict[str, Any] = {"targets": _targets(options), "expect": _EXPECT[options.change]}
    if options.action == "forward":
        fields["selector"] = options.selector
    for key, seconds in (("idle_timeout", options.idle), ("hard_timeout", options.hard)):
        if seconds is not None:
            fields[key] = seconds
    answer = client.request("rule_set", prefix=options.service, **fields)
    if options.json:
        print_json(answer)
    return 0


def _targets(options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.action == "demux":
        return [{"action": "demux", "port": options.port, "protocol": options.protocol}]
    if options.action != "forward":
        return [{"action": options.action}]
    targets = []
    for text in options.targets:
        try:
            address, weight, priority = target_parts(text)
            targets.append(forward(str(IPv4Address(address)), weight=weight, priority=priority).to_json())
        except AddressValueError:
            raise CommandError(f"{text!r} does not begin with an IPv4 address") from None
        except MessageError as error:
            raise CommandError(str(error)) from None
    return targets


def removed_text(body: dict[str, Any]) -> str:
    """What a rule had done until its removal."""
    spec = RuleSpec.from_json(body)
    packets, dropped = (sum(getattr(item, key) for item in spec.targets) for key in ("packets", "dropped_packets"))
    what = ", ".join(str(item) for item in spec.targets)
    return f"removed {spec.name or spec.prefix} -> {what}: {packets} packets, {dropped} dropped"
