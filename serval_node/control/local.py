"""The local control socket: JSON lines over a unix stream socket, one request and one answer at a time.

    {"op": "rule_remove", "prefix": "0x9c1185/24"}   ->   {"ok": true, ...}
                                                     or   {"ok": false, "error": "one clear line"}

An operation that reports as it goes answers `{"ok": true, "stream": true}` first and then one object per line;
`{"end": true}` ends the stream, and so does closing the connection. servald has one, `standby`.

Operations of servald. Services and prefixes are accepted in every text form of `serval_node.wire.naming`; they are
given back by name where the node knows it, prefixes also as "0xHEX/BITS"; addresses are dotted text.

    status                                    name, role, addresses, controller and whether its channel is up, warnings
    table     [service]                       {"entries": [...]}: every rule (or those that the service meets), longest
                                              prefix first, with origin, targets and counters
    flows     [flow_ids]                      {"flows": [...]}: every flow, then reserved flowIDs; or those with the ids
    stat                                      {"counters": {...}}: drops and refusals by reason, data path totals
    names                                     {"names": [...]}: virtual addresses given to names
    hosts                                     {"hosts": {...}}: host names and real addresses
    events    [since | after][, last, kinds, service, flow_id]  {"events": [...], "now", "number", "boot"}: what the
                                              stack did since a monotonic time, or after the event of this number; the
                                              `last` ones, of these kinds (class names of serval_node.sal.events),
                                              service or flow. "number" is that of the last event, for the next
                                              `after`; with that, "missed" counts those that are not kept any more
    snapshot  parts[, since, last]            {"status", "now", part: ...} of one moment; parts are of "table", "flows"
                                              and "events": the `last` ones since a monotonic time
    explain   service[, client, received_at[, sources]][, protocol]  what a SYN would meet here, sending and
                                              counting nothing: the "rules" that match, longest first, with "place"
                                              and the targets' "standing", "share", "taken", "refusal", "errno"; where
                                              no rule decides, "refusal" and "errno" of the whole. With client and
                                              received_at: of a SYN from the network with this SOURCE list
    resolve   service                         {"service", "prefix", "bits", "name_bits"}: the prefix of a bind
    address   name[, port]                    {"address", "port", "service"}: where a program connects to reach it
    rule_set  prefix, targets[, selector, idle_timeout, hard_timeout, expect]  add or replace the hand-made rule of a
                                              prefix; targets as in TargetSpec; with expect, only where such a rule is
                                              "absent" or "present"
    rule_remove  prefix                       {"rule"}: remove what a hand or the controller set, with its counters
    delayed                                   {"delayed": [...]}: services with queued packets, and whose these are
    delay_verdict  service, verdict           "release", "drop" or "refuse" the queued packets of a service: {"packets"}
    mode      [mode, forwarding]              the resolution mode, whether this is a service router, the DELAY limits
    standby   service                         a stream: {"start": service, "by"} when the program that this connection
                                              stands for shall start
    standbys                                  {"standbys": [...]}: what is offered so on this host
    start     service                         start the first of them that is offered for the service
    listeners [udp]                           {"boot", "listeners": [...]}: inode, port, protocol, services of listening
                                              sockets, and with udp of UDP sockets that have a port
    bind      service, port[, inodes][, protocol]  what listens on the kernel port becomes an instance: {"service",
                                              "prefix", "warnings"}; "name:port" binds one port field, a name all
    unbind    service, port[, protocol]       the reverse; the end of the listening socket does the same
    load      service[, figure]               {"flows", "figure"}: how busy this host is with a service that it serves:
                                              open flows, or what the instance says in their place; null: flows again
    flow_reserve                              {"flow_id"}: a local flowID, held until released or this connection ends
    flow_release  flow_id
    migrate   flow_id | from | service, to    move a flow, those at an interface or address, or those of a service to
                                              an interface or own address: {"flows": [{"flow_id", "source", "target",
                                              "refusal"}]}; the RSYNs are on their way, `events` tells the end
    auto_migrate  [trigger], [on]             {"triggers"}: what makes flows move by themselves; sets one or all of them
    adhoc     [on][, relay][, hops]           ad hoc mode: {"on", "relay", "hops", "links": [{"interface", "address",
                                              "broadcast"}], "default": whose rule takes what no longer prefix matches}
    encapsulation  [mode[, peer]]             {"mode", "peers", "learned"}: what goes inside UDP; mode is raw, udp, auto
    router    [find]                          the search for a service router: {"is_router", "state", "router", "name",
                                              "found", "heard", "answered", "default"}; find: begin (anew), or stop
    migrate_congestion  [state]               {"state"}: "keep" or "reset", what a lost path means for the kernel's
                                              congestion window
    connect   service, local_port[, flow_id]  {"address", "port", "flow_id"}: announces the next SYN of a kernel port
    connected address, port, local_port[, protocol]  {"flow_id", "peer_flow", "peer", "host"} of a connected socket
    accepted  peer, peer_port, local_port[, protocol]  {"local_service", "name", "flow_id"} of an accepted kernel socket
    datagram_open  service, local_port, inode[, announced]  {"flow_id"}: this UDP socket sends unconnected
                                              datagrams under the service, and receives those for it
    datagram_connect  service, local_port     {"address", "port", "refusal"}: a flow for a UDP socket; "refusal" is the
                                              errno's name when no rule of this host leads there
    sender    peer, peer_port, local_port     {"service"}: who sent an unconnected datagram, null for a flow's

The controller's hand-control socket (`controllers.hand`) speaks the same protocol with operations of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

CONTROL_PATH = "/run/serval/control.sock"
"""Where a program inside a host finds the host's servald."""

