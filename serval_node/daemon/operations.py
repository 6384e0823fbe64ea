"""The operations of the control socket: what `serval`, serval_node.socket and the testbed ask of a node.

serval_node.control.local lists them with their fields. An operation that cannot be served raises ValueError (or
a subclass) with one line for its sender.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serval_node.control.enquiries import CapabilitiesSet, get_flow_ids
from serval_node.control.messages import VERDICTS
from serval_node.control.rules import (
    PROTOCOL_NAMES,
    get_address,
    get_expectation,
    get_flag,
    get_float,
    get_integer,
    get_list,
    get_number,
    get_protocol,
    get_text,
    to_address,
)
from serval_node.control.triggers import TRIGGERS
from serval_node.daemon import encapsulation, views
from serval_node.daemon.config import MIGRATE_CONGESTION
from serval_node.daemon.control_server import Connection, RequestError
from serval_node.daemon.event_log import KEPT, KINDS, Wanted
from serval_node.daemon.rules import hand_rule
from serval_node.sal.adhoc import MAX_HOPS
from serval_node.sal.delay_queue import DelayVerdict
from serval_node.sal.explanation import Arrival
from serval_node.wire.ipv4 import PROTOCOL_UDP, address, address_text
from serval_node.wire.naming import NAME_BITS
from serval_node.wire.serviceid import Prefix, ServiceID

if TYPE_CHECKING:
    from serval_node.daemon.node import Node

Request = dict[str, Any]
Operation = Callable[["Operations", Request, Connection], dict[str, Any]]


class Operations:
    """Answers requests about one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handle(self, request: Request, connection: Connection) -> dict[str, Any]:
        """The answer's fields; raises ValueError with the reason of a refusal."""
        op = request.get("op")
        operation = _OPERATIONS.get(op) if isinstance(op, str) else None
        if operation is None:
            raise RequestError(f"unknown operation {op!r}; known: {', '.join(sorted(_OPERATIONS))}")
        return operation(self, request, connection)

    def closed(self, connection: Connection) -> None:
        """A client has gone: the flowIDs that its sockets had reserved are free again."""
        for flow_id in (*connection.reserved, *connection.prepared.values()):
            self._node.stack.release_flow(flow_id)
        connection.reserved.clear()
        connection.prepared.clear()
        self._node.standbys.closed(connection)

    def _prefix(self, request: Request, key: str) -> Prefix:
        return self._node.names.naming.parse(get_text(request, key))

    # -- lists

    def status(self, _request: Request, _connection: Connection) -> dict[str, Any]:
        return self._node.status()

    def table(self, request: Request, _connection: Connection) -> dict[str, Any]:
        entries, naming = views.table(self._node.stack.service_table, self._node.names), self._node.names.naming
        if "service" in request:
            text = get_text(request, "service")
            everything = naming.parse(text) == Prefix.default()
            wanted = Prefix.default() if everything else naming.parse(text, exact=True)
            entries = [entry for entry in entries if Prefix.from_text(entry["prefix"]).covers(wanted)]
            entries.sort(key=lambda entry: -entry["bits"])
        return {"entries": entries}

    def explain(self, request: Request, _connection: Connection) -> dict[str, Any]:
        node = self._node
        prefix = node.names.naming.parse(get_text(request, "service"), exact=True)
        outlook = node.stack.explain(prefix.service_id, _arrival(request), get_protocol(request))
        return {
            "name": node.config.name,
            "role": node.role,
            "addresses": [address_text(item) for item in node.network.own_addresses()],
            "service_id": "0x" + prefix.raw.hex(),
            **views.explanation(outlook, node.names),
        }

    def flows(self, request: Request, _connection: Connection) -> dict[str, Any]:
        wanted = get_flow_ids(request, "flow_ids")
        rows = views.flows(self._node)
        return {"flows": [row for row in rows if row["flow_id"] in wanted] if wanted else rows}

    def stat(self, _request: Request, _connection: Connection) -> dict[str, Any]:
        return {"counters": views.counters(self._node)}

    def names(self, _request: Request, _connection: Connection) -> dict[str, Any]:
        return {"names": views.names(self._node.names)}

    def snapshot(self, request: Request, _connection: Connection) -> dict[str, Any]:
        node = self._node
        parts = get_list(request, "parts")
        answer: dict[str, Any] = {"status": node.status(), "now": time.monotonic()}
        for part in parts:
            if part == "table":
                answer["table"] = views.table(node.stack.service_table, node.names)
            elif part == "flows":
                answer["flows"] = views.flows(node)
            elif part == "events":
                since, last = get_float(request, "since", 0.0), get_integer(request, "last", high=KEPT)
                answer["events"] = node.events.since(since, last)
            else:
                raise RequestError(f"'parts' are of table, flows, events; {part!r} is none")
        return answer

    def events(self, request: Request, _connection: Connection) -> dict[str, Any]:
        log, wanted = self._node.events, self._wanted(request)
        last = get_integer(request, "last", KEPT, high=KEPT)
        answer = {"now": time.monotonic(), "number": log.count, "boot": self._node.boot}
        if "after" not in request:
            return {"events": log.since(get_float(request, "since", 0.0), last, wanted), **answer}
        if "since" in request:
            raise RequestError("'since' and 'after' exclude each other")
        after = get_integer(request, "after")
        return {"events": log.after(after, last, wanted), "missed": log.missed(after), **answer}

    def _wanted(self, request: Request) -> Wanted:
        kinds = get_list(request, "kinds") if "kinds" in request else None
        for kind in kinds or ():
            if kind not in KINDS:
                raise RequestError(f"no event is called {kind!r}; there are: {', '.join(KINDS)}")
        return Wanted(
            None if kinds is None else frozenset(kinds),
            self._prefix(request, "service") if "service" in request else None,
            get_number(request, "flow_id", None, 1, 0xFFFFFFFF),
        )

    def hosts(self, _request: Request, _connection: Connection) -> dict[str, Any]:
        return {"hosts": dict(self._node.config.hosts)}

    def listeners(self, request: Request, _connection: Connection) -> dict[str, Any]:
        advertiser = self._node.advertiser
        sockets = advertiser.listening()
        if get_flag(request, "udp", False):
            sockets = sockets + advertiser.listening(PROTOCOL_UDP)
        rows = [
            {
                "inode": sock.inode,
                "port": sock.local_port,
                "protocol": PROTOCOL_NAMES[sock.protocol],
                "services": advertiser.names_of(sock),
            }
            for sock in sockets
        ]
        return {"boot": self._node.boot, "listeners": rows}

    # -- names

    def resolve(self, request: Request, _connection: Connection) -> dict[str, Any]:
        prefix = self._prefix(request, "service")
        return {
            "service": self._node.names.describe(prefix),
            "prefix": str(prefix),
            "bits": prefix.bits,
            "name_bits": NAME_BITS,
        }

    def address(self, request: Request, _connection: Connection) -> dict[str, Any]:
        port = get_number(request, "port", None, 0, 65535)
        name = get_text(request, "name")
        virtual, kernel_port, service_id = self._node.names.endpoint(f"{name}:{port}" if port else name)
        return {"address": address_text(virtual), "port": kernel_port, "service": "0x" + service_id.hex()}

    # -- connections of serval_node.socket

    def flow_reserve(self, _request: Request, connection: Connection) -> dict[str, Any]:
        flow_id = self._node.stack.reserve_flow()
        connection.reserved.add(flow_id)
        return {"flow_id": flow_id}

    def flow_release(self, request: Request, connection: Connection) -> dict[str, Any]:
        flow_id = get_integer(request, "flow_id")
        if flow_id not in connection.reserved:
            raise RequestError(f"flow {flow_id} is not reserved by this client")
        connection.reserved.discard(flow_id)
        self._node.stack.release_flow(flow_id)
        return {}

    def connect(self, request: Request, connection: Connection) -> dict[str, Any]:
        virtual, port, service_id = self._node.names.endpoint(get_text(request, "service"))
        flow_id = get_number(request, "flow_id", None, 1, 0xFFFFFFFF)
        if flow_id is None:
            flow_id = self._node.stack.reserve_flow()
        elif flow_id not in connection.reserved:
            raise RequestError(f"flow {flow_id} is not reserved by this client")
        local_port = get_integer(request, "local_port", low=1, high=65535)
        connection.reserved.discard(flow_id)
        connection.prepared[local_port] = flow_id
        self._node.stack.prepare_connect(flow_id, local_port, service_id)
        return {"address": address_text(virtual), "port": port, "flow_id": flow_id}

    def connected(self, request: Request, _connection: Connection) -> dict[str, Any]:
        flow = self._flow(request, "address", "port")
        if flow is None or flow.peer_address is None:
            raise RequestError("there is no such connection")
        peer = address_text(flow.peer_address)
        hosts = {real: name for name, real in self._node.config.hosts.items()}
        return {
            "flow_id": flow.local_flow,
            "peer_flow": flow.peer_flow,
            "peer": peer,
            "host": hosts.get(peer),
            "local": address_text(flow.local_address),
        }

    def accepted(self, request: Request, _connection: Connection) -> dict[str, Any]:
        flow = self._flow(request, "peer", "peer_port")
        if flow is None or flow.service_id is None:
            return {"local_service": None, "name": None, "flow_id": None}
        service_id: ServiceID = flow.service_id
        return {
            "local_service": "0x" + service_id.hex(),
            "name": self._node.names.describe(service_id),
            "flow_id": flow.local_flow,
        }

    def _flow(self, request: Request, address_key: str, port_key: str) -> Any:
        text = get_address(request, address_key)
        if text is None:
            raise RequestError(f"{address_key!r} is missing")
        peer_port = get_integer(request, port_key, high=65535)
        local_port = get_integer(request, "local_port", high=65535)
        return self._node.stack.flow_for_kernel(address(text), peer_port, local_port, get_protocol(request))

    # -- datagrams of serval_node.socket

    def datagram_open(self, request: Request, _connection: Connection) -> dict[str, Any]:
        prefix = self._prefix(request, "service")
        port, inode = get_integer(request, "local_port", low=1, high=65535), get_integer(request, "inode")
        announced = get_flag(request, "announced", True)
        return {"flow_id": self._node.datagram_sockets.open(port, inode, prefix, announced=announced)}

    def datagram_connect(self, request: Request, _connection: Connection) -> dict[str, Any]:
        port = get_integer(request, "local_port", low=1, high=65535)
        return self._node.datagram_sockets.connect(port, get_text(request, "service"))

    def sender(self, request: Request, _connection: Connection) -> dict[str, Any]:
        text = get_address(request, "peer")
        if text is None:
            raise RequestError("'peer' is missing")
        peer = address(text), get_integer(request, "peer_port", high=65535)
        found = self._node.datagram_sockets.sender(peer, get_integer(request, "local_port", high=65535))
        return {"service": None if found is None else "0x" + found.hex()}

    # -- moving flows

    def migrate(self, request: Request, _connection: Connection) -> dict[str, Any]:
        called = time.monotonic()
        migrations = self._node.migrations
        given = [key for key in ("flow_id", "from", "service") if key in request]
        if len(given) != 1:
            raise RequestError("one of 'flow_id', 'from' and 'service' says which flows to move")
        if "flow_id" in request:
            flows = migrations.of_flow(get_integer(request, "flow_id", low=1, high=0xFFFFFFFF))
        elif "from" in request:
            flows = migrations.of_place(get_text(request, "from"))
        else:
            flows = migrations.of_service(self._prefix(request, "service"))
        outcomes = migrations.move(flows, get_text(request, "to"), called=called)
        return {"flows": [views.outcome(item) for item in outcomes]}

    def auto_migrate(self, request: Request, _connection: Connection) -> dict[str, Any]:
        automatic = self._node.automatic
        trigger = get_text(request, "trigger") if "trigger" in request else None
        if trigger is not None and trigger not in TRIGGERS:
            raise RequestError(f"'trigger' is one of {', '.join(TRIGGERS)}, not {trigger!r}")
        if "on" in request:
            chosen = frozenset(TRIGGERS if trigger is None else (trigger,))
            on = get_flag(request, "on", True)
            automatic.switch(automatic.wanted | chosen if on else automatic.wanted - chosen)
        return {"triggers": automatic.view()}

    def migrate_congestion(self, request: Request, _connection: Connection) -> dict[str, Any]:
        path = self._node.data_path
        if "state" in request:
            state = get_text(request, "state")
            if state not in MIGRATE_CONGESTION:
                raise RequestError(f"'state' is {' or '.join(MIGRATE_CONGESTION)}, not {state!r}")
            path.keeping = state == "keep"
        return {"state": "keep" if path.keeping else "reset"}

    # -- without a controller

    def adhoc(self, request: Request, _connection: Connection) -> dict[str, Any]:
        node = self._node
        if {"on", "relay", "hops"} & request.keys():
            node.adhoc.set(
                on=get_flag(request, "on", node.adhoc.on),
                relay=get_flag(request, "relay", False) if "relay" in request else None,
                hops=get_integer(request, "hops", low=1, high=MAX_HOPS) if "hops" in request else None,
            )
        return {**node.adhoc.view(), "default": node.rules.default_origin()}

    def router(self, request: Request, _connection: Connection) -> dict[str, Any]:
        node = self._node
        if "find" in request:
            node.discovery.find(get_flag(request, "find", False))
        return {**node.discovery.view(), "default": node.rules.default_origin()}

    # -- inside UDP

    def encapsulation(self, request: Request, _connection: Connection) -> dict[str, Any]:
        choices = self._node.stack.encapsulation
        if "mode" in request or "peer" in request:
            peer = get_text(request, "peer") if "peer" in request else None
            encapsulation.choose(choices, get_text(request, "mode"), peer)
        return encapsulation.view(choices, time.monotonic())

    # -- listening sockets

    def bind(self, request: Request, _connection: Connection) -> dict[str, Any]:
        prefix = self._prefix(request, "service")
        inodes = get_list(request, "inodes") if "inodes" in request else None
        port, protocol = get_integer(request, "port", low=1, high=65535), get_protocol(request)
        warnings = self._node.advertiser.bind(prefix, port, inodes, protocol=protocol)
        return {"service": self._node.names.describe(prefix), "prefix": str(prefix), "warnings": warnings}

    def unbind(self, request: Request, _connection: Connection) -> dict[str, Any]:
        port, protocol = get_integer(request, "port", high=65535), get_protocol(request)
        self._node.advertiser.unbind(self._prefix(request, "service"), port, protocol)
        return {}

    def load(self, request: Request, _connection: Connection) -> dict[str, Any]:
        node, prefix = self._node, self._prefix(request, "service")
        if all(item.prefix != prefix for item in node.advertiser.registrations()):
            raise RequestError(f"{node.names.describe(prefix)} is not served here: only an instance has a load")
        if "figure" in request:
            node.loads.give(prefix, None if request["figure"] is None else get_float(request, "figure"))
        (found,) = (item for item in views.stats(node).services if item.prefix == prefix)
        return {"flows": found.flows, "figure": found.figure}

    # -- rules by hand

    def rule_set(self, request: Request, _connection: Connection) -> dict[str, Any]:
        rule = hand_rule(self._node.names.naming, request)
        self._node.rules.set(rule, get_expectation(request))
        self._node.state_changed()
        return {"service": self._node.names.describe(rule.prefix), "prefix": str(rule.prefix)}

    def rule_remove(self, request: Request, _connection: Connection) -> dict[str, Any]:
        removed = self._node.rules.remove(self._prefix(request, "prefix"))
        self._node.state_changed()
        return {"rule": removed.to_json()}

    def mode(self, request: Request, _connection: Connection) -> dict[str, Any]:
        asked = CapabilitiesSet.from_json(request)
        self._node.set_capabilities(forwarding=asked.forwarding, mode=asked.mode)
        return views.capabilities(self._node).to_json()

    # -- programs that wait to be started

    def standby(self, request: Request, connection: Connection) -> dict[str, Any]:
        self._node.standbys.offer(connection, self._prefix(request, "service"))
        return {"stream": True}

    def standbys(self, _request: Request, _connection: Connection) -> dict[str, Any]:
        return {"standbys": [item.to_json() for item in self._node.standbys.offers()]}

    def start(self, request: Request, _connection: Connection) -> dict[str, Any]:
        self._node.standbys.start(self._prefix(request, "service"), by="by hand")
        return {}

    def delayed(self, _request: Request, _connection: Connection) -> dict[str, Any]:
        return {"delayed": views.delayed(self._node)}

    def delay_verdict(self, request: Request, _connection: Connection) -> dict[str, Any]:
        text = get_text(request, "verdict")
        if text not in VERDICTS:
            raise RequestError(f"a verdict is one of {', '.join(VERDICTS)}, not {text!r}")
        number = self._node.delay_verdict(self._prefix(request, "service"), DelayVerdict(text))
        return {"packets": number}


def _arrival(request: Request) -> Arrival | None:
    """Where the SYN of an `explain` request comes from; None: from a program of this host."""
    client, received_at = get_address(request, "client"), get_address(request, "received_at")
    if client is None or received_at is None:
        if client or received_at:
            raise RequestError("'client' and 'received_at' belong together")
        return None
    sources = get_list(request, "sources", [])
    path = tuple(address(to_address(item, "sources")) for item in sources)
    return Arrival(address(client), address(received_at), path)


_OPERATIONS: dict[str, Operation] = {
    name: getattr(Operations, name)
    for name in (
        "accepted",
        "address",
        "adhoc",
        "auto_migrate",
        "bind",
        "connect",
        "connected",
        "datagram_connect",
        "datagram_open",
        "delay_verdict",
        "delayed",
        "encapsulation",
        "events",
        "explain",
        "flow_release",
        "flow_reserve",
        "flows",
        "hosts",
        "listeners",
        "load",
        "migrate",
        "migrate_congestion",
        "mode",
        "names",
        "resolve",
        "router",
        "rule_remove",
        "rule_set",
        "sender",
        "snapshot",
        "standby",
        "standbys",
        "start",
        "stat",
        "status",
        "table",
        "unbind",
    )
}
