"""A real virtual machine in a running network: a QEMU guest with servald that moves live from host to host.

with ServalNetwork(topology) as net:
    vm = VirtualMachine(net, host="h1", address="10.1.0.10/24", gateway="10.1.0.254")
    vm.start()
    record = vm.move(to="h2", address="10.2.0.10/24", gateway="10.2.0.254")
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from testbed import hosts, vm_requirements
from testbed.controller_process import CONTROLLER_HOST, CONTROLLER_PORT
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode
from testbed.network import ServalNetwork
from testbed.vm import migration, plug, saved
from testbed.vm.bundle import bundle
from testbed.vm.machine import HOST_MTU, Machine
from testbed.vm.seat import Seat
from testbed.vm.witness import Sighting, Witness
from testbed.vm_migration import REAL, MoveRecord, check_place

FIRST_NODE_ID = 1 << 16
"""Above the numbers of a topology's own nodes."""
SERVALD_SECONDS = 30.0
NOTICE_SECONDS = 3.0
"""How long a moved guest may take to notice it; QEMU announces it five times within a second."""
SERVAL_SECONDS = 5.0
"""How long the first packets of its flows are waited for after that."""
_node_ids = itertools.count(FIRST_NODE_ID)


@dataclass(frozen=True)
class _Place:
    interface: IPv4Interface
    gateway: IPv4Address

    @property
    def address(self) -> str:
        return str(self.interface.ip)

    def order(self) -> dict[str, Any]:
        """As the agent is told."""
        length = self.interface.network.prefixlen
        return {"address": self.address, "prefix_length": length, "gateway": str(self.gateway)}


