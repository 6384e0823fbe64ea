"""`servicectl`: the service controller by hand. Tables at a terminal and in scripts alike, --json for machines.

    servicectl nodes | services | delayed | switches | status
    servicectl rules NODE [SERVICE]
    servicectl resolve NODE SERVICE
    servicectl stat NODE
    servicectl flows NODE [FLOWID...]
    servicectl mode NODE [MODE] [--forwarding on|off]
    servicectl add NODE SERVICE forward TARGET... [--selector SELECTOR]
    servicectl add NODE SERVICE demux PORT | delay | drop
    servicectl change NODE SERVICE ...            as add
    servicectl remove NODE SERVICE
    servicectl policy SERVICE [POLICY] [NODE=WEIGHT...]
    servicectl release | drop | refuse [NODE] SERVICE
    servicectl unknown [PREFIX [start | resolve | refuse | MODULE:FUNCTION | off]]
    servicectl start [NODE] SERVICE
    servicectl migrate NODE flow|interface|service WHICH TO

Exit status: 0 done (for changes: acknowledged by the node), 1 refused or no controller (one line on standard error says
why), 2 wrong usage. A policy for a service that nobody serves yet is kept, and standard error says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from controllers.policies import POLICIES
from serval_node.control.local import Client, ControlError
from serval_node.control.messages import MIGRATE_KINDS
from serval_node.control.rules import PROTOCOLS, RESOLUTION_MODES, SELECTORS, selector_name

SOCKET = "/run/testbed/controller.sock"
SOCKET_VARIABLE = "SERVICECTL_SOCKET"
TIMEOUT = 15.0


class _Command(argparse.ArgumentParser):
    """One command. Words that are none of its own are answered by its usage, not the whole program's."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        options, strange = super().parse_known_args(args, namespace)
        if strange:
            self.error(f"unrecognized arguments: {' '.join(strange)}")
        return options, strange


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="servicectl", description="The service controller by hand.")
    root.add_argument("--json", action="store_true", help="print the answer as JSON")
    root.add_argument(
        "--socket",
        default=os.environ.get(SOCKET_VARIABLE, SOCKET),
        metavar="PATH",
        help=f"the controller's control socket (default ${SOCKET_VARIABLE}, else {SOCKET})",
    )
    # Also after the command; its default must not overwrite what stood before it.
    common = _Command(add_help=False)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = root.add_subparsers(dest="op", required=True, metavar="COMMAND", parser_class=_Command)
    for name, text in {
        "status": "whether the controller knows all nodes and switches",
        "nodes": "connected nodes, what they serve, and how many rules they refused",
        "services": "registered services, their policies, routers and instances",
        "delayed": "services for which first packets wait under DELAY",
        "switches": "the switch fabric: links and stations of each switch",
    }.items():
        commands.add_parser(name, help=text, parents=[common])
    for name, text in {
        "rules": "the service table of a node, or what a SYN for a service could meet there",
        "resolve": "which rule a SYN of a node's programs would meet, and its targets; sends nothing",
        "stat": "a node's counters, and its flows for each service",
        "flows": "a node's flows with their counters",
        "mode": "a node's resolution mode, and whether it is a service router; or set them",
    }.items():
        _NODE_ARGUMENTS[name](_node(commands.add_parser(name, help=text, parents=[common])))
    for name, text in {"add": "add a rule by hand", "change": "put another hand-made rule in the place of one"}.items():
        _rule_arguments(commands.add_parser(name, help=text, parents=[common]), common)
    _node_and_service(
        commands.add_parser("remove", help="remove a hand-made rule; the policy's rule returns", parents=[common])
    )
    for name, text in {
        "release": "let the first packets that wait for a service meet the rules again",
        "drop": "throw away the first packets that wait for a service",
        "refuse": "the same, and their connects fail at once",
        "start": "start a program that a node offers for a service (serval standby)",
    }.items():
        parser = commands.add_parser(name, help=text, parents=[common])
        parser.add_argument("node", nargs="?", metavar="NODE", help="only at this node")
        parser.add_argument("service", metavar="SERVICE", help="a service, or a whole block such as '*.example'")
    unknown = commands.add_parser(
        "unknown",
        help="who decides about first packets for services that nobody serves",
        description="Let first packets for unknown services of PREFIX wait, and ask DECIDER about each service: "
        "start (an instance that a host offers), resolve (to registered instances), refuse, or MODULE:FUNCTION.",
        parents=[common],
    )
    unknown.add_argument("service", nargs="?", metavar="PREFIX", help="a block such as '*.example', or a service")
    unknown.add_argument("decider", nargs="?", metavar="DECIDER", help="who decides; off: nobody. Without: list them")
    migrate = commands.add_parser("migrate", help="move flows of a node to another of its addresses", parents=[common])
    migrate.add_argument("node", metavar="NODE", help="name or address of the node")
    migrate.add_argument("kind", choices=MIGRATE_KINDS, help="what WHICH names")
    migrate.add_argument("which", metavar="WHICH", help="a flowID of the node, an interface or address, or a service")
    migrate.add_argument("to", metavar="TO", help="an interface or address of the node")
    policy = commands.add_parser("policy", help="show or set how SYNs are spread", parents=[common])
    policy.add_argument("service", metavar="SERVICE", help="a service, or a whole block such as '*.example'")
    policy.add_argument(
        "policy",
        nargs="?",
        metavar="POLICY",
        help=f"{', '.join(POLICIES)}, or one of yours as FILE.py or FILE.py:CLASS; without it, show what holds",
    )
    policy.add_argument(
        "weights",
        nargs="*",
        metavar="NODE=WEIGHT",
        help="a weight in the place of what the instance asks for (its listeners)",
    )
    policy.set_defaults(usage_error=policy.error)
    return root


