"""The light virtual machine, and what else is done to hosts and nodes, on one running network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from testbed import hosts
from testbed.errors import TestbedError
from testbed.experiment.actions import (
    CrashController,
    Flap,
    Freeze,
    Kill,
    MoveInterface,
    MoveVm,
    RestartNode,
    StartController,
    StartInstance,
    StopInstance,
    Thaw,
)
from testbed.mobility import freezer
from testbed.network import ServalNetwork
from testbed.streaming import streaming
from tests.emulation.doing import RATE, Doing, whole
from topologies.vm_migration import VmMigration, place

CLOCK = "import time\nwhile True:\n    print(time.monotonic())\n    time.sleep(0.005)"


@pytest.fixture(scope="module")
def machine() -> Iterator[ServalNetwork]:
    net = ServalNetwork(VmMigration(standstill=0.15))
    net.start()
    try:
        yield net
    finally:
        assert net.stop()


@pytest.mark.statement("E3")
@pytest.mark.statement("S12")
def test_a_virtual_machine_moves_there_and_back_with_its_stream(machine: ServalNetwork) -> None:
    doing, vm = Doing(machine), machine.vm("vic")
    vm.start()
    vm.run("clock", ["python3", "-u", "-c", CLOCK])
    with streaming(machine, "ann", "vic", rate=RATE) as stream:
        for host in ("ian", "hal"):
            address, gateway = place(host)
            carrier = hosts.run(machine.find("vic"), ["cat", "/sys/class/net/vic-eth0/carrier_changes"])
            facts = doing.do(MoveVm(vm="vic", to=host, address=address, gateway=gateway))
            stream.wait_place("vic", address.partition("/")[0])
            assert facts["form"] == "light"
            assert facts["parts"]["standstill"] >= 0.15
            assert {"address", "signal"} <= facts["parts"].keys()
            after = hosts.run(machine.find("vic"), ["cat", "/sys/class/net/vic-eth0/carrier_changes"])
            assert after == carrier, "it is plugged in elsewhere without a link event inside"
        assert vm.host == "hal"
        largest = max(item["seconds"] for item in whole(stream)["gaps"])
    assert largest >= 0.15
    ticks = [float(line) for line in vm.end("clock").splitlines()]
    pauses = sorted(later - earlier for earlier, later in pairwise(ticks))
    assert pauses[-2] >= 0.15, "its programs stood still at both moves"
    assert [move["destination"] for move in doing.facts["moves"]] == ["ian", "hal"]
    assert {"vic stopped", "vic resumed", "vic asked", "vic answered"} <= set(doing.events)


def test_a_machine_is_refused_a_place_that_is_none(machine: ServalNetwork) -> None:
    vm = machine.vm("vic")
    address, gateway = place("ian")
    for arguments, words in (
        ({"to": "hal", "address": "10.2.1.11/24", "gateway": "10.2.1.254"}, "vic is on hal already"),
        ({"to": "ann", "address": address, "gateway": gateway}, "ann has no bridge"),
        ({"to": "ian", "address": address, "gateway": "10.9.0.1"}, "not in the subnet"),
    ):
        with pytest.raises(TestbedError, match=words):
            vm.move(**arguments)
    with pytest.raises(TestbedError, match="no virtual machine 'vicky'"):
        machine.vm("vicky")


def test_a_host_that_joins_another_network_in_sight_loses_its_carrier(machine: ServalNetwork) -> None:
    doing = Doing(machine)
    with streaming(machine, "ann", "vic", rate=RATE) as stream:
        before = int(hosts.run(machine.find("vic"), ["cat", "/sys/class/net/vic-eth0/carrier_changes"]))
        address, gateway = place("ian")
        facts = doing.do(
            MoveInterface(host="vic", interface="eth0", to="b2", address=address, gateway=gateway, gap=0.2)
        )
        assert facts["plugged"] - facts["unplugged"] >= 0.2
        after = int(hosts.run(machine.find("vic"), ["cat", "/sys/class/net/vic-eth0/carrier_changes"]))
        assert after >= before + 2
        stream.wait_place("vic", address.partition("/")[0])
        whole(stream)


def test_a_frozen_host_stands_still_and_goes_on(machine: ServalNetwork) -> None:
    doing, node = Doing(machine), machine.find("vic")
    with streaming(machine, "ann", "vic", rate=RATE) as stream:
        doing.do(Freeze("vic"))
        assert {freezer.state(process) for process in freezer.inside(node)} == {"T"}
        count = stream.received()
        time.sleep(0.3)  # what was under way has come by then, and nothing more does
        late = stream.received()
        time.sleep(0.3)
        assert stream.received() == late >= count
        doing.do(Thaw("vic"))
        stream.wait_more()
        assert "T" not in {freezer.state(process) for process in freezer.inside(node)}
        whole(stream)


def test_a_node_that_was_killed_starts_again(machine: ServalNetwork) -> None:
    doing = Doing(machine)
    first = doing.do(Kill("cleo"))["process"]
    doing.do(RestartNode("cleo"))
    assert machine.node_process("cleo") != first


def test_an_interface_flaps_as_often_as_it_is_told(machine: ServalNetwork) -> None:
    doing = Doing(machine)
    before = int(hosts.run(machine.find("ian"), ["cat", "/sys/class/net/ian-eth0/carrier_changes"]))
    doing.do(Flap("ian", "eth0", count=2, period=0.1))
    assert doing.events == ["ian's eth0 goes down", "ian's eth0 comes up"] * 2
    after = int(hosts.run(machine.find("ian"), ["cat", "/sys/class/net/ian-eth0/carrier_changes"]))
    assert after == before + 4
    hosts.run(machine.find("ian"), ["ping", "-n", "-q", "-c", "1", "-W", "3", "10.1.0.1"])  # its routes are back


def test_instances_come_and_go_and_the_controller_too(machine: ServalNetwork) -> None:
    doing, service = Doing(machine), "web.example"
    assert doing.do(StartInstance(service, "vic"))["known_after"] >= 0
    doing.do(CrashController())
    with pytest.raises(TestbedError):
        machine.controller_request("status")
    assert "This is vic" in machine.run_in("ann", ["curl", "-sS", f"http://{service}/"]), "rules outlive the controller"
    doing.do(StartController())
    machine.wait(
        "the controller knows all again",
        lambda: len(machine.controller_request("status")["nodes"]) == len(machine.serval_hosts),
        log=machine.logs / "controller.log",
    )
    machine.wait_service(service, ["vic"])
    assert doing.do(Kill("vic", service))["process"] > 1
    machine.wait_service(service, [])
    doing.do(StartInstance(service, "vic"))
    doing.do(StopInstance(service, "vic"))
    machine.wait_service(service, [])
