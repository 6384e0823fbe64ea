"""`serval trace`: one connect as the slides tell it (slides 32 to 37), each step timed, and where it stopped if it did.

Every node keeps a log of what its stack did, with the machine's monotonic clock, which all hosts of a run
share. The steps at the service router and at the instance are read from theirs, where their control sockets are
within reach.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from serval_node.cli.connect import connect_socket, new_socket
from serval_node.cli.errors import CommandError
from serval_node.cli.event_text import EventWords
from serval_node.cli.explain_text import PASSED_OVER
from serval_node.cli.output import columns, print_json
from serval_node.control.local import Client, ControlError

OTHER_NODES = "/run/testbed/hosts/*/control.sock"
LAST_STEP_LIMIT = 1.0
_NEVER = 1e18
_EVERYONE = "everyone on "
_REPEATED = ("SynResolved", "SynSent", "SynForwarded", "SynFlooded", "SynDelayed", "Refused")
"""Steps that each retransmission of the SYN takes again."""

Event = Mapping[str, Any]
Logs = dict[str, list[dict[str, Any]]]
"""Host name -> what its node's event log says."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line: monotonic time in seconds, the host where it happened, what happened, and the event itself."""

    time: float
    host: str
    text: str
    event: Event


@dataclass(frozen=True, slots=True)
class Connect:
    """What is traced: the host, the flowID of its socket, the service in the user's words."""

    host: str
    flow_id: int
    service: str


def trace(client: Client, service: str, timeout: float, *, as_json: bool) -> int:
    """Connect once and print the steps; raises CommandError when the connect fails, ControlError for no service."""
    # Before a flowID is reserved: whether the text is a service at all.
    explained = client.request("explain", service=service)
    own = explained["name"]
    words = EventWords(_names(client))
    start = client.request("events", since=_NEVER)["now"]
    seconds: float | None = None
    failure: CommandError | None = None
    with new_socket() as sock:
        connect = Connect(own, sock.reserved_flow or 0, service)
        try:
            seconds = connect_socket(sock, service, timeout)
        except CommandError as error:
            failure = error
        logs = _collect(client, connect, start, words, connected=failure is None)
    steps = _with_passed_over(story(connect, logs, words), explained["service_id"], own)
    stopped = where_it_stopped(steps, set(logs), words) if failure is not None else None
    if as_json:
        shown = [{key: value for key, value in asdict(step).items() if key != "event"} for step in steps]
        why = None if failure is None else str(failure)
        print_json({"service": service, "seconds": seconds, "steps": shown, "stopped": stopped, "error": why})
    else:
        print(story_text(service, own, start, steps, seconds, stopped), flush=True)
    if failure is not None:
        raise failure
    return 0


def _names(client: Client) -> dict[str, str]:
    """Names by address: hosts, and the links on which SYNs are broadcast."""
    names = {address: name for name, address in client.request("hosts")["hosts"].items()}
    return names | {link["broadcast"]: _EVERYONE + link["interface"] for link in client.request("adhoc")["links"]}


def _collect(client: Client, connect: Connect, start: float, words: EventWords, *, connected: bool) -> Logs:
    """The logs, waited for until the instance has the third ACK: it may come after connect() has returned."""
    deadline = time.monotonic() + LAST_STEP_LIMIT
    while True:
        logs = {connect.host: client.request("events", since=start)["events"], **_other_logs(connect.host, start)}
        kinds = {step.event["event"] for step in story(connect, logs, words)}
        if not connected or "SynReceived" not in kinds or "FlowOpened" in kinds or time.monotonic() > deadline:
            return logs
        time.sleep(0.005)


def _other_logs(own: str, start: float) -> Logs:
    logs: Logs = {}
    for path in glob.glob(OTHER_NODES):
        name = path.split("/")[-2]
        if name == own:
            continue
        try:
            with Client(path, timeout=1.0) as other:
                logs[name] = other.request("events", since=start)["events"]
        except ControlError:
            continue  # a node that is down or being started has no part in this connect
    return logs


def _with_passed_over(steps: list[Step], service_id: str, own: str) -> list[Step]:
    """A host that forwards nothing logs "no rule" also where it has one for its own programs; the steps then say so."""
    matching: dict[str, str | None] = {}
    for step in steps:
        if _finds_no_rule(step.event) and step.host != own and step.host not in matching:
            matching[step.host] = _passed_over_at(step, service_id)
    return name_passed_over(steps, matching)


def _passed_over_at(step: Step, service_id: str) -> str | None:
    """The longest rule that matches at a host that found none for this SYN, None: none, or the host cannot be asked."""
    try:
        with Client(OTHER_NODES.replace("*", step.host), timeout=1.0) as node:
            address = node.request("status")["addresses"][0]
            syn = {"client": step.event["client"], "received_at": address, "sources": []}
            answer = node.request("explain", service=service_id, **syn)
    except (ControlError, IndexError):
        return None  # it went down meanwhile, or has lost its addresses
    return next((rule["service"] for rule in answer["rules"] if answer["refusal"] is not None), None)


