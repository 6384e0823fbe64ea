"""What a node's event log says, one line for each event: for `serval trace` and `serval watch`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Event = Mapping[str, Any]

REFUSALS = {
    "no_rule": "no rule matches",
    "drop_rule": "DROP",
    "no_route": "no route to its target",
    "delay_full": "the DELAY queue is full",
    "delay_share": "this client has too many SYNs in the DELAY queue",
    "delay_service_full": "too many SYNs for this service in the DELAY queue",
    "delay_expired": "waited too long under DELAY",
    "delay_dropped": "a verdict ended the wait under DELAY",
    "delay_refused": "a verdict ended the wait under DELAY by a refusal",
    "routing_loop": "a loop: this router stands in the SOURCE list already",
    "source_full": "the SOURCE list is full",
    "ttl_exceeded": "the packet's time to live has run out",
    "broadcast": "came by broadcast, and this host is not in ad hoc mode there",
    "unsupported_transport": "no TCP, and nothing else is served",
    "half_open_full": "too many half-open connections",
    "refused": "answered by a reset",
}
"""Words for a SYN that was not served, by the reason in the event."""


class EventWords:
    """Words for events; addresses become host names where these are known."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        """`hosts` are names by address."""
        self._hosts = hosts

    def name(self, address: str) -> str:
        return self._hosts.get(address, address)

    def text(self, event: Event) -> str:
        """What happened, without its time; an event that this version does not know is told by its fields."""
        words = _WORDS.get(event["event"])
        if words is not None:
            return words(self, event)
        return ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("event", "time"))

    def resolved(self, event: Event) -> str:
        text = f"rule {event['prefix']}: {event['action'].upper()} {self.name(event['target'])}"
        return f"{text} ({event['selector']} of {event['candidates']})" if event["candidates"] > 1 else text

    def sent(self, event: Event) -> str:
        source, destination = self.name(event["source"]), self.name(event["destination"])
        text = f"SYN {{{source}, flow {event['flow_id']} -> {destination}, flow -; {event['service_id']}}}"
        return f"{text} inside UDP" if event.get("ports") else text

    def forwarded(self, event: Event) -> str:
        before, after = self.name(event["received_at"]), self.name(event["target"])
        choice = f"{event['selector']} of {event['candidates']}" if event["candidates"] > 1 else "FORWARD"
        source = self.name(event["client"])
        return f"rule {event['prefix']}: {choice}; destination {before} -> {after}, source {source} kept"

    def flooded(self, event: Event) -> str:
        targets = ", ".join(map(self.name, event["targets"]))
        hops = "1 hop" if event["hops"] == 1 else f"{event['hops']} hops"
        return f"relay: the SYN of {self.name(event['client'])}, after {hops}, goes on to {targets}"

    def other_reset(self, event: Event) -> str:
        peer = self.name(event["peer"])
        return f"SYN-ACK {{{peer}, flow {event['peer_flow']}}} of another instance: RST, the first one stays"

    def received(self, event: Event) -> str:
        return f"rule {event['prefix']}: DEMUX to port {event['port']}; new flow {event['flow_id']}"

    def answered(self, event: Event) -> str:
        path = [self.name(address) for address in event["path"]]
        way = f"; the SYN went {' -> '.join(path)}" if path else ""
        peer = self.name(event["peer"])
        return f"SYN-ACK {{{peer}, flow {event['peer_flow']} -> flow {event['flow_id']}}} straight from {peer}{way}"

    def opened(self, event: Event) -> str:
        peer, own = self.name(event["peer_address"]), self.name(event["local_address"])
        text = f"ACK; from here data {peer}, flow {event['peer_flow']} <-> {own}, flow {event['flow_id']} directly"
        return f"{text}, inside UDP, peer's port {event['ports'][1]}" if event.get("ports") else text

    def raw_unanswered(self, event: Event) -> str:
        return (
            f"{self.name(event['peer'])} answers inside UDP and not to raw packets: it gets only the former for a while"
        )

    def segmented_singly(self, event: Event) -> str:
        peer = self.name(event["peer"])
        return f"super-segments do not get through to {peer} ({event['reason']}): segments go one by one from now on"

    def closed(self, event: Event) -> str:
        return f"flow {event['flow_id']} of {event['service_id']} ended: {event['reason']}"

    def delayed(self, event: Event) -> str:
        return f"rule {event['prefix']}: DELAY, the SYN waits for another rule or a verdict"

    def noticed(self, event: Event) -> str:
        return f"asks the controller about {event['service_id']}, rule {event['prefix']}: DELAY"

    def expired(self, event: Event) -> str:
        counted = f"{event['packets']} packets, {event['dropped_packets']} dropped"
        return f"rule {event['prefix']} ended after {event['seconds']:.1f} s: {event['cause']} time-out ({counted})"

    def moving(self, event: Event) -> str:
        return f"RSYN: flow {event['flow_id']} leaves {event['source']} for {event['target']} ({event['cause']})"

    def moved(self, event: Event) -> str:
        waited = 1e3 * (event["time"] - event["started"])
        return f"RSYN-ACK: flow {event['flow_id']} is at {event['target']} (after {waited:.1f} ms, {_rsyns(event)})"

    def blackout(self, event: Event) -> str:
        """The parts, one after the other: to this host's knowing, to the first RSYN, to its answer, to a segment."""
        detect, decide, signal = (1e3 * event[part] for part in ("detect", "decide", "signal"))
        answered = event["happened"] + event["detect"] + event["decide"] + event["signal"]
        return (
            f"flow {event['flow_id']} moved {event['source']} -> {event['target']}: {event['cause']}; "
            f"detected {detect:.1f} ms, decided {decide:.1f}, answered {signal:.1f} ({_rsyns(event)}), "
            f"{_recovered(event, answered)}"
        )

    def peer_blackout(self, event: Event) -> str:
        return (
            f"flow {event['flow_id']}: its peer moved {event['source']} -> {event['target']}; "
            f"{_recovered(event, event['happened'])}"
        )

    def path_heard(self, event: Event) -> str:
        return f"flow {event['flow_id']}: first segment {event['peer']} -> {event['local']}"

    def unmoved(self, event: Event) -> str:
        return f"flow {event['flow_id']} of {event['service_id']} did not move ({event['cause']}): {event['reason']}"

    def path_lost(self, event: Event) -> str:
        return f"flow {event['flow_id']} of {event['service_id']} waits at {event['address']}: {event['cause']}"

    def path_back(self, event: Event) -> str:
        return f"flow {event['flow_id']} of {event['service_id']} has {event['address']} back"

    def path_silent(self, event: Event) -> str:
        silence = 1e3 * (event["time"] - event["since"])
        way = f"{event['address']} - {_place(event['peer'], event['ports'])}"
        return f"no answer on the path {way}: nothing has come for {silence:.1f} ms"

    def path_answers(self, event: Event) -> str:
        return f"the path {event['address']} - {_place(event['peer'], event['ports'])} answers again"

    def peer_moved(self, event: Event) -> str:
        source, target = (
            _place(event["source"], event.get("source_ports")),
            _place(event["target"], event.get("target_ports")),
        )
        return f"RSYN: the peer of flow {event['flow_id']} left {source} for {target}"

    def sent_again(self, event: Event) -> str:
        return f"flow {event['flow_id']}: {event['segments']} segments sent again, {event['bytes']} bytes"

    def refused(self, event: Event) -> str:
        why = REFUSALS.get(event["reason"], event["reason"])
        return f"rule {event['prefix']}: {why}" if event["prefix"] else f"{why} for {event['service_id']}"

    def failed(self, event: Event) -> str:
        why = REFUSALS.get(event["reason"], event["reason"])
        return f"connect fails: rule {event['prefix']}: {why}" if event["prefix"] else f"connect fails: {why}"


