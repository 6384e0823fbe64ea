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
    RestartNode,
    StartController,
    StartInstance,
    StopController,
    StopInstance,
    Thaw,
)
from testbed.experiment.actions.places import LinkEnd, find_end
from testbed.experiment.schedule import SpecificationError
from topologies.declarations import Declared, IpRouter, Service

TRAFFIC = ("flow1", "web")


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
        (Migrate("flow1", to="eth7"), "no host of the topology has an interface 'eth7'"),
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