class VirtualMachine:
    """The real form of testbed.vm_migration.VmForm.

    net      a running network
    host     the name of the host that it begins on
    address  its address there, "10.1.0.10/24", and `gateway`
    name     of the guest and its Serval node; short, since it is part of interfaces' names
    options  more of its node's configuration (serval_node.daemon.config): {"rules": [...]}
    """

    form = REAL

    def __init__(
        self,
        net: ServalNetwork,
        *,
        host: str,
        address: str,
        gateway: str,
        name: str = "vm",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        vm_requirements.require()
        self._net = net
        self._name = name
        self._options = dict(options or {})
        self._node = net.find(host)
        self._place = self._checked_place(self._node, address, gateway)
        self._node_id = next(_node_ids)
        self._booted: saved.Booted | None = None
        self._seat: Seat | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def host(self) -> str:
        return self._node.name

    @property
    def address(self) -> str:
        return self._place.address

    @property
    def accelerator(self) -> str:
        """How its processor is made: "kvm" or "tcg"; raises TestbedError before its start."""
        return self._state().accelerator

    @property
    def pid(self) -> int:
        """The process of the QEMU that it runs in now; raises TestbedError."""
        return self._machine().pid

    # -- life

    def start(self) -> None:
        """Start it from the saved state, which is made at the first time, until its node is ready and known."""
        if self._seat is not None:
            raise TestbedError(f"{self._name} is running already")
        self._booted = saved.booted(self._net.say, self._net.logs)
        self._net.undo_at_stop(f"the virtual machine {self._name}", self.stop)
        self._net.vms[self._name] = self
        self._seat = self._take_seat(self._node)
        try:
            self._booted.restore(self._seat.machine)
            self._begin(self._seat.machine)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it. May be called again."""
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.leave()

    def _begin(self, machine: Machine) -> None:
        """Make the restored guest this one, and start its node."""
        entropy = base64.b64encode(os.urandom(32)).decode()
        mtu = min(HOST_MTU, plug.mtu(self._node))
        machine.agent.order("begin", mac=_mac(self._name), mtu=mtu, time=time.time(), entropy=entropy)
        machine.agent.order("place", **self._place.order())
        machine.begin_controller()
        machine.agent.order("servald", config=self._configuration(), timeout=SERVALD_SECONDS)
        if self._net.has_controller:
            self._net.wait(
                f"the controller knows {self._name}",
                lambda: self._name in self._net.controller_request("status")["nodes"],
                log=self._net.logs / "controller.log",
            )

    def _configuration(self) -> dict[str, Any]:
        addresses = {host.name: host.addresses()[0] for host in self._net.hosts if host.addresses()}
        channel = {"host": CONTROLLER_HOST, "port": CONTROLLER_PORT} if self._net.has_controller else None
        return {
            "role": "host",
            "providers": dict(self._net.providers),
            **self._options,
            "name": self._name,
            "node_id": self._node_id,
            "controller": channel,
            "hosts": {**addresses, self._name: self.address},
        }

    # -- what goes on inside

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request to its node's control socket."""
        return self._machine().agent.order("ask", request={"op": op, **fields})["answer"]

    def run(self, name: str, argv: Sequence[str], *, modules: Sequence[str] = ()) -> None:
        """Start a program inside, in the background."""
        agent, path = self._machine().agent, f"/tmp/{name}.zip"
        if modules:
            agent.order("put", path=path, data=base64.b64encode(bundle(modules)).decode())
        agent.order("run", name=name, argv=list(argv), python_path=path if modules else None)

    def output(self, name: str) -> str:
        """What a program has printed until now."""
        return self._machine().agent.order("output", name=name)["output"]

    def end(self, name: str) -> str:
        """End a program and return all that it printed."""
        return self._machine().agent.order("end", name=name)["output"]

    def clock_offset(self) -> tuple[float, float]:
        """What to add to a time of the guest's monotonic clock for one of the host's, and the uncertainty; seconds."""
        return self._machine().agent.offset()

    # -- the move

    def move(self, to: str, *, address: str, gateway: str) -> MoveRecord:
        """Move it live to another host and its subnet, and see what its node does about it.

        When the migration fails, it goes on where it is.
        """
        node, left = self._net.find(to), self._running()
        if node is self._node:
            raise TestbedError(f"{self._name} is on {to} already")
        place, old = self._checked_place(node, address, gateway), self._place
        self._check_way(node)
        flows = self._open_flows()
        seat = self._take_seat(node)
        try:
            witness = Witness(node, seat.tap, self._net.logs / f"vm-{self._name}-move.pcap")
        except BaseException:
            seat.leave()
            raise
        try:
            transfer = self._transfer(left, seat, place)
            self._seat, self._node, self._place = seat, node, place
            figures = {**transfer.figures, **self._arrived(seat.machine)}
            until = time.monotonic() + SERVAL_SECONDS
            seen = witness.wait_data(self.address, until=until) if flows else Sighting()
        finally:
            witness.close()
        left.leave()
        seat.machine.begin_controller()
        return MoveRecord(
            REAL,
            left.node.name,
            node.name,
            old.address,
            place.address,
            ordered=transfer.ordered,
            stopped=transfer.stopped,
            resumed=transfer.resumed,
            asked=seen.asked,
            answered=seen.answered,
            data=seen.data,
            bytes_moved=transfer.bytes_moved,
            figures={**figures, "accelerator": self.accelerator},
        )

    def _transfer(self, left: Seat, seat: Seat, place: _Place) -> migration.Transfer:
        try:
            left.machine.agent.order("expect", **place.order())
            return migration.migrate(left.machine, seat.machine, _address_of(seat.node))
        except TestbedError as error:
            here = left.node.name if self._stays(left, seat) else "nowhere"
            raise TestbedError(f"{error.message}; {self._name} is on {here}", error.hint) from None
        except BaseException:  # Ctrl-C
            self._stays(left, seat)
            raise

    def _stays(self, left: Seat, seat: Seat) -> bool:
        """After a failed migration: give the new seat up, and tell the guest to stay. Whether it runs where it was."""
        seat.leave()
        try:
            left.machine.agent.order("expect")
        except TestbedError:
            return False  # it had stopped there already
        return True

    def _arrived(self, machine: Machine) -> dict[str, Any]:
        """Wait until the moved guest has its new address; how it came to that, and how long that took by its clock."""
        moved = machine.agent.wait_event("moved", timeout=NOTICE_SECONDS)
        if moved is None:
            machine.check_alive()
            # The announcement was lost on the way. The figures say that it did not notice by itself.
            machine.agent.order("place", **self._place.order())
            return {"noticed": "told by the host"}
        if "error" in moved:
            raise TestbedError(f"{self._name} has moved and could not take its new address: {moved['error']}")
        return {"noticed": "by itself", "guest_address_seconds": moved["done"] - moved["noticed"]}

    def _open_flows(self) -> int:
        return sum(row.get("state") == "CONNECTED" for row in self.ask("flows")["flows"])

    # -- parts

    def _state(self) -> saved.Booted:
        if self._booted is None:
            raise TestbedError(f"{self._name} has not been started", "start() starts it")
        return self._booted

    def _running(self) -> Seat:
        if self._seat is None:
            raise TestbedError(f"{self._name} is not running", "start() starts it")
        self._seat.machine.check_alive()
        return self._seat

    def _machine(self) -> Machine:
        return self._running().machine

    def _take_seat(self, node: EmulatedNode) -> Seat:
        controller = (CONTROLLER_HOST, CONTROLLER_PORT) if self._net.has_controller else None
        return Seat.take(node, self._name, self._state(), controller=controller, logs=self._net.logs)

    def _check_way(self, node: EmulatedNode) -> None:
        """Raises TestbedError when the hosts do not reach each other: seen now, and not by QEMU on the way."""
        address = _address_of(node)
        try:
            hosts.run(self._node, ["ping", "-n", "-q", "-c", "1", "-W", "2", address])
        except TestbedError:
            raise TestbedError(
                f"{self._name} cannot move: {self._node.name} does not reach {node.name} ({address})",
                f"see: {self._node.name} ping {address}, {self._node.name} ip route, {node.name} ip route",
            ) from None

    def _checked_place(self, node: EmulatedNode, address: str, gateway: str) -> _Place:
        """Raises TestbedError when the address is not of the host's subnet, or somebody has it."""
        interface, router = check_place(address, gateway)
        plug.check_uplink(node)
        uplink = node.defaultIntf()
        if interface.network != IPv4Interface(f"{uplink.ip}/{uplink.prefixLen}").network:
            raise TestbedError(
                f"{interface} is not of the subnet that {node.name} is in",
                f"{node.name} has {uplink.ip}/{uplink.prefixLen}; a guest is plugged in beside it",
            )
        for other in self._net.hosts:
            if str(interface.ip) in other.addresses():
                raise TestbedError(f"{other.name} has the address {interface.ip} already")
        return _Place(interface, router)


def _address_of(node: EmulatedNode) -> str:
    return node.defaultIntf().ip


def _mac(name: str) -> str:
    """A hardware address of its own for each name, of the range that is for local use."""
    return ":".join(f"{byte:02x}" for byte in (0x02, *hashlib.sha256(name.encode()).digest()[:5]))
