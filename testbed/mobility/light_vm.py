"""A virtual machine in its light form: a host of the topology whose processes stand still while it is plugged in at
another host's bridge.

What is real: its addresses, routes, sockets, its Serval node, and that nothing of it runs for a time. What is not: the
kernel is the machine's own and runs on. While the processes stand still, it acknowledges what comes, its timers run,
and TCP sends again. No memory is copied, so no copy competes with the flows. docs/mobility.md says what follows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from testbed import hosts, nodes, processes, sandbox
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.mobility import freezer, precopy, replug
from testbed.mobility.precopy import PreCopy
from testbed.processes import Daemon
from testbed.switches import KernelBridge
from testbed.vm_migration import LIGHT, MoveRecord, check_place

if TYPE_CHECKING:  # it makes its virtual machines itself
    from testbed.network import ServalNetwork

SERVAL_SECONDS = 5.0
"""How long its flows may take to be answered at the new place."""
DATA_SECONDS = 1.0
"""How long data is waited for after that: a flow may have none to carry."""
POLL_SECONDS = 0.005
_MEGA = 1e6
_OPEN = ("CONNECTED", "FINWAIT1", "FINWAIT2", "CLOSEWAIT")


class LightVm:
    """The light form of testbed.vm_migration.VmForm, for a host that the topology declares with the option `vm`.

    That option says "on" which host it begins, its "memory" (MB), how much of it is "dirty" again each second (MB/s),
    and the "rate" (Mbit/s) at which it is copied: from these follows how long it stands still (precopy), unless its
    "standstill" (seconds) is more than 0.
    """

    form = LIGHT

    def __init__(self, network: ServalNetwork, host: str) -> None:
        self._network = network
        self._node: ServalHost = network.serval_host(host)
        wanted = self._node.params["vm"]
        self._host: str = wanted["on"]
        self.model: PreCopy = precopy.migrate(
            wanted["memory"] * _MEGA, wanted["dirty"] * _MEGA, wanted["rate"] * _MEGA / 8
        )
        self.standstill: float = wanted["standstill"] or self.model.standstill
        self._programs: dict[str, Daemon] = {}

    @property
    def name(self) -> str:
        return self._node.name

    @property
    def host(self) -> str:
        return self._host

    @property
    def address(self) -> str:
        return self._node.addresses()[0]

    def start(self) -> None:
        """It came with the network: this waits until its node answers."""
        self._network.wait(f"the node of {self.name} answers", self._answers, log=self._node.log_path)

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request to its node's control socket."""
        return nodes.ask(self._node, op, **fields)

    def run(self, name: str, argv: Sequence[str], *, modules: Sequence[str] = ()) -> None:
        """Start a program inside, in the background. `modules` are there anyway: it has the machine's files."""
        if name in self._programs and self._programs[name].alive:
            raise TestbedError(f"{name} is running on {self.name} already")
        words = {"python3": [sys.executable], "serval": [sys.executable, "-m", "serval_node.cli"]}
        command = [*words.get(argv[0], argv[:1]), *argv[1:]]
        self._programs[name] = processes.start(
            f"{name} on {self.name}",
            hosts.inside(self._node, command),
            log=self._network.logs / f"{self.name}-{name}.log",
            cwd=sandbox.ROOT,
        )

    def output(self, name: str) -> str:
        """What a program has printed until now."""
        return self._program(name).printed()

    def end(self, name: str) -> str:
        """End a program and return all that it printed."""
        self._program(name).stop()
        return self.output(name)

    def move(self, to: str, *, address: str, gateway: str) -> MoveRecord:
        """Stand still, be plugged in at the host `to`, run on, get the address, and see what its node does then."""
        check_place(address, gateway)
        if to == self._host:
            raise TestbedError(f"{self.name} is on {to} already")
        plug = replug.find(self._network, self.name, self._node.defaultIntf().name)
        target, flows = replug.bridge(self._network, self._bridge_of(to)), self._open_flows()
        old, source = self.address, self._host
        ordered = time.monotonic()
        with self._still():
            stopped = time.monotonic()
            _, plugged = replug.plug_in(plug, target, gap=0.0, silent=True)
            time.sleep(max(0.0, stopped + self.standstill - time.monotonic()))
        resumed = time.monotonic()
        self._host = to
        addressed = replug.readdress(plug, address, gateway)
        asked, answered, data = self._watch(flows, resumed)
        figures = {
            "standstill": self.standstill,
            "plugged": plugged - stopped,
            "addressed": addressed - resumed,
            "model_copy": self.model.copy,
            "model_rounds": self.model.rounds,
            "model_bytes": self.model.copied,
        }
        place = (self.form, source, to, old, self.address)
        return MoveRecord(*place, ordered, stopped, resumed, asked, answered, data, None, figures)

    def stand_still(self, seconds: float) -> None:
        """The control run of a move: the same standstill, and nothing moves."""
        with self._still():
            time.sleep(seconds)

    def stop(self) -> None:
        """End its programs; the host itself ends with the network."""
        for program in self._programs.values():
            program.stop()

    # -- what a move is made of

    @contextmanager
    def _still(self) -> Iterator[None]:
        try:
            freezer.freeze(self._node)
            yield
        finally:
            freezer.thaw(self._node)

    def _bridge_of(self, host: str) -> str:
        self._network.find(host)
        for link in self._network.links:
            ends = {link.intf1.node.name: link.intf2.node, link.intf2.node.name: link.intf1.node}
            if isinstance(ends.get(host), KernelBridge):
                return str(ends[host].name)
        raise TestbedError(f"{host} has no bridge that {self.name} could be plugged in at")

    def _open_flows(self) -> set[int]:
        return {row["flow_id"] for row in self.ask("flows")["flows"] if row["state"] in _OPEN}

    def _watch(self, flows: set[int], since: float) -> tuple[float | None, float | None, float | None]:
        """When the first RSYN of these flows went out, when it was answered, and when data came after that; None for
        what is not seen within SERVAL_SECONDS, or DATA_SECONDS after the answer.
        """
        asked = answered = None
        deadline = time.monotonic() + SERVAL_SECONDS
        while flows and time.monotonic() < deadline:
            events = self.ask("events", since=since, kinds=["FlowMigrated", "Blackout"])["events"]
            events = [event for event in events if event["flow_id"] in flows]
            moved = [event for event in events if event["event"] == "FlowMigrated"]
            if moved:
                asked, answered = min(event["started"] for event in moved), min(event["time"] for event in moved)
                deadline = min(deadline, answered + DATA_SECONDS)
            whole = [event for event in events if event["event"] == "Blackout" and event["recover"] is not None]
            if whole:
                return asked, answered, min(_heard(event) for event in whole)
            time.sleep(POLL_SECONDS)
        return asked, answered, None

    def _answers(self) -> bool:
        try:
            return bool(self.ask("status"))
        except TestbedError:
            return False

    def _program(self, name: str) -> Daemon:
        if name not in self._programs:
            raise TestbedError(f"{self.name} runs no program {name!r}")
        return self._programs[name]


def _heard(blackout: Mapping[str, Any]) -> float:
    """When data came after a move, on CLOCK_MONOTONIC."""
    return blackout["happened"] + sum(blackout[part] for part in ("detect", "decide", "signal", "recover"))
