"""The agent: PID 1 of a guest. It serves the host's orders, and takes the guest to its next address when it has moved.

Orders come as JSON lines, {"id", "op", ...}, over a virtio-serial port; each is answered by {"id", "ok": true, ...} or
{"id", "ok": false, "error"}. Lines without "id" tell what happened: {"event": "ready"}, {"event": "moved", "noticed",
"done"} with times of the guest's own monotonic clock.

    clock                                 {"monotonic"}: the guest's clock
    begin    mac, mtu, time, entropy      what guests from one saved state must not share
    place    address, prefix_length, gateway   go there now
    expect   [address, prefix_length, gateway]  go there after the next move; nothing: go nowhere
    servald  config                       start it: {"warnings"} when it is ready
    ask      request                      {"answer"} of servald's control socket
    put      path, data                   write a file, base64
    run      name, argv[, python_path]    start a program in the background
    output   name                         {"output", "status"}: what it printed, and how it ended (null: it runs)
    end      name                         the same after ending it
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serval_node.control.local import Client, ControlError

from .controller import ControllerWay
from .names import AGENT_PORT, CONTROLLER_PORT
from .network import Change, Network, Place
from .ports import Loop, Port, open_port
from .programs import Programs, start_servald

ASK_SECONDS = 5.0
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207

Answer = dict[str, Any]


class Agent:
    """Everything hangs on one loop in one thread: so servald can be forked from it."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._network = Network()
        self._programs = Programs()
        self._controller = ControllerWay(self._loop, open_port(CONTROLLER_PORT))
        self._next: tuple[Place, Change] | None = None
        self._operations: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "clock": self._clock,
            "begin": self._begin,
            "place": self._place,
            "expect": self._expect,
            "ask": self._ask,
            "put": self._put,
            "run": self._run,
            "output": self._output,
            "end": self._end,
        }
        self._port = Port(self._loop, open_port(AGENT_PORT), self._order)
        self._loop.watch(self._network.fileno(), self._link_news)
        self._watch_children()

    def serve(self) -> None:
        self._port.send({"event": "ready"})
        self._loop.run()

    def _watch_children(self) -> None:
        ended, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)

        def reap() -> None:
            os.read(ended, 4096)
            self._programs.reap()

        self._loop.watch(ended, reap)

    def _order(self, order: dict[str, Any]) -> None:
        number, op = order.get("id"), order.get("op")
        try:
            if op == "servald":
                self._servald(order)
                return
            answer = {"id": number, "ok": True, **self._operations[str(op)](order)}
        except KeyError as error:
            answer = {"id": number, "ok": False, "error": f"no operation {op}, or it lacks {error}"}
        except (OSError, ValueError, ControlError) as error:
            answer = {"id": number, "ok": False, "error": f"{op}: {error}"}
        self._port.send(answer)

    # -- the link

    def _link_news(self) -> None:
        moved = self._network.moved()
        if not moved or self._next is None:
            return
        noticed = time.monotonic()
        there, self._next = self._next, None
        try:
            self._network.go(*there)
        except OSError as error:
            self._port.send({"event": "moved", "noticed": noticed, "error": str(error)})
            return
        self._port.send({"event": "moved", "noticed": noticed, "done": time.monotonic()})

    def _place(self, order: dict[str, Any]) -> Answer:
        self._next = None
        place = _place_of(order)
        self._network.go(place, self._network.prepare(place))
        return {}

    def _expect(self, order: dict[str, Any]) -> Answer:
        self._next = None
        if "address" in order:
            place = _place_of(order)
            self._next = place, self._network.prepare(place)
        return {}

    # -- this guest's own

    def _clock(self, order: dict[str, Any]) -> Answer:
        return {"monotonic": time.monotonic()}

    def _begin(self, order: dict[str, Any]) -> Answer:
        time.clock_settime(time.CLOCK_REALTIME, order["time"])
        entropy = base64.b64decode(order["entropy"])
        with open("/dev/urandom", "wb") as device:
            fcntl.ioctl(device, _RNDADDENTROPY, struct.pack("=ii", 8 * len(entropy), len(entropy)) + entropy)
            fcntl.ioctl(device, _RNDRESEEDCRNG)
        self._network.configure(order["mac"], order["mtu"])
        return {}

    # -- servald and other programs

    def _servald(self, order: dict[str, Any]) -> None:
        config = order["config"]
        if config.get("controller"):
            self._controller.listen(config["controller"]["port"])
        told = start_servald(config)

        def ready() -> None:
            said = os.read(told, 1 << 16)
            self._loop.forget(told)
            os.close(told)
            answer = json.loads(said) if said else {"ok": False, "error": "servald ended during its start"}
            self._port.send({"id": order["id"], **answer})

        self._loop.watch(told, ready)

    def _ask(self, order: dict[str, Any]) -> Answer:
        request = dict(order["request"])
        with Client(timeout=ASK_SECONDS) as client:
            return {"answer": client.request(request.pop("op"), **request)}

    def _put(self, order: dict[str, Any]) -> Answer:
        Path(order["path"]).write_bytes(base64.b64decode(order["data"]))
        return {}

    def _run(self, order: dict[str, Any]) -> Answer:
        self._programs.run(order["name"], order["argv"], order.get("python_path"))
        return {}

    def _output(self, order: dict[str, Any]) -> Answer:
        name = order["name"]
        return {"output": self._programs.output(name), "status": self._programs.status(name)}

    def _end(self, order: dict[str, Any]) -> Answer:
        self._programs.end(order["name"])
        return self._output(order)


def _place_of(order: dict[str, Any]) -> Place:
    return Place(order["address"], order["prefix_length"], order["gateway"])


if __name__ == "__main__":
    Agent().serve()
