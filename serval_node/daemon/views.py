"""What the node knows, as JSON for `serval table`, `flows`, `stat` and `names`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from serval_node.control.enquiries import Capabilities, FlowStat, Resolved
from serval_node.control.messages import Stats
from serval_node.control.rules import PROTOCOL_NAMES, RuleSpec
from serval_node.daemon.names import HostNames
from serval_node.daemon.rules import target_spec
from serval_node.daemon.virtual_addresses import SAL0_ADDRESS
from serval_node.sal.events import Refusal
from serval_node.sal.explanation import Outlook, Place, RuleOutlook, Standing, TargetOutlook
from serval_node.sal.flow_table import Endpoint, Flow
from serval_node.sal.service_table import Action, Entry, ServiceTable, Slot
from serval_node.wire.ipv4 import PROTOCOL_UDP, address_text
from serval_node.wire.naming import NAME_BITS, Naming
from serval_node.wire.serviceid import Prefix, ServiceID

if TYPE_CHECKING:
    from serval_node.daemon.migrations import Outcome
    from serval_node.daemon.node import Node

RESERVED = "RESERVED"


def table(service_table: ServiceTable, names: HostNames) -> list[dict[str, Any]]:
    """Every entry, longest prefix first (slide 20: serviceID, action, sock/addr)."""
    return [_entry(entry, service_table, names) for entry in service_table.entries()]


def _entry(entry: Entry, service_table: ServiceTable, names: HostNames) -> dict[str, Any]:
    counters = entry.counters
    wider = _wider_bind(entry.prefix, service_table)
    return {
        "service": names.describe(entry.prefix),
        "prefix": str(entry.prefix),
        "bits": entry.prefix.bits,
        "selector": entry.selector.value,
        "narrower_than": None if wider is None else names.describe(wider),
        "packets": counters.packets,
        "bytes": counters.bytes,
        "dropped_packets": counters.dropped_packets,
        "dropped_bytes": counters.dropped_bytes,
        "targets": [_target(slot) for slot in entry.slots],
    }


def _wider_bind(prefix: Prefix, service_table: ServiceTable) -> Prefix | None:
    """The bind of the whole name that loses this prefix's SYNs to it (S15)."""
    if prefix.bits <= NAME_BITS:
        return None
    wider = Prefix(prefix.raw, NAME_BITS)
    return wider if service_table.get(wider) is not None else None


def _target(slot: Slot) -> dict[str, Any]:
    target = slot.target
    if target.action is Action.FORWARD:
        where = address_text(target.address or b"")
    elif target.action is Action.DEMUX:
        where = f"{address_text(target.listen_address or SAL0_ADDRESS)}:{target.port}{_suffix(target.protocol)}"
    else:
        where = ""
    counted = {"packets": 0, "bytes": 0, "dropped_packets": 0, "dropped_bytes": 0, "priority": 1, "weight": 1}
    lifetime = {"idle_timeout": slot.idle, "hard_timeout": slot.hard}
    return {**counted, **target_spec(slot).to_json(), **lifetime, "origin": slot.origin, "where": where}


def explanation(outlook: Outlook, names: HostNames) -> dict[str, Any]:
    """What `Stack.explain` foretells (serval_node.sal.explanation has the words)."""
    return {
        "rules": [_rule_outlook(rule, names) for rule in outlook.rules],
        "refusal": _word(outlook.refusal),
        "errno": outlook.errno,
        "reset": outlook.reset,
    }


def _rule_outlook(rule: RuleOutlook, names: HostNames) -> dict[str, Any]:
    return {
        "service": names.describe(rule.entry.prefix),
        "prefix": str(rule.entry.prefix),
        "bits": rule.entry.prefix.bits,
        "place": rule.place.value,
        "selector": rule.selector.value,
        "candidates": sum(target.standing is Standing.CANDIDATE for target in rule.targets),
        "targets": [_target_outlook(target) for target in rule.targets],
    }