def _node(command: _Command) -> _Command:
    command.add_argument("node", metavar="NODE", help="name or address of the node")
    return command


def _one_service(command: _Command) -> None:
    command.add_argument("service", metavar="SERVICE", help="name, name:port, hex or decimal")


def _maybe_service(command: _Command) -> None:
    command.add_argument("service", nargs="?", metavar="SERVICE", help="name, name:port, hex or decimal")


def _flow_ids(command: _Command) -> None:
    command.add_argument("flows", nargs="*", type=int, metavar="FLOWID", help="only these")


def _mode_arguments(command: _Command) -> None:
    command.add_argument("mode", nargs="?", choices=RESOLUTION_MODES, help="set it; without: say how it is")
    command.add_argument("--forwarding", choices=("on", "off"), help="be a service router, or be none")


_NODE_ARGUMENTS: dict[str, Callable[[_Command], None]] = {
    "rules": _maybe_service,
    "resolve": _one_service,
    "stat": lambda command: None,
    "flows": _flow_ids,
    "mode": _mode_arguments,
}


def _node_and_service(command: _Command) -> None:
    command.add_argument("node", metavar="NODE", help="name or address of the node")
    command.add_argument("service", metavar="SERVICE", help="name, name:port, hex/bits, decimal or default")


def _rule_arguments(command: _Command, common: _Command) -> None:
    _node_and_service(command)
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    forward = actions.add_parser("forward", help="send first packets on", parents=[common])
    forward.add_argument("targets", nargs="+", metavar="ADDRESS[*WEIGHT][@PRIORITY]", help="address or name of a node")
    forward.add_argument(
        "--selector",
        type=selector_name,
        choices=SELECTORS,
        default=SELECTORS[0],
        help="how one of several targets is chosen for each SYN",
    )
    demux = actions.add_parser("demux", help="deliver to a local listener", parents=[common])
    demux.add_argument("port", type=int, metavar="PORT", help="kernel port of the listener")
    demux.add_argument("--protocol", choices=sorted(PROTOCOLS), default="tcp", help="of the listener")
    delay = actions.add_parser("delay", help="queue first packets and tell the controller", parents=[common])
    drop = actions.add_parser("drop", help="discard first packets", parents=[common])
    for action in (forward, demux, delay, drop):
        action.add_argument(
            "--idle", dest="idle_timeout", type=float, metavar="S", help="end the rule after S seconds without a packet"
        )
        action.add_argument("--hard", dest="hard_timeout", type=float, metavar="S", help="end the rule after S seconds")


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """The request that these arguments mean."""
    request = {
        key: value
        for key, value in vars(options).items()
        if key not in ("json", "socket", "usage_error") and value is not None
    }
    if options.op == "mode" and "forwarding" in request:
        request["forwarding"] = request["forwarding"] == "on"
    if options.op == "policy":
        weights = {}
        for text in request.pop("weights", []):
            node, _, weight = text.partition("=")
            if not node or not weight.isdigit():
                options.usage_error(f"{text!r} is not NODE=WEIGHT")
            weights[node] = int(weight)
        if weights:
            request["weights"] = weights
        path, colon, name = request.get("policy", "").partition(":")
        if path.endswith(".py"):
            # The controller has a directory of its own.
            request["policy"] = os.path.abspath(path) + colon + name
    return request


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns aligned, two spaces apart, no trailing blanks."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _words(items: Iterable[Any]) -> str:
    return " ".join(map(str, items)) or "-"


