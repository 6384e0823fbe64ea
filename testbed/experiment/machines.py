"""Virtual machines of the real form in a scene, as data: which stand where before anything flows. The light form is a
host of the topology, and needs no word here. Places of machines are checked against the topology. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from testbed.errors import TestbedError
from testbed.experiment.schedule import Event, SpecificationError
from testbed.vm_migration import VmForm, check_place
from testbed.words import did_you_mean

if TYPE_CHECKING:  # results are read where no Mininet is, too
    from mininet.topo import Topo

    from testbed.network import ServalNetwork
    from topologies.subnets import Place

FACT = "machines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A virtual machine that is started at a host before the traffic, and ends with the run.

    name     of the machine and of its Serval node: traffic names it as its target, `MoveVm` as its machine
    host     the host that it begins on
    address  "10.2.1.10/24", of that host's subnet, and the `gateway` there
    make     makes it in the running network, not yet started
    """

    name: str
    host: str
    address: str
    gateway: str
    make: Callable[[ServalNetwork, Machine], VmForm] = field(repr=False)

    def described(self) -> dict[str, Any]:
        """For the result file."""
        return {"name": self.name, "host": self.host, "address": self.address, "gateway": self.gateway}


def check(machines: Sequence[Machine], topology: Topo) -> None:
    """Raises SpecificationError: a name or an address that is taken, a host that is not there or in another subnet."""
    names: set[str] = set()
    addresses: dict[str, str] = {}
    for machine in machines:
        what = f"machine {machine.name!r}"
        if machine.name in topology.nodes() or machine.name in names:
            raise SpecificationError(f"{what}: the topology or another machine has this name already")
        names.add(machine.name)
        hosts = topology.hosts()
        if machine.host not in hosts:
            near = did_you_mean(machine.host, hosts)
            raise SpecificationError(
                f"{what}: the topology has no host {machine.host!r}{near}; there are: {', '.join(hosts)}"
            )
        segment = next((place.segment for place in _places(topology) if _of(place) == machine.host), None)
        if segment is None:
            raise SpecificationError(f"{what}: {machine.host} has no address, so no subnet for it")
        check_in_subnet(topology, machine.name, machine.address, machine.gateway, segment, what)
        address = machine.address.partition("/")[0]
        if address in addresses:
            raise SpecificationError(f"{what}: {addresses[address]} has the address {address}")
        addresses[address] = machine.name


def check_moves(machines: Collection[Machine], topology: Topo, events: Collection[Event]) -> None:
    """Raises SpecificationError when an event moves a machine of neither form: an action names it as its `vm`."""
    known = [host for host in topology.hosts() if "vm" in topology.nodeInfo(host)]
    known += [machine.name for machine in machines]
    for event in events:
        name = getattr(event.action, "vm", None)
        if name is not None and name not in known:
            there = ", ".join(known) or "none"
            raise SpecificationError(f"{event.action.describe()}: {name!r} is no virtual machine; there are: {there}")


def check_in_subnet(topology: Topo, name: str, address: str, gateway: str, segment: str, what: str) -> None:
    """The address is of the subnet of a segment (topologies.subnets), and nobody's but `name`'s; the gateway is
    somebody's there. Raises SpecificationError, beginning with `what`.
    """
    try:
        interface, router = check_place(address, gateway)
    except TestbedError as error:
        raise SpecificationError(f"{what}: {error.message}", error.hint) from None
    known = _places(topology)
    there = {place.address.network for place in known if place.segment == segment}
    if there and interface.network not in there:
        raise SpecificationError(f"{what}: {interface} is not in {segment}'s subnet {', '.join(map(str, there))}")
    if router not in {place.address.ip for place in known if place.segment == segment}:
        raise SpecificationError(f"{what}: nobody at {segment} has the gateway's address {router}")
    for place in known:
        if place.address.ip == interface.ip and _of(place) != name:
            raise SpecificationError(f"{what}: {place.name} has the address {interface.ip}")


def start(machines: Sequence[Machine], network: ServalNetwork, facts: dict[str, Any]) -> None:
    """Start them one after the other, each until its node is ready and known; they end with the network.

    What stands where is noted among the run's facts. Raises TestbedError.
    """
    for machine in machines:
        vm = machine.make(network, machine)
        vm.start()
        facts.setdefault(FACT, {})[machine.name] = {"form": vm.form, "host": vm.host, "address": vm.address}


def _places(topology: Topo) -> list[Place]:
    from topologies import subnets  # only here: it brings Mininet along

    return list(subnets.places_of(topology))


def _of(place: Place) -> str:
    """The node that an interface is one of."""
    return place.name.rpartition("-")[0]
