"""`serval trace`: one connect as the slides tell it (slides 32 to 37), each step timed.

Every node keeps a log of what its stack did, with the machine's monotonic clock, which all hosts of a run
share. The steps at the service router and at the instance are read from theirs, where their control sockets are
within reach.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serval_node.cli.connect import open_service
from serval_node.cli.errors import CommandError
from serval_node.cli.output import columns, print_json
from serval_node.control.local import Client, ControlError

OTHER_NODES = "/run/testbed/hosts/*/control.sock"
LAST_STEP_LIMIT = 1.0
_NEVER = 1e18

Events = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """One line: monotonic time in seconds, the host where it happened, what happened."""

    time: float
    host: str
    text: str


def trace(client: Client, service: str, timeout: float, *, as_json: bool) -> int:
    """Connect once and print the steps; raises CommandError when there is nothing to connect to."""
    own = client.request("status")
    hosts = {address: name for name, address in client.request("hosts")["hosts"].items()}
    start = client.request("events", since=_NEVER)["now"]
    failure: CommandError | None = None
    try:
        sock, seconds = open_service(service, timeout)
    except CommandError as error:
        failure, sock, seconds = error, None, None
    try:
        steps = _collect(client, own["name"], start, hosts, connected=sock is not None)
    finally:
        if sock is not None:
            sock.close()
    if as_json:
        print_json({"service": service, "seconds": seconds, "steps": [asdict(step) for step in steps]})
    else:
        print(story_text(service, own["name"], start, steps, seconds))
    if failure is not None:
        raise failure
    return 0


def _collect(client: Client, own: str, start: float, hosts: Mapping[str, str], *, connected: bool) -> list[Step]:
    """The steps, waited for until the instance has the third ACK: it may come after connect() has returned."""
    deadline = time.monotonic() + LAST_STEP_LIMIT
    while True:
        logs = {own: client.request("events", since=start)["events"], **_other_logs(own, start)}
        steps = story(own, logs, hosts)
        instance = any(event["event"] == "SynReceived" for log in logs.values() for event in log)
        complete = any("data" in step.text for step in steps)
        if complete or not connected or not instance or time.monotonic() > deadline:
            return steps
        time.sleep(0.005)


def _other_logs(own: str, start: float) -> dict[str, Events]:
    logs: dict[str, Events] = {}
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


def story(own: str, logs: Mapping[str, Events], hosts: Mapping[str, str]) -> list[Step]:
    """The steps of the first connect in `logs` (host name -> events) that host `own` began, in their order.
    Pure.
    """
    sent = next((event for event in logs[own] if event["event"] in ("SynSent", "ConnectFailed")), None)
    if sent is None:
        return []
    flow = sent["flow_id"]
    client = sent.get("source")
    steps = [
        Step(event["time"], own, text)
        for event in logs[own]
        if event.get("flow_id") == flow and (text := _client_text(event, hosts))
    ]
    server_flows: set[tuple[str, int]] = set()
    for host, log in logs.items():
        for event in log:
            if event.get("client") == client and event.get("client_flow") == flow:
                steps.append(Step(event["time"], host, _path_text(event, hosts)))
                if event["event"] == "SynReceived":
                    server_flows.add((host, event["flow_id"]))
    for host, flow_id in server_flows:
        steps += [
            Step(event["time"], host, _opened_text(event, hosts))
            for event in logs[host]
            if event["event"] == "FlowOpened" and event["server"] and event["flow_id"] == flow_id
        ]
    return sorted(steps, key=lambda step: step.time)


def _client_text(event: Mapping[str, Any], hosts: Mapping[str, str]) -> str:
    kind = event["event"]
    if kind == "SynResolved":
        return f"rule {event['prefix']}: {_choice(event, hosts)}"
    if kind == "SynSent":
        source, destination = _name(event["source"], hosts), _name(event["destination"], hosts)
        return f"SYN {{{source}, flow {event['flow_id']} -> {destination}, flow -; {event['service_id']}}}"
    if kind == "SynAckReceived":
        path = [_name(address, hosts) for address in event["path"]]
        way = f"; the SYN went {' -> '.join(path)}" if path else ""
        peer = _name(event["peer"], hosts)
        return f"SYN-ACK {{{peer}, flow {event['peer_flow']} -> flow {event['flow_id']}}} straight from {peer}{way}"
    if kind == "ConnectFailed":
        return f"connect fails: {event['reason']}"
    return ""


def _path_text(event: Mapping[str, Any], hosts: Mapping[str, str]) -> str:
    if event["event"] == "SynForwarded":
        before, after = _name(event["received_at"], hosts), _name(event["target"], hosts)
        choice = f"{event['selector']} of {event['candidates']}" if event["candidates"] > 1 else "FORWARD"
        source = _name(event["client"], hosts)
        return f"rule {event['prefix']}: {choice}; destination {before} -> {after}, source {source} kept"
    return f"rule {event['prefix']}: DEMUX to port {event['port']}; new flow {event['flow_id']}"


def _opened_text(event: Mapping[str, Any], hosts: Mapping[str, str]) -> str:
    peer, own = _name(event["peer_address"], hosts), _name(event["local_address"], hosts)
    return f"ACK; from here data {peer}, flow {event['peer_flow']} <-> {own}, flow {event['flow_id']} directly"


def _choice(event: Mapping[str, Any], hosts: Mapping[str, str]) -> str:
    text = f"{event['action'].upper()} {_name(event['target'], hosts)}"
    return f"{text} ({event['selector']} of {event['candidates']})" if event["candidates"] > 1 else text


def _name(address: str, hosts: Mapping[str, str]) -> str:
    return hosts.get(address, address)


def story_text(service: str, own: str, start: float, steps: Iterable[Step], seconds: float | None) -> str:
    """The steps as a table, times in milliseconds since the command began to connect."""
    rows = [["0.00", own, f"connect({service})"]]
    rows += [[f"{(step.time - start) * 1000:.2f}", step.host, step.text] for step in steps]
    text = columns(["MS", "HOST", "STEP"], rows)
    return text if seconds is None else f"{text}\nconnect() took {seconds * 1000:.2f} ms"