def _nodes(answer: Mapping[str, Any]) -> str:
    rows = [
        (n["name"], n["role"], _words(n["addresses"]), _words(n["serves"]), n["services"], n["rules"], n["refused"])
        for n in answer["nodes"]
    ]
    return table(("NODE", "ROLE", "ADDRESSES", "SERVES", "SERVICES", "RULES", "REFUSED"), rows)


def _services(answer: Mapping[str, Any]) -> str:
    rows = []
    for service in answer["services"]:
        head = (service["name"], service["policy"], _words(service["routers"]))
        for item in service["instances"]:
            load = "-" if item["load"] is None else f"{item['load']:g}"
            rows.append((*head, item["node"], item["address"], item["weight"], load))
            head = ("", "", "")
        for name in service.get("standbys", ()):
            rows.append((*head, name, "standby", "-", "-"))
            head = ("", "", "")
    return table(("SERVICE", "POLICY", "ROUTERS", "INSTANCE", "ADDRESS", "WEIGHT", "LOAD"), rows)


def _rules(answer: Mapping[str, Any]) -> str:
    rows: list[Sequence[Any]] = []
    for rule in answer["rules"]:
        head = (rule["name"], rule["origin"], rule["selector"])
        for target in rule["targets"]:
            where = target.get("address") or target.get("port") or "-"
            counters = (target.get("packets", 0), target.get("bytes", 0))
            dropped = target.get("dropped_packets", 0)
            note = f"refused: {rule['refused']}" if "refused" in rule else ""
            numbers = (target.get("priority", 1), target.get("weight", 1), *counters, dropped)
            rows.append((*head, target["action"].upper(), where, *numbers, note))
            head = ("", "", "")
    header = ("SERVICE", "ORIGIN", "SELECTOR", "ACTION", "TARGET", "PRIO", "WEIGHT", "PACKETS", "BYTES", "DROPPED", "")
    return table(header, rows)


def _delayed(answer: Mapping[str, Any]) -> str:
    rows = [(item["node"], item["service"], item["rule"], item["decider"] or "-") for item in answer["delayed"]]
    return table(("NODE", "SERVICE", "BY RULE", "DECIDER"), rows)


def _unknown(answer: Mapping[str, Any]) -> str:
    rows = [(item["prefix"], item["decider"], _words(item["nodes"])) for item in answer["unknown"]]
    return table(("PREFIX", "DECIDER", "WAITS AT"), rows)


def _resolve(answer: Mapping[str, Any]) -> str:
    if answer["rule"] is None:
        return f"no rule ({answer['refusal']})"
    rule = answer["rule"]
    shown = _rules({"rules": [{"name": rule.get("name") or rule["prefix"], **rule}]})
    return f"{shown}\nrefused: {answer['refusal']}" if answer["refusal"] else shown