def _place(address: str, ports: list[int] | None) -> str:
    return f"{address}:{ports[1]}" if ports else address


def _rsyns(event: Event) -> str:
    return "1 RSYN" if event["rsyns"] == 1 else f"{event['rsyns']} RSYNs"


def _recovered(event: Event, since: float) -> str:
    if event["recover"] is None:
        return f"no data in the {event['time'] - since:.1f} s since"
    return f"data after {1e3 * event['recover']:.1f} ms"


def _router_found(words: EventWords, event: Event) -> str:
    return f"service router {words.name(event['router'])} found after {1e3 * event['seconds']:.0f} ms"


def _router_lost(words: EventWords, event: Event) -> str:
    return f"service router {words.name(event['router'])} does not answer any more, for {event['seconds']:.1f} s"


def _host_only(_words: EventWords, event: Event) -> str:
    return f"host-only mode: no service router has answered within {event['seconds']:.1f} s"


_WORDS = {
    "RouterFound": _router_found,
    "RouterLost": _router_lost,
    "HostOnly": _host_only,
    "SynResolved": EventWords.resolved,
    "SynSent": EventWords.sent,
    "SynForwarded": EventWords.forwarded,
    "SynFlooded": EventWords.flooded,
    "SynReceived": EventWords.received,
    "SynAckReceived": EventWords.answered,
    "InstanceReset": EventWords.other_reset,
    "FlowOpened": EventWords.opened,
    "RawUnanswered": EventWords.raw_unanswered,
    "SegmentedSingly": EventWords.segmented_singly,
    "FlowClosed": EventWords.closed,
    "FlowMigrating": EventWords.moving,
    "FlowMigrated": EventWords.moved,
    "MigrationFailed": EventWords.unmoved,
    "PathLost": EventWords.path_lost,
    "PathBack": EventWords.path_back,
    "PathSilent": EventWords.path_silent,
    "PathAnswers": EventWords.path_answers,
    "PeerMoved": EventWords.peer_moved,
    "PathHeard": EventWords.path_heard,
    "Blackout": EventWords.blackout,
    "PeerBlackout": EventWords.peer_blackout,
    "SentAgain": EventWords.sent_again,
    "SynDelayed": EventWords.delayed,
    "DelayNotify": EventWords.noticed,
    "RuleExpired": EventWords.expired,
    "Refused": EventWords.refused,
    "ConnectFailed": EventWords.failed,
}
