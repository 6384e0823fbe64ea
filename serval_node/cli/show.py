"""`serval table`, `flows`, `stat`, `names`: what the node knows, in the columns of the slides."""

from __future__ import annotations

from typing import Any

from serval_node.cli.output import columns, size


def table_text(entries: list[dict[str, Any]]) -> str:
    """The service table as on slide 20: serviceID, action, sock/addr."""
    rows: list[list[object]] = []
    for entry in entries:
        for number, target in enumerate(entry["targets"]):
            first = number == 0
            rows.append(
                [
                    entry["service"] if first else "",
                    target["action"].upper(),
                    target["where"],
                    target["priority"],
                    target["weight"],
                    target["packets"],
                    size(target["bytes"]),
                    target["dropped_packets"],
                    target["origin"],
                    _note(entry) if first else "",
                ]
            )
    header = ["SERVICEID", "ACTION", "SOCK/ADDR", "PRIO", "WEIGHT", "PACKETS", "BYTES", "DROPPED", "BY", "NOTE"]
    return columns(header, rows)


def _note(entry: dict[str, Any]) -> str:
    notes = []
    if len(entry["targets"]) > 1:
        notes.append(entry["selector"])
    if entry["narrower_than"]:
        # The longest prefix wins (S15): a bind with a port is easily overlooked below the bind of the name.
        notes.append(f"takes its SYNs from {entry['narrower_than']}")
    timed = next((target for target in entry["targets"] if target["idle_timeout"] or target["hard_timeout"]), None)
    if timed is not None:
        ends = [f"{timed[key]:g} s{text}" for key, text in _TIMEOUTS.items() if timed[key]]
        notes.append(f"ends after {' or '.join(ends)}")
    return ", ".join(notes)


_TIMEOUTS = {"idle_timeout": " without a packet", "hard_timeout": ""}


def flows_text(flows: list[dict[str, Any]]) -> str:
    """The flow table as on slide 20, flowID and socket, and what else is known of the flow."""
    rows = [
        [
            flow["flow_id"],
            flow["socket"],
            flow["state"],
            ("<- " if flow["incoming"] else "-> ") + flow["service"] if flow["service"] else "",
            _place(flow),
            _peer(flow),
            flow["peer_flow"] or None,
            size(flow["bytes_out"]),
            size(flow["bytes_in"]),
        ]
        for flow in flows
    ]
    return columns(["FLOWID", "SOCKET", "STATE", "SERVICE", "LOCAL", "PEER", "PEER FLOW", "OUT", "IN"], rows)


def _peer(flow: dict[str, Any]) -> str:
    """The peer's address; inside UDP its port too, which behind a NAT is the NAT's."""
    ports = flow.get("udp_ports")
    return f"{flow['peer']} udp {ports[1]}" if ports else flow["peer"]


def _place(flow: dict[str, Any]) -> str:
    """The flow's own address, and where it stands with a move: which nobody has answered yet, or which cannot be."""
    text = flow["local"]
    if flow["moving_to"]:
        text += f" -> {flow['moving_to']}" if flow["moving_to"] != flow["local"] else ""
        return f"{text} (RSYN {flow['rsyns']})"
    return f"{text} ({flow['lost']})" if flow["lost"] else text


def stat_text(answer: dict[str, Any]) -> str:
    rows = [[name, value] for name, value in sorted(answer["counters"].items())]
    head = [f"{key}: {_value(value)}" for key, value in answer["status"].items()]
    return "\n".join([*head, "", columns(["COUNTER", "VALUE"], rows)])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def names_text(names: list[dict[str, Any]]) -> str:
    return columns(["SERVICE", "ADDRESS", "SERVICEID"], [[row["name"], row["address"], row["prefix"]] for row in names])
