"""What actions and conditions say of themselves, and which they refuse, naming the place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from mininet.topo import Topo

from testbed.experiment.actions import (
    Answered,
    BlackHole,
    CarrierLost,
    ChangeLink,
    CrashController,
    Flap,
    Freeze,
    Kill,
    LinkDown,
    LinkUp,
    Migrate,
    MovedBytes,
    MoveInterface,
    MoveVm,
    RestartNode,
    StartController,
    StartInstance,
    StopController,
    StopInstance,
    Thaw,
)
from testbed.experiment.actions.places import LinkEnd, find_end
from testbed.experiment.schedule import Action, Event, SpecificationError
from testbed.experiment.traffic import Requests, Stream
from topologies.declarations import Declared, IpRouter, Service
from topologies.mobile_client import MobileClient
from topologies.vm_migration import VmMigration

TRAFFIC = {
    "flow1": Stream(name="flow1", source="eve", target="ann", service="flow.example"),
    "web": Requests(name="web", source="ann", target="dan", service="web.example"),
}


class Place(Declared):
    """ann at r1, eve twice at r2, which is at r1; and a switch with dan."""

    def build(self) -> None:
        for name in ("ann", "dan", "eve"):
            self.addHost(name, serval={"role": "host"})
        for name in ("r1", "r2"):
            self.addHost(name, cls=IpRouter, ip=None)
        self.addSwitch("s1")
        for first, second in (("ann", "r1"), ("r1", "r2"), ("r2", "eve"), ("eve", "r2")):
            self.addLink(first, second, impairable=True)
        self.addLink("dan", "s1")
        self.providers = {"example": 0x5E7A1E}
        self.services = [Service("web.example", ("dan", "eve"), ("true",))]


class NoController(Place):
    has_controller = False


@dataclass
class FakeFlow:
    """Something that flows."""

    count: int = 0

    def received(self) -> int:
        return self.count

    def port(self) -> int | None:
        return 4000


@dataclass
class FakeRun:
    """As much of a run as a condition sees."""

    traffic: dict[str, FakeFlow] = field(default_factory=dict)


def check(action: Any, topology: Topo | None = None) -> None:
    action.check(topology or Place(), TRAFFIC)


@pytest.mark.parametrize(
    ("node", "to", "end"),
    [
        ("ann", "eth0", LinkEnd("ann", 0, "r1", 0)),
        ("ann", "r1", LinkEnd("ann", 0, "r1", 0)),
        ("r1", "ann", LinkEnd("r1", 0, "ann", 0)),
        ("r1", "r2", LinkEnd("r1", 1, "r2", 0)),
        ("eve", "eth0", LinkEnd("eve", 0, "r2", 1)),
        ("eve", "eth1", LinkEnd("eve", 1, "r2", 2)),
        ("r2", "eth2", LinkEnd("r2", 2, "eve", 1)),
        ("s1", "eth1", LinkEnd("s1", 1, "dan", 0)),
    ],
)
def test_a_link_is_named_by_an_interface_or_by_the_node_at_its_other_end(node: str, to: str, end: LinkEnd) -> None:
    assert find_end(Place(), node, to, "here") == end


def test_interfaces_are_named_as_mininet_names_them() -> None:
    end = find_end(Place(), "s1", "dan", "here")
    assert (end.interface, end.other_interface) == ("s1-eth1", "dan-eth0")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (LinkDown("ann", "eth0"), "ann's eth0 goes down"),
        (LinkUp("r1", "r2"), "r1's link to r2 comes up"),
        (CarrierLost("eve", "eth1"), "eve's eth1 loses its carrier"),
        (BlackHole("ann", "r1"), "ann's link to r1 becomes a black hole"),
        (BlackHole("ann", "r1", on=False), "ann's link to r1 carries again"),
        (BlackHole("r2", "eth2", one_way=True), "r2's eth2 becomes a black hole one way"),
        (ChangeLink("r1", "r2", delay="40ms", loss=1), "r1's link to r2 gets 40ms delay, 1 % loss"),
        (ChangeLink("dan", "s1", rate=10, queue=50), "dan's link to s1 gets 10 Mbit/s, a queue of 50 frames"),
        (Flap("eve", "eth0", count=3, period=0.5), "eve's eth0 flaps 3 times, every 0.5 s"),
        (Migrate("flow1", to="eth1"), "flow1 moves to eth1"),
        (Migrate("flow1", to="eth1", host="eve"), "flow1 moves to eve's eth1"),
        (Kill("dan", "web.example"), "web.example on dan is killed"),
        (Kill("ann"), "servald on ann is killed"),
        (RestartNode("ann"), "the node of ann starts again"),
        (StartInstance("web.example", "dan"), "web.example starts on dan"),
        (StopInstance("web.example", "dan"), "web.example on dan ends"),
        (Freeze("r1"), "r1 freezes"),
        (Thaw("r1"), "r1 thaws"),
        (StopController(), "the controller stops"),
        (StartController(), "the controller starts again"),
        (CrashController(), "the controller crashes"),
        (MovedBytes("flow1", 10_000_000), "flow1 has moved 10 MB"),
        (Answered("web", 20), "20 of web are answered"),
    ],
)
def test_what_can_be_done_passes_and_is_described(action: Any, words: str) -> None:
    check(action)
    assert action.describe() == words


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (LinkDown("anne", "eth0"), "anne's eth0 goes down: there is no node 'anne'; did you mean ann"),
        (LinkUp("ann", "eth1"), "ann has no link 'eth1'; it has: eth0 to r1"),
        (CarrierLost("r1", "eve"), "r1 has no link 'eve'; it has: eth0 to ann, eth1 to r2"),
        (BlackHole("eve", "r2"), "2 links join eve and r2: say eth0 or eth1"),
        (ChangeLink("ann", "r1"), "say what changes"),
        (ChangeLink("ann", "r1", delay="40"), "'40' is no delay"),
        (ChangeLink("ann", "r1", loss=101), "link ann-r1: a link's loss must be from 0 to 100 percent"),
        (ChangeLink("ann", "r1", rate=0), "link ann-r1: a link's rate must be from 0.01"),
        (ChangeLink("ann", "r1", rate="10 MB"), "'10 MB' is no rate"),
        (ChangeLink("ann", "r1", jitter="1ms"), "jitter must be from 0 to its delay"),
        (BlackHole("dan", "s1"), "link dan-s1 has no relay"),
        (Flap("ann", "r1", count=0, period=1), "count is at least 1"),
        (Flap("ann", "r1", count=1, period=0), "the period more than 0 s"),
        (Migrate("flow2", to="eth1"), "there is no flow 'flow2'; did you mean flow1"),
        (Migrate("flow1", to="eth7"), "eve has no link 'eth7'; it has: eth0 to r2, eth1 to r2"),
        (Migrate("flow1", to="eth1", host="ann"), "ann has no link 'eth1'"),
        (Migrate("flow1", to="eth0", host="dan"), "it goes from eve to ann"),
        (Migrate("flow1", to="eth1", host="evi"), "there is no host 'evi'; there are: ann, dan, eve"),
        (Kill("dan", "wob.example"), "no service 'wob.example'; did you mean web.example"),
        (Kill("r1"), "r1 has no Serval node; these have one: ann, dan, eve"),
        (RestartNode("bob"), "there is no host 'bob'"),
        (StartInstance("web.example", "r2"), "r2 has no Serval node"),
        (StopInstance("x.example", "dan"), "there is no service 'x.example'"),
        (Freeze("s1"), "there is no host 's1'"),
        (Thaw("bob"), "there is no host 'bob'"),
        (MovedBytes("flow", 1), "no flow 'flow'; did you mean flow1"),
        (MovedBytes("flow1", 0), "a number of bytes more than 0"),
        (MovedBytes("web", 1), "web are requests"),
        (Answered("flow1", 1), "flow1 is no requests"),
        (Answered("wob", 1), "no flow 'wob'; there are: flow1, web"),
        (Answered("web", -1), "a number of answers more than 0"),
    ],
)
def test_what_cannot_be_is_refused_and_the_place_named(action: Any, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check(action)


@pytest.mark.parametrize("action", [StopController(), StartController(), CrashController()])
def test_a_network_without_a_controller_has_none_to_stop(action: Any) -> None:
    with pytest.raises(SpecificationError, match="has no controller"):
        check(action, NoController())


def test_conditions_hold_from_their_count_on() -> None:
    run = FakeRun({"flow1": FakeFlow(999), "web": FakeFlow(20)})
    assert not MovedBytes("flow1", 1000).holds(run)  # type: ignore[arg-type]
    run.traffic["flow1"].count = 1000
    assert MovedBytes("flow1", 1000).holds(run)  # type: ignore[arg-type]
    assert Answered("web", 20).holds(run)  # type: ignore[arg-type]
    assert not Answered("web", 21).holds(run)  # type: ignore[arg-type]


def to_cell(**changes: Any) -> MoveInterface:
    wanted = {"host": "ann", "interface": "eth0", "to": "cell", "address": "10.2.0.1/24", "gateway": "10.2.0.254"}
    return MoveInterface(**{**wanted, **changes})


def to_ian(**changes: Any) -> MoveVm:
    return MoveVm(**{"vm": "vic", "to": "ian", "address": "10.2.2.10/24", "gateway": "10.2.2.254", **changes})


def test_hosts_and_machines_move_to_networks_that_are_there() -> None:
    alone = MobileClient(interfaces=1)
    check(to_cell(gap=0.5), alone)
    check(to_cell(to="wifi", address="10.1.0.1/24", gateway="10.1.0.254"), alone)
    check(to_ian(), VmMigration())
    check(to_ian(to="hal", address="10.2.1.10/24", gateway="10.2.1.254"), VmMigration())
    check(to_ian(vm="real"), VmMigration(light=0))
    assert to_cell().describe() == "ann's eth0 moves to cell"
    assert to_ian().describe() == "vic moves to ian"


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (to_cell(host="bob"), "there is no node 'bob'"),
        (to_cell(interface="eth1"), "ann has no link 'eth1'"),
        (to_cell(host="dan"), "r is no plain bridge; there are: cell, wifi"),
        (to_cell(to="r"), "r is no plain bridge"),
        (to_cell(gap=-1), "the gap cannot be -1 s"),
        (to_cell(address="10.1.0.1/24"), "10.2.0.254 is not in the subnet"),
        (to_cell(address="10.9.0.1/24", gateway="10.9.0.254"), "10.9.0.1/24 is not in cell's subnet 10.2.0.0/24"),
        (to_cell(gateway="10.2.0.253"), "nobody at cell has the gateway's address 10.2.0.253"),
        (to_cell(address="10.2.0.254/24", gateway="10.2.0.1"), "nobody at cell has the gateway's address"),
        (to_cell(address="10.2.0.1"), "needs the length of a prefix"),
    ],
)
def test_a_host_moves_to_no_network_that_is_not_there(action: MoveInterface, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check(action, MobileClient(interfaces=1))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (to_ian(to="bob"), "there is no host 'bob'"),
        (to_ian(to="ann"), "ann has no bridge that a machine could be plugged in at"),
        (to_ian(address="10.2.1.10/24", gateway="10.2.1.254"), "10.2.1.10/24 is not in b2's subnet 10.2.2.0/24"),
        (to_ian(address="10.2.2.1/24"), "ian-eth0 has the address 10.2.2.1"),
    ],
)
def test_a_machine_moves_to_no_place_that_is_not_there(action: MoveVm, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check(action, VmMigration())


@pytest.mark.parametrize(
    ("action", "notice"),
    [
        (Migrate("flow1", "eth1"), "told"),
        (LinkDown("ann", "r1"), "seen"),
        (CarrierLost("ann", "r1"), "seen"),
        (BlackHole("ann", "r1"), "silent"),
        (BlackHole("ann", "r1", on=False), None),
        (LinkUp("ann", "r1"), None),
        (Kill("dan", "web.example"), None),
    ],
)
def test_the_result_has_how_those_learn_of_it_whose_path_goes(action: Action, notice: str | None) -> None:
    assert Event(action=action, at=1.0).described()["notice"] == notice