def _stat(answer: Mapping[str, Any]) -> str:
    rows = [(item["name"], item["flows"], item["accepted"]) for item in answer["services"]]
    services = table(("SERVICE", "FLOWS", "ACCEPTED"), rows)
    return f"{services}\n\n{table(('COUNTER', 'VALUE'), sorted(answer['counters'].items()))}"


def _flows(answer: Mapping[str, Any]) -> str:
    rows = [
        (
            flow["flow_id"],
            flow["state"],
            f"{'<-' if flow['incoming'] else '->'} {flow['service'] or '-'}",
            *(flow[key] or "-" for key in ("local", "peer", "peer_flow")),
            *(flow[key] for key in ("packets_out", "bytes_out", "packets_in", "bytes_in")),
        )
        for flow in answer["flows"]
    ]
    numbers = ("PACKETS OUT", "BYTES OUT", "PACKETS IN", "BYTES IN")
    return table(("FLOWID", "STATE", "SERVICE", "LOCAL", "PEER", "PEER FLOW", *numbers), rows)


def _migrate(answer: Mapping[str, Any]) -> str:
    lines = [
        f"flow {flow['flow_id']} {'<-' if flow['incoming'] else '->'} {flow['service'] or '-'} moves"
        f" {flow['local']} -> {flow['moving_to'] or flow['local']}"
        for flow in answer["flows"]
    ]
    return "\n".join(lines)


def _mode(answer: Mapping[str, Any]) -> str:
    role = "service router" if answer["forwarding"] else "no service router"
    return f"{answer['mode']}, {role}, DELAY limits {_words(answer['delay_limits'])} (in all, a service, a sender)"


def _switches(answer: Mapping[str, Any]) -> str:
    rows = [
        (
            s["datapath_id"],
            _words(f"{a}->{b}" for a, b in s["links"].items()),
            _words(f"{port}->{s['links'][str(port)]}" for port in s["silent"]),
            len(s["stations"]),
        )
        for s in answer["switches"]
    ]
    return table(("SWITCH", "LINKS", "SILENT", "STATIONS"), rows)


def _status(answer: Mapping[str, Any]) -> str:
    lines = [f"nodes     {_words(answer.get('nodes', []))}"]
    if answer.get("relearning"):
        waiting = _words(answer["waiting_for"])
        lines.append(f"restart   keeps found rules: waits for {waiting}, {answer['grace_left']:.0f} s at most")
    if "switches" in answer:
        state = "ready" if answer["fabric_ready"] else "looking for links"
        lines.append(f"switches  {len(answer['switches'])}, {state}")
    elif "connected_switches" in answer:
        lines.append(f"switches  {len(answer['connected_switches'])}, ruled by other apps than the switch fabric")
    return "\n".join(lines)


def _policy(answer: Mapping[str, Any]) -> str:
    return _words([answer["name"], answer["policy"], *(f"{n}={w}" for n, w in answer["weights"].items())])


_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "status": _status,
    "nodes": _nodes,
    "services": _services,
    "rules": _rules,
    "delayed": _delayed,
    "unknown": _unknown,
    "resolve": _resolve,
    "stat": _stat,
    "flows": _flows,
    "migrate": _migrate,
    "mode": _mode,
    "switches": _switches,
    "policy": _policy,
}


def _check_flows(op: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """The node leaves out what it does not have; who asks by hand wants to know. Raises ControlError."""
    if op != "flows":
        return
    missing = sorted({*request["flows"]} - {flow["flow_id"] for flow in answer["flows"]})
    if missing:
        raise ControlError(
            f"{request['node']} has no flow {missing[0]}; `servicectl flows {request['node']}` lists them"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    request = request_of(options)
    op = request.pop("op")
    try:
        with Client(options.socket, timeout=TIMEOUT) as client:
            answer = client.request(op, **request)
        _check_flows(op, request, answer)
    except ControlError as error:
        print(f"servicectl: {error}", file=sys.stderr)
        return 1
    try:
        if options.json:
            print(json.dumps(answer, indent=1))
        elif op in _TEXTS:
            print(_TEXTS[op](answer))
            if "note" in answer:
                print(f"servicectl: {answer['note']}", file=sys.stderr)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
