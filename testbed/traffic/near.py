"""The near end of one stream, the one that connects: `python -m testbed.traffic.near PATH PROGRESS` takes orders there.

connect  target, bind, protocol, subflow, congestion, direction, rate, reconnect, within
         connect, and try again for `within` seconds; then the other end is ready too. bind: the source's address;
         rate: bit/s; reconnect: seconds of silence after which a new connection goes on with the stream, null:
         never; subflow: whether to wait for MPTCP's second path. {"local", "congestion"}: its port is local[1]
begin    [connect]   data flows from now on; with an order `connect`, connect first
port     {"port"} of this end of the connection, null while there is none
stop     the stream is over now
and those of `testbed.traffic.ends`
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from typing import Any

from testbed.traffic import flow, mptcp
from testbed.traffic.ends import End
from testbed.traffic.orders import Operation, serve_orders
from testbed.traffic.pattern import Source, WrongData

DOWN = "down"
RETRY_SECONDS = 0.05
CONNECT_SECONDS = 3.0
"""Longest time of one attempt."""


class Near(End):
    """One stream."""

    def __init__(self, progress: str) -> None:
        super().__init__(progress)
        self.source = Source()
        self.connects: list[dict[str, Any]] = []
        self._wanted: dict[str, Any] = {}
        self._begun: float | None = None

    def operations(self) -> dict[str, Operation]:
        return {
            **super().operations(),
            "connect": self.connect,
            "begin": self.begin,
            "port": self.port,
            "stop": self.stop,
        }

    # -- orders

    def connect(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        self._wanted = order
        self.connection, congestion = self._connected(order["within"], order["bind"])
        return {"local": self.connection.getsockname(), "congestion": congestion}

    def begin(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        if "connect" in order:
            self._wanted = order["connect"]
        self.thread = threading.Thread(target=self._carry, daemon=True)
        self.thread.start()
        return {}

    def port(self, _order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        try:
            return {"port": None if self.connection is None else self.connection.getsockname()[1]}
        except OSError:  # closed, and the next one is not there yet
            return {"port": None}

    def stop(self, _order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        self.stopping = True
        if self._wanted.get("direction") == DOWN and self.connection is not None:
            try:
                self.connection.send(b".", socket.MSG_DONTWAIT)
            except OSError as error:
                return {"unheard": str(error)}  # the connection is dead, and the far end is ended anyway
        return {}

    def finish(self, order: dict[str, Any], tell: Any) -> dict[str, Any]:
        told = super().finish(order, tell)
        connects = [{**one, "at": one["at"] - order["zero"]} for one in self.connects]
        return {**told, "connects": connects}

    # -- the stream

    def _carry(self) -> None:
        """In a thread of its own: the stream from its beginning to its end."""
        try:
            if self.connection is None:
                self.connection, _ = self._connected(self._wanted["within"], self._wanted["bind"])
            self._begun = time.monotonic()
            flow.write_line(self.connection, {})
            while not self._over():
                self.connection = self._again()
        except (OSError, ValueError) as error:
            self.fail(error)

    def _over(self) -> bool:
        """Whether the stream has come to its end over the connection. Raises OSError where a new one does not help."""
        assert self.connection is not None
        try:
            if self._wanted["direction"] == DOWN:
                self._receive(self.connection)
            else:
                self._send(self.connection)
        except WrongData:
            raise
        except OSError:
            if self.stopping or self._wanted["reconnect"] is None:
                raise
            self.connection.close()
            return False
        return True

    def _receive(self, connection: socket.socket) -> None:
        flow.be_patient(connection, self._wanted["reconnect"])
        flow.receive(connection, self.verifier, self.samples)
        if not self.stopping:
            raise ConnectionError("the far end has ended")
        if not self.closed:
            self.ended = time.monotonic()

    def _send(self, connection: socket.socket) -> None:
        assert self._begun is not None
        reconnect = self._wanted["reconnect"]
        flow.be_patient(connection, reconnect)
        if reconnect is not None:
            threading.Thread(target=self._watch, args=(connection,), daemon=True).start()
        flow.send(
            connection,
            self.source,
            self.samples,
            rate=self._wanted["rate"],
            begun=self._begun,
            stopped=lambda: self.stopping,
        )
        flow.await_end(connection)

    def _watch(self, connection: socket.socket) -> None:
        """Give a connection up over which nothing is acknowledged any more."""
        try:
            flow.await_end(connection)
        except OSError:
            flow.give_up(connection)

    # -- connecting

    def _again(self) -> socket.socket:
        """A new connection that goes on with the stream, from whatever address the routes say now."""
        assert self._begun is not None
        while True:
            if self.stopping:
                raise ConnectionAbortedError("it was stopped while there was no connection")
            try:
                return self._attempt(None, limit=self._wanted["reconnect"])[0]
            except OSError:  # it stands in `connects`
                time.sleep(RETRY_SECONDS)

    def _connected(self, within: float, bind: str | None) -> tuple[socket.socket, str]:
        deadline = time.monotonic() + within
        while True:
            try:
                return self._attempt(bind, limit=CONNECT_SECONDS)
            except OSError:
                if self.stopping or time.monotonic() + RETRY_SECONDS > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _attempt(self, bind: str | None, *, limit: float) -> tuple[socket.socket, str]:
        begun = time.monotonic()
        note: dict[str, Any] = {"at": begun, "seconds": None, "ok": False}
        self.connects.append(note)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, self._wanted["protocol"])
        try:
            congestion = flow.pin(connection, self._wanted["congestion"])
            connection.settimeout(limit)
            if bind is not None:
                connection.bind((bind, 0))
            connection.connect(tuple(self._wanted["target"]))
            note["seconds"] = time.monotonic() - begun
            self._greet(connection)
        except BaseException as error:
            note["error"] = f"{type(error).__name__}: {error}"
            connection.close()
            raise
        note["ok"] = True
        connection.settimeout(None)
        return connection, congestion

    def _greet(self, connection: socket.socket) -> None:
        wanted = self._wanted
        hello = {name: wanted[name] for name in ("direction", "rate")}
        elapsed = None if self._begun is None else time.monotonic() - self._begun
        acknowledge = wanted["reconnect"] is not None
        hello |= {"elapsed": elapsed, "offset": self.verifier.position, "acknowledge": acknowledge}
        flow.write_line(connection, hello)
        answer = flow.read_line(connection)
        self.source.position = answer["offset"]
        if wanted["subflow"]:
            mptcp.await_subflow(connection)


def main() -> None:
    path, progress = sys.argv[1:]
    gc.freeze()
    gc.disable()  # a collection is milliseconds; what a stream makes is gone with its references
    serve_orders(path, Near(progress).operations())


if __name__ == "__main__":
    main()