def name_passed_over(steps: Iterable[Step], matching: Mapping[str, str | None]) -> list[Step]:
    """The steps, where a rule (by host) matches but was passed over naming it. Pure."""
    named = []
    for step in steps:
        rule = matching.get(step.host) if _finds_no_rule(step.event) else None
        named.append(step if rule is None else replace(step, text=f"rule {rule} is {PASSED_OVER}"))
    return named


def _finds_no_rule(event: Event) -> bool:
    return event["event"] == "Refused" and event["reason"] == "no_rule"


def story(connect: Connect, logs: Mapping[str, Iterable[Event]], words: EventWords) -> list[Step]:
    """The steps of one connect, in their order. Pure."""
    own = list(logs[connect.host])
    client = next((event["source"] for event in own if event["event"] == "SynSent" and _is_ours(event, connect)), None)
    found = [(connect.host, event) for event in own if _is_ours(event, connect)]
    for host, log in logs.items():
        events = list(log)
        path = [
            event
            for event in events
            if client is not None and event.get("client") == client and event.get("client_flow") == connect.flow_id
        ]
        flows = {event["flow_id"] for event in path if event["event"] == "SynReceived"}
        ends = [event for event in events if event.get("flow_id") in flows and _is_opening(event)]
        found += [(host, event) for event in (*path, *ends)]
    # Not every node on the way knows the service by name.
    named = [(host, {**event, "service_id": connect.service}) for host, event in found]
    steps = [Step(event["time"], host, words.text(event), event) for host, event in named]
    return sorted(steps, key=lambda step: step.time)


def _is_ours(event: Event, connect: Connect) -> bool:
    """Whether an event of the client's own host is a step of its side."""
    kind = event["event"]
    if kind == "SynDelayed":
        return event["client_flow"] == connect.flow_id
    steps = ("SynResolved", "SynSent", "SynAckReceived", "InstanceReset", "ConnectFailed")
    return kind in steps and event["flow_id"] == connect.flow_id


def _is_opening(event: Event) -> bool:
    """Whether an event of the instance's flow says that it has opened, or will not."""
    return event["server"] if event["event"] == "FlowOpened" else event["event"] == "FlowClosed" and not event["opened"]


def where_it_stopped(steps: Iterable[Step], reached: set[str], words: EventWords) -> str | None:
    """How far the SYN of a failed connect came, and why no further; `reached` are the hosts whose nodes answered. Pure.

    None where nothing is known of it.
    """
    last = None
    for step in steps:
        if step.event["event"] != "ConnectFailed" or step.event["prefix"] or last is None:
            last = step
        elif last.event["event"] in ("SynSent", "SynForwarded"):
            where = words.name(_next_hop(last.event))
            return f"stopped at {where} or behind it, where this host cannot see: {step.text}"
    if last is None:
        return None
    return f"stopped {_stop(last, reached, words)}"


def _next_hop(event: Event) -> str:
    return event["destination"] if event["event"] == "SynSent" else event["target"]


def _stop(last: Step, reached: set[str], words: EventWords) -> str:
    event = last.event
    if event["event"] in ("SynSent", "SynForwarded"):
        address = _next_hop(event)
        host = words.name(address)
        if host.startswith(_EVERYONE):
            why = "nobody there serves it, or no answer came back"
        elif host == address:
            why = f"no host that is known here has the address {address}"
        elif host in reached:
            why = f"the node of {host} runs, but the SYN did not come there: look at the links and routes between"
        else:
            why = f"no node answers on {host}: it is down, or cannot be seen from here"
        return f"between {last.host} and {host}: {why}"
    if event["event"] == "SynReceived":
        return f"at {last.host}: the socket that listens on port {event['port']} did not complete the connection"
    if event["event"] == "SynDelayed":
        return f"at {last.host}: {last.text}, and nobody decided in time"
    if _finds_no_rule(event) and PASSED_OVER not in last.text:
        return f"at {last.host}: {last.text}: no socket that listens there has the name, and no rule sends the SYN on"
    return f"at {last.host}: {last.text}"


def folded(steps: Iterable[Step]) -> list[Step]:
    """The steps with those of retransmissions told at the first of their kind. Pure."""
    first: dict[tuple[str, str], Step] = {}
    again: dict[int, list[float]] = {}
    kept = []
    for step in steps:
        same = first.setdefault((step.host, step.text), step)
        if same is step or step.event["event"] not in _REPEATED:
            kept.append(step)
        else:
            again.setdefault(id(same), []).append(step.time - same.time)
    return [
        replace(step, text=f"{step.text}; again after {', '.join(f'{time:.1f}' for time in again[id(step)])} s")
        if id(step) in again
        else step
        for step in kept
    ]


def story_text(
    service: str, own: str, start: float, steps: Iterable[Step], seconds: float | None, stopped: str | None = None
) -> str:
    """The steps as a table, times in milliseconds since the command began to connect."""
    rows = [["0.00", own, f"connect({service})"]]
    rows += [[f"{(step.time - start) * 1000:.2f}", step.host, step.text] for step in folded(steps)]
    lines = [columns(["MS", "HOST", "STEP"], rows)]
    if seconds is not None:
        lines.append(f"connect() took {seconds * 1000:.2f} ms")
    if stopped is not None:
        lines.append(stopped)
    return "\n".join(lines)