def _target_outlook(outlook: TargetOutlook) -> dict[str, Any]:
    row = _target(outlook.slot)
    return {
        **{key: row[key] for key in ("action", "where", "priority", "weight", "origin")},
        "load": outlook.slot.target.load,
        "standing": outlook.standing.value,
        "share": outlook.share,
        "taken": outlook.taken,
        "refusal": _word(outlook.refusal),
        "errno": outlook.errno,
        "wait": outlook.wait,
        "client": None if outlook.client is None else address_text(outlook.client),
        "sources": [address_text(item) for item in outlook.sources],
        "everyone": outlook.everyone,
    }


def _word(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.value


def outcome(item: Outcome) -> dict[str, Any]:
    """What became of the wish to move one flow."""
    return {
        "flow_id": item.flow_id,
        "source": address_text(item.source),
        "target": address_text(item.target),
        "refusal": item.refusal,
    }


def flows(node: Node) -> list[dict[str, Any]]:
    """Every flow, oldest first, then the flowIDs that sockets hold before they connect (S37)."""
    table = node.stack.flows
    rows = [_flow(flow, node) for flow in sorted(table, key=lambda flow: flow.created)]
    return rows + [{**_EMPTY_FLOW, "flow_id": flow_id} for flow_id in sorted(table.reserved())]


_EMPTY_FLOW: dict[str, Any] = {
    "flow_id": 0,
    "socket": "",
    "protocol": "",
    "state": RESERVED,
    "incoming": False,
    "service": "",
    "local": "",
    "peer": "",
    "udp_ports": None,
    "peer_flow": 0,
    "kernel_peer": "",
    "bytes_out": 0,
    "bytes_in": 0,
    "packets_out": 0,
    "packets_in": 0,
    "moving_to": "",
    "lost": "",
    "rsyns": 0,
}


def _flow(flow: Flow, node: Node) -> dict[str, Any]:
    row = {
        **_EMPTY_FLOW,
        "flow_id": flow.local_flow,
        "socket": _endpoint(flow.kernel_local) + _suffix(flow.protocol),
        "protocol": PROTOCOL_NAMES[flow.protocol],
        "state": flow.state.name,
        "incoming": flow.server,
        "service": node.names.describe(flow.service_id),
        "local": address_text(flow.local_address) if flow.local_address else "",
        "peer": address_text(flow.peer_address) if flow.peer_address else "",
        "udp_ports": None if flow.ports is None else list(flow.ports),
        "peer_flow": flow.peer_flow,
        "kernel_peer": _endpoint(flow.kernel_peer),
    }
    if flow.migration is not None and flow.migration.move is not None:
        row["moving_to"] = address_text(flow.migration.move.address)
        row["rsyns"] = flow.migration.move.rsyns
    row["lost"] = node.automatic.lost(flow.local_flow)
    row["packets_out"], row["bytes_out"], row["packets_in"], row["bytes_in"] = node.flow_counters(flow.local_flow)
    return row


def _suffix(protocol: int | None) -> str:
    """TCP goes without saying."""
    return "/udp" if protocol == PROTOCOL_UDP else ""


def _endpoint(endpoint: Endpoint) -> str:
    address, port = endpoint
    return f"{address_text(address)}:{port}" if address else ""


def stats(node: Node) -> Stats:
    """What the controller is told of services and counters."""
    return Stats(node.loads.services(node.advertiser.registrations()), counters(node))


def counters(node: Node) -> dict[str, int]:
    """Everything that is counted: drops and refusals by reason, the data path's totals, sizes of the tables."""
    totals = node.data_path.totals()
    totals_of_rules = node.stack.service_table.totals
    out = {str(getattr(reason, "value", reason)): number for reason, number in node.stack.counters.items()}
    for reason, number in totals.drops.items():
        out[reason] = out.get(reason, 0) + number
    out.update(node.stack.activity)
    out.update(node.discovery.figures())
    out.update(
        fast_packets_out=totals.sent_packets,
        fast_bytes_out=totals.sent_bytes,
        fast_packets_in=totals.received_packets,
        fast_bytes_in=totals.received_bytes,
        slow_packets_kernel=totals.slow_kernel,
        slow_packets_network=totals.slow_network,
        send_stalls=totals.stalls,
        sent_again_packets=totals.sent_again_packets,
        sent_again_bytes=totals.sent_again_bytes,
        unacknowledged_bytes=totals.kept_bytes,
        unacknowledged_forgotten=totals.kept_forgotten,
        **node.stack.probing.liveness.counters,
        flows=len(node.stack.flows),
        rules=len(node.stack.service_table),
        services=len(node.advertiser.registrations()),
        instances=sum(binding.weight for binding in node.advertiser.registrations()),
        resolved_packets=totals_of_rules.packets,
        resolved_bytes=totals_of_rules.bytes,
        dropped_packets=totals_of_rules.dropped_packets,
        dropped_bytes=totals_of_rules.dropped_bytes,
        delayed_packets=len(node.stack.waiting()),
        names=len(node.names.addresses.items()),
    )
    return out


def names(host_names: HostNames) -> list[dict[str, Any]]:
    """Name, virtual address and prefix of every name that this host has used."""
    rows = []
    for key, address in host_names.addresses.items():
        prefix = host_names.naming.parse(key)
        rows.append({"name": host_names.describe(prefix), "address": address_text(address), "prefix": str(prefix)})
    return rows


def delayed(node: Node) -> list[dict[str, Any]]:
    """Services with packets that wait for a verdict, and how many; the packets' clients, oldest first."""
    now = time.monotonic()
    rows: dict[ServiceID, dict[str, Any]] = {}
    for item in node.stack.waiting():
        row = rows.setdefault(
            item.service_id,
            {
                "service": node.names.describe(item.service_id),
                "prefix": str(Prefix.of(item.service_id)),
                "rule": node.names.describe(item.prefix),
                "packets": 0,
                "waiting": [],
            },
        )
        row["packets"] += 1
        client = "" if item.from_kernel else address_text(item.client)
        row["waiting"].append({"client": client, "flow_id": item.client_flow, "seconds": now - item.since})
    return list(rows.values())


def capabilities(node: Node) -> Capabilities:
    """What this node is set to do."""
    limits = node.stack.limits
    return Capabilities(
        node.stack.forwarding, node.stack.mode.value, (limits.total, limits.per_service, limits.per_source)
    )


def resolved(outlook: Outlook, naming: Naming) -> Resolved:
    """What `Stack.explain` foretells about a program's SYN, as the answer to RESOLVE."""
    winner = next((rule for rule in outlook.rules if rule.place is Place.WINS), None)
    if winner is None:
        return Resolved(None, _word(outlook.refusal) or "")
    chosen = [target for target in winner.targets if target.standing is Standing.CANDIDATE]
    prefix = winner.entry.prefix
    rule = RuleSpec(
        prefix,
        tuple(target_spec(target.slot) for target in chosen),
        winner.selector.value,
        chosen[0].slot.origin,
        name=naming.name_text(prefix),
    )
    refusals = {target.refusal for target in chosen}
    # What waits is not refused yet; of several targets one is enough.
    waits = chosen[0].wait is not None
    refusal = None if waits or None in refusals else chosen[0].refusal
    return Resolved(rule, _word(refusal) or "")


def flow_stats(rows: list[dict[str, Any]]) -> tuple[FlowStat, ...]:
    """Rows of `flows` as the controller gets them."""
    counters = ("packets_out", "bytes_out", "packets_in", "bytes_in")
    return tuple(
        FlowStat(
            flow_id=row["flow_id"],
            service=row["service"],
            state=row["state"],
            incoming=row["incoming"],
            peer_flow=row["peer_flow"],
            local=_plain(row["local"]),
            peer=_plain(row["peer"]),
            moving_to=_plain(row["moving_to"]),
            **{key: row[key] for key in counters},
        )
        for row in rows
    )


def _plain(place: str) -> str | None:
    """The address of a place in a list, without what else stands there."""
    return place.split()[0].partition(":")[0] if place else None