MAX_LINE = 64 << 20
"""Longest accepted line in bytes: a service table of 100,000 rules fits."""

DEFAULT_TIMEOUT = 10.0

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class ControlError(Exception):
    """A request did not succeed; the text is one line for the user."""


class ControlUnreachable(ControlError):
    """Nothing answers at the path, or the answer did not come in time."""


class ProtocolError(ControlError):
    """What came is not a line of this protocol."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as a line, newline included."""
    return _to_json(message).encode() + b"\n"


def refusal(reason: str) -> dict[str, Any]:
    """The answer to a request that cannot be served; `reason` becomes one line."""
    return {"ok": False, "error": " ".join(reason.split()) or "refused without a reason"}


class LineDecoder:
    """Bytes in, messages out; for servers and for clients that bring their own I/O.

    `feed` raises ProtocolError for a line that is not a JSON object, and for one longer than `limit` bytes. After
    that the connection is of no use.
    """

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        self._buffer += data
        messages = []
        # Only what is new can hold the newline; searching all of it again would make long lines quadratic.
        search_from = len(self._buffer) - len(data)
        start = 0
        while (end := self._buffer.find(b"\n", max(start, search_from))) >= 0:
            messages.append(_decode(bytes(self._buffer[start:end])))
            start = end + 1
        del self._buffer[:start]
        if len(self._buffer) > self._limit:
            raise ProtocolError(f"a line of more than {self._limit} bytes")
        return messages


