"""What the controller's tests put around a real controller process: scripted nodes on real channels, `servicectl`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serval_node.control import experimenter, messages
from serval_node.control.channel import ChannelFailed, NodeChannel, Request
from serval_node.control.local import Client
from serval_node.control.messages import Binding, NodeState
from serval_node.control.rules import RuleSpec
from serval_node.wire.serviceid import Prefix

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT = 20.0
WAIT_LIMIT = 10.0
PROVIDER = "example=0x9c1185"


def wait_for(what: str, condition: Callable[[], Any], limit: float = WAIT_LIMIT) -> Any:
    """The first true value of `condition`, asked until `limit` seconds have passed."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {limit:g} s (last: {value!r})")
        time.sleep(0.01)


class Controller:
    """A running `controllers.run`; on a port and a socket of its own."""

    def __init__(self, directory: Path, port: int, *options: str) -> None:
        self.port = port
        self.socket = str(directory / "controller.sock")
        self.log = directory / "controller.log"
        self._options = options
        self.process: subprocess.Popen[str] | None = None

    def command(self, *options: str) -> list[str]:
        fixed = ["--port", str(self.port), "--socket", self.socket, "--log", str(self.log), "--provider", PROVIDER]
        return [sys.executable, "-m", "controllers.run", *fixed, *self._options, *options]

    def start(self) -> str:
        """Returns its ready line."""
        self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "ready" in line, f"no ready line; see {self.log}"
        return line

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit status; 0 also when it does not run."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with Client(self.socket) as client:
            return client.request(op, **fields)

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "controllers.ctl", "--socket", self.socket, *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)


class ScriptedNode:
    """A node that obeys its controller: a real channel below a table that is only a dictionary."""

    def __init__(self, controller: Controller, number: int, name: str, address: str, **fields: Any) -> None:
        self.name, self.address = name, address
        self.controller = controller
        self.rules: dict[Prefix, RuleSpec] = {}
        self.bindings: dict[Prefix, Binding] = {}
        self.changes: list[messages.Message] = []
        self.loads: dict[str, float] = {}
        self.refuse = ""
        self._fields = {"role": "host", **fields}
        self._lock = threading.Lock()
        self._datapath_id = experimenter.node_datapath_id(number)
        self._channel = NodeChannel(datapath_id=self._datapath_id, state=self._state)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def connect(self) -> ScriptedNode:
        sock = socket.create_connection(("127.0.0.1", self.controller.port), timeout=WAIT_LIMIT)
        self._socket = sock
        with self._lock:
            self._channel.connected(time.monotonic())
            sock.sendall(self._channel.take_output())
        self._thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
        self._thread.start()
        wait_for(f"{self.name}'s handshake", lambda: self._channel.up)
        return self

    def disconnect(self) -> None:
        """Close the connection, as the kernel does for a killed process."""
        sock, self._socket = self._socket, None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the controller was first
            assert self._thread is not None
            self._thread.join(WAIT_LIMIT)
            sock.close()
        with self._lock:
            self._channel.disconnected()

    def freeze(self) -> None:
        """Stop reading, but leave the connection open: a host that hangs."""
        self._lock.acquire()

    def thaw(self) -> None:
        self._lock.release()

    def bind(self, prefix: Prefix, **fields: Any) -> None:
        self.bindings[prefix] = Binding(prefix, **fields)
        self._send(messages.Register(self.bindings[prefix]))

    def unbind(self, prefix: Prefix) -> None:
        del self.bindings[prefix]
        self._send(messages.Unregister(prefix))

    def _send(self, message: messages.NodeMessage) -> None:
        with self._lock:
            if self._channel.send(message):
                assert self._socket is not None
                self._socket.sendall(self._channel.take_output())

    def _state(self) -> NodeState:
        return NodeState(
            name=self.name,
            boot="1",
            addresses=(self.address,),
            bindings=tuple(self.bindings.values()),
            rules=tuple(self.rules.values()),
            **self._fields,
        )

    def _serve(self, sock: socket.socket) -> None:
        while True:
            try:
                sock.settimeout(None)
                data = sock.recv(65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self._channel.receive(data, time.monotonic())
                for event in self._channel.take_events():
                    assert not isinstance(event, ChannelFailed), event
                    if isinstance(event, Request):
                        self._obey(event)
                try:
                    sock.sendall(self._channel.take_output())
                except OSError:
                    return

    def _obey(self, request: Request) -> None:
        message = request.message
        if isinstance(message, messages.RulesGet):
            self._channel.answer(request.xid, messages.Rules(tuple(self.rules.values())))
            return
        if isinstance(message, messages.StatsGet):
            services = tuple(messages.ServiceLoad(prefix, 3) for prefix in self.bindings)
            self._channel.answer(request.xid, messages.Stats(services))
            return
        if isinstance(message, messages.Loads):
            self.loads.update(message.loads)
            return
        self.changes.append(message)
        if self.refuse:
            self._channel.result(request.xid, self.refuse)
            return
        if isinstance(message, messages.RuleSet):
            self.rules[message.rule.prefix] = message.rule
        elif isinstance(message, messages.RuleRemove):
            self.rules.pop(message.prefix, None)
        self._channel.result(request.xid)


def stdout_json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
