"""`serval explain`: which rules a SYN would meet, here and at the next hosts. Nothing is sent or counted."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from serval_node.cli.explain_rules import NETWORK, PROGRAM, Step, TargetView, decide
from serval_node.cli.output import print_json
from serval_node.cli.trace import OTHER_NODES
from serval_node.control.local import Client, ControlError
from serval_node.wire.sal_header import MAX_SOURCES
from serval_node.wire.serviceid import Prefix

Node = dict[str, Any]
"""{"name", "role", "addresses", "entries"} of one node."""


class Walk:
    """Follows FORWARD targets from table to table; each node is shown once for each side from which SYNs come.

    `node_at` gives the node that has an address, None where nothing can be seen; `names` are hosts by address.
    """

    def __init__(self, own: Node, node_at: Callable[[str], Node | None], names: dict[str, str]) -> None:
        self.steps: list[Step] = []
        self._own = own
        self._node_at = node_at
        self._names = names
        self._seen: set[tuple[str, str]] = set()

    def run(self) -> list[Step]:
        self._visit(self._own, PROGRAM, None, ())
        return self.steps

    def _visit(self, node: Node, side: str, address: str | None, path: tuple[str, ...]) -> None:
        step = decide(node["name"], node["role"], side, address, node["entries"])
        self.steps.append(step)
        self._seen.add((node["name"], address or ""))
        for rule in step.rules:
            for target in rule.targets:
                if target.action == "forward" and target.chosen_from:
                    self._follow(target, address, path)

    def _follow(self, target: TargetView, address: str | None, path: tuple[str, ...]) -> None:
        """`path` are the service routers' addresses so far, without this one; the client's stands before them."""
        if address is not None:
            path = (*path, address)
            if len(path) + 1 > MAX_SOURCES:
                _fail(target, f"the SOURCE list is full ({MAX_SOURCES} addresses), dropped without an answer")
                return
        where = target.where
        known = self._names.get(where)
        if where in path or (path and where in self._own["addresses"] and self._own["role"] == "router"):
            _fail(target, f"loop: back to {known or where}, whose FORWARD finds itself in the SOURCE list")
            return
        node = self._node_at(where)
        if node is None:
            target.next = known
            target.outcome += f" ({known})" if known else ""
            target.outcome += "; its table cannot be seen from here"
            return
        target.next = node["name"]
        target.outcome += f" ({node['name']})"
        if (node["name"], where) not in self._seen:
            self._visit(node, NETWORK, where, path)


def _fail(target: TargetView, why: str) -> None:
    target.outcome, target.errno = f"fail: {why}; connect() times out", "ETIMEDOUT"


def explain(client: Client, service: str, *, as_json: bool) -> int:
    """Print what would happen to a SYN for `service`; raises ControlError when the text names no service."""
    entries = client.request("table", service=service)["entries"]
    # The bits behind a bind's prefix are zero in the serviceID that a connect asks for.
    raw = Prefix.from_text(client.request("resolve", service=service)["prefix"]).raw
    service_id = "0x" + raw.hex()
    own = {**client.request("status"), "entries": entries}
    names = {address: name for name, address in client.request("hosts")["hosts"].items()}
    others = Others(own, service_id)
    steps = Walk(own, others.node_at, names).run()
    if as_json:
        print_json({"service": service, "service_id": service_id, "steps": [asdict(step) for step in steps]})
    else:
        print(explain_text(service, service_id, steps))
    return 0


class Others:
    """The nodes whose control sockets are within reach, found when the first FORWARD asks for one."""

    def __init__(self, own: Node, service_id: str) -> None:
        self._own = own
        self._service_id = service_id
        self._paths: dict[str, str] | None = None

    def node_at(self, address: str) -> Node | None:
        if address in self._own["addresses"]:
            return self._own
        if self._paths is None:
            self._paths = _paths()
        path = self._paths.get(address)
        if path is None:
            return None
        try:
            with Client(path, timeout=1.0) as other:
                status = other.request("status")
                return {**status, "entries": other.request("table", service=self._service_id)["entries"]}
        except ControlError:
            return None  # it went down meanwhile: not to be seen, like one that was never there


def _paths() -> dict[str, str]:
    found = {}
    for path in sorted(glob.glob(OTHER_NODES)):
        try:
            with Client(path, timeout=1.0) as other:
                found.update(dict.fromkeys(other.request("status")["addresses"], path))
        except ControlError:
            continue  # a node that is down resolves nothing
    return found


def explain_text(service: str, service_id: str, steps: list[Step]) -> str:
    """The steps for people, each node's rules below its name."""
    short = service_id.rstrip("0") if service_id.rstrip("0") != "0x" else "0x0"
    lines = [f"connect({service}), serviceID {short}{'...' if len(short) < 66 else ''}"]
    for step in steps:
        came = "a SYN of its own program" if step.side == PROGRAM else f"a SYN that comes to {step.address}"
        lines += ["", f"{step.host} ({step.role}), {came}:"]
        if not step.rules:
            lines.append("  no rule matches")
        for rule in step.rules:
            lines.append(f"  {'wins ' if rule.wins else 'loses'}  {rule.service}: {rule.why}")
            lines += [f"         {_target_text(target)}" for target in rule.targets]
        if step.outcome:
            lines.append(f"  => {step.outcome} ({step.errno})")
    return "\n".join(lines)


def _target_text(target: TargetView) -> str:
    share = "" if target.share is None or target.share == 1 else f", {target.share:.0%} of SYNs"
    head = f"{target.action.upper()} {target.where}".rstrip()
    numbers = f"priority {target.priority}, weight {target.weight}, load {target.load:g}{share}, by {target.origin}"
    end = f" ({target.errno})" if target.errno else ""
    return f"{head} ({numbers}) => {target.outcome}{end}"