def _decode(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("not a line of JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("not a JSON object")
    return message


def checked(answer: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The answer without its `ok`; raises ControlError with the daemon's line when it is a refusal."""
    ok = answer.get("ok")
    if ok is True:
        return {key: value for key, value in answer.items() if key != "ok"}
    if ok is False:
        raise ControlError(str(answer.get("error", "refused without a reason")))
    raise ProtocolError(f"{path} gave an answer without 'ok'")


def _unreachable(path: str, error: OSError) -> ControlUnreachable:
    if isinstance(error, FileNotFoundError) and path == CONTROL_PATH and not _entries(os.path.dirname(path)):
        # A node that has ended leaves its log there; a plain host has at most the empty directory.
        return ControlUnreachable(
            "this host has no Serval node: take one that has (under testbed mn, --host serval gives each host one)"
        )
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return ControlUnreachable(f"nothing listens on {path}: is the daemon running in this host?")
    return ControlUnreachable(f"{path}: {error.strerror or error}")


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _set_timeout(connection: socket.socket, timeout: float | None) -> None:
    """As settimeout(), which makes a system call also where nothing changes."""
    if connection.gettimeout() != timeout:
        connection.settimeout(timeout)


class Client:
    """Synchronous client; one connection, opened by the first request and kept.

        with Client("/run/serval/control.sock") as client:
            entries = client.request("table")["entries"]

    `timeout` (seconds) limits each wait for an answer. Raises only ControlError and its subclasses.
    """

    def __init__(self, path: str = CONTROL_PATH, *, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        self.path = path
        self.timeout = timeout
        self._socket: socket.socket | None = None
        self._decoder = LineDecoder()
        self._pending: list[dict[str, Any]] = []

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send one request and return its answer without `ok`."""
        self._send({"op": op, **fields})
        return checked(self._receive(self.timeout), self.path)

    def stream(self, op: str, *, timeout: float | None = None, **fields: Any) -> Iterator[dict[str, Any]]:
        """Send one request and yield what it reports until its end; the connection is closed afterwards.

        `timeout` limits the wait for each report; None waits as long as it takes. The request is sent, and refused,
        before this returns.
        """
        self._send({"op": op, **fields})
        checked(self._receive(self.timeout), self.path)
        return self._reports(timeout)

    def _reports(self, timeout: float | None) -> Iterator[dict[str, Any]]:
        try:
            while True:
                message = self._receive(timeout)
                if message.get("end"):
                    return
                yield message
        finally:
            self.close()

    def fileno(self) -> int:
        """The connection's descriptor (opened on demand), for a caller that polls a stream."""
        return self._connection().fileno()

    def close(self) -> None:
        connection, self._socket = self._socket, None
        self._decoder, self._pending = LineDecoder(), []
        if connection is not None:
            connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connection(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self.timeout)
            try:
                connection.connect(self.path)
            except OSError as error:
                connection.close()
                raise _unreachable(self.path, error) from None
            self._socket = connection
        return self._socket

    def _send(self, message: Mapping[str, Any]) -> None:
        connection = self._connection()
        try:
            _set_timeout(connection, self.timeout)
            connection.sendall(encode(message))
        except OSError as error:
            self.close()
            raise _unreachable(self.path, error) from None

    def _receive(self, timeout: float | None) -> dict[str, Any]:
        connection = self._connection()
        try:
            _set_timeout(connection, timeout)
            while not self._pending:
                data = connection.recv(65536)
                if not data:
                    raise ControlUnreachable(f"{self.path} closed the connection")
                self._pending = self._decoder.feed(data)
        except TimeoutError:
            self.close()
            raise ControlUnreachable(f"{self.path} gave no answer within {timeout:g} s") from None
        except OSError as error:
            self.close()
            raise _unreachable(self.path, error) from None
        except ControlError:
            self.close()
            raise
        return self._pending.pop(0)


class AsyncClient:
    """The same for asyncio; requests of several tasks wait for each other."""

    def __init__(self, path: str = CONTROL_PATH, *, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        self.path = path
        self.timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send one request and return its answer without `ok`; raises ControlError."""
        async with self._lock:
            try:
                return checked(await asyncio.wait_for(self._exchange({"op": op, **fields}), self.timeout), self.path)
            except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
                await self._drop()
                raise ControlUnreachable(f"{self.path} gave no answer within {self.timeout:g} s") from None
            except asyncio.CancelledError:
                # The answer is still to come and would be taken for that of the next request.
                await self._drop()
                raise

    async def close(self) -> None:
        async with self._lock:
            await self._drop()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _exchange(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            if self._streams is None:
                self._streams = await asyncio.open_unix_connection(self.path, limit=MAX_LINE)
            reader, writer = self._streams
            writer.write(encode(message))
            await writer.drain()
            line = await reader.readline()
        except OSError as error:
            await self._drop()
            raise _unreachable(self.path, error) from None
        except ValueError:  # readline's word for a line beyond the limit
            await self._drop()
            raise ProtocolError(f"a line of more than {MAX_LINE} bytes") from None
        if not line.endswith(b"\n"):
            await self._drop()
            raise ControlUnreachable(f"{self.path} closed the connection")
        return _decode(line)

    async def _drop(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            try:
                await streams[1].wait_closed()
            except OSError:  # the connection is given up anyway
                pass
