"""`serval explain`: which rules a SYN would meet, here and at the next hosts. Nothing is sent or counted.

Each node is asked what it would do (`explain` of the control socket); here a SYN that nobody sends is carried on from
one to the next, with the client's address and the SOURCE list that it would have there.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from serval_node.cli.explain_text import Step, TargetView, explain_text, step_of
from serval_node.cli.output import print_json
from serval_node.cli.trace import OTHER_NODES
from serval_node.control.local import Client, ControlError

Answer = Mapping[str, Any]
Ask = Callable[[str, str, list[str]], "Answer | None"]
"""(address, client, SOURCE list) of a SYN that arrives -> what the node with that address says; None: out of reach."""


class Walk:
    """Follows FORWARD targets from node to node; each is shown once for each address at which SYNs come.

    `own` is the answer of the node where the program connects; `names` are hosts by address.
    """

    def __init__(self, own: Answer, ask: Ask, names: Mapping[str, str]) -> None:
        self.steps: list[Step] = []
        self._own = own
        self._ask = ask
        self._names = names
        self._seen: set[tuple[str, str | None]] = set()

    def run(self) -> list[Step]:
        self._visit(self._own, None)
        return self.steps

    def _visit(self, answer: Answer, address: str | None) -> None:
        step = step_of(answer, address)
        self.steps.append(step)
        self._seen.add((step.host, address))
        for rule, view in zip(answer["rules"], step.rules, strict=True):
            for target, shown in zip(rule["targets"], view.targets, strict=True):
                sent_on = target["standing"] == "candidate" and target["refusal"] is None
                if sent_on and target["action"] == "forward" and not target["everyone"]:
                    self._follow(target, shown)

    def _follow(self, target: Mapping[str, Any], shown: TargetView) -> None:
        answer = self._ask(shown.where, target["client"], target["sources"])
        if answer is None:
            shown.next = self._names.get(shown.where)
            shown.outcome += f" ({shown.next})" if shown.next else ""
            shown.outcome += "; its table cannot be seen from here"
            return
        shown.next = answer["name"]
        if _refuses(answer, "routing_loop"):
            shown.outcome = (
                f"fail: loop: back to {shown.next}, whose FORWARD finds itself in the SOURCE list; connect() times out"
            )
            shown.errno = "ETIMEDOUT"
            return
        shown.outcome += f" ({shown.next})"
        if (shown.next, shown.where) not in self._seen:
            self._visit(answer, shown.where)


def _refuses(answer: Answer, reason: str) -> bool:
    """Whether a node would refuse a SYN for this reason whatever its selector chose."""
    found = {
        target["refusal"] for rule in answer["rules"] for target in rule["targets"] if target["standing"] == "candidate"
    }
    return found == {reason}


def explain(client: Client, service: str, *, as_json: bool) -> int:
    """Print what would happen to a SYN for `service`; raises ControlError when the text names no service."""
    own = client.request("explain", service=service)
    names = {address: name for name, address in client.request("hosts")["hosts"].items()}
    service_id = own["service_id"]
    steps = Walk(own, Others(client, own["addresses"], service_id).ask, names).run()
    if as_json:
        print_json({"service": service, "service_id": service_id, "steps": [asdict(step) for step in steps]})
    else:
        print(explain_text(service, service_id, steps))
    return 0


class Others:
    """The nodes whose control sockets are within reach, found when the first FORWARD asks for one."""

    def __init__(self, own: Client, own_addresses: list[str], service_id: str) -> None:
        self._own = own
        self._own_addresses = own_addresses
        self._service_id = service_id
        self._paths: dict[str, str] | None = None

    def ask(self, address: str, client: str, sources: list[str]) -> Answer | None:
        """What the node with this address says of a SYN that arrives there."""
        syn = {"service": self._service_id, "client": client, "received_at": address, "sources": sources}
        if address in self._own_addresses:
            return self._own.request("explain", **syn)
        if self._paths is None:
            self._paths = _paths()
        path = self._paths.get(address)
        if path is None:
            return None
        try:
            with Client(path, timeout=1.0) as other:
                return other.request("explain", **syn)
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
