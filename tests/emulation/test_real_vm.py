"""A real virtual machine: a QEMU guest with servald, moved live to a host of another subnet under a running stream."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from testbed import nodes
from testbed.errors import TestbedError
from testbed.network import ServalNetwork
from testbed.traffic.programs import Worker
from testbed.traffic.samples import Progress
from testbed.vm import VirtualMachine, migration, missing
from testbed.vm.machine import Machine
from testbed.vm_migration import PARTS
from topologies.vm_migration import VmMigration, place

WHY_NOT = missing()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"machine without real VMs (make setup-vm): {WHY_NOT}")

SERVICE, PORT = "moving.example", 6000
RATE = 4e6  # what a busy machine's emulated processor sends, too
FIRST, SECOND = place("hal"), place("ian")
AFTER_SECONDS = 1.5
"""How long the stream goes on after the move."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServalNetwork]:
    with ServalNetwork(VmMigration(light=0, rate=1000, mtu=9000), logs=tmp_path_factory.mktemp("logs")) as net:
        yield net


@pytest.fixture(scope="module")
def guest(network: ServalNetwork) -> Iterator[VirtualMachine]:
    vm = VirtualMachine(network, host="hal", address=FIRST[0], gateway=FIRST[1])
    vm.start()
    yield vm
    vm.stop()


@pytest.fixture
def workers(network: ServalNetwork, tmp_path: Path) -> Iterator[list[Worker]]:
    """Two near ends of streams at ann."""
    started = []
    for name in ("serval", "plain"):
        progress = tmp_path / f"{name}.progress"
        Progress(progress)
        words = ["testbed.traffic.near"]
        started.append(Worker(name, network.find("ann"), words, tmp_path, more=[str(progress)]))
    for worker in started:
        worker.wait_ready()
    yield started
    for worker in started:
        worker.close()
        worker.stop()


def serve(network: ServalNetwork, guest: VirtualMachine, name: str, port: int) -> None:
    words = ["python3", "-m", "testbed.traffic.far", "-", str(port), "0", "cubic", "-"]
    guest.run(name, words, modules=["testbed.traffic.far"])
    network.wait(f"{name} listens", lambda: "ready" in guest.output(name), log=network.logs / "controller.log")


def begin(worker: Worker, target: tuple[str, int]) -> None:
    order = {"target": target, "bind": None, "protocol": 0, "subflow": False, "congestion": "cubic"}
    worker.order("connect", **order, direction="down", rate=RATE, reconnect=None, within=10)
    worker.order("begin")


def finish(worker: Worker, zero: float) -> dict[str, Any]:
    seconds = time.monotonic() - zero
    order = {"zero": zero, "seconds": seconds, "bin": 0.01, "begin": zero, "end": zero + seconds}
    return worker.order("finish", **order)


@pytest.mark.deadline(240)  # the first guest boots, which the others need not
def test_a_stream_goes_on_when_its_virtual_machine_moves(
    network: ServalNetwork, guest: VirtualMachine, workers: list[Worker]
) -> None:
    """Serval's stream arrives whole; that of plain TCP, from the same program in the same guest, ends with the move."""
    ann, cleo = network.serval_host("ann"), network.serval_host("cleo")
    serve(network, guest, "serval-far", PORT)
    serve(network, guest, "plain-far", PORT + 1)
    guest.ask("bind", service=SERVICE, port=PORT)
    log = network.logs / "controller.log"
    network.wait("the router leads to the guest", lambda: network.targets(cleo, SERVICE) == {"10.2.1.10"}, log=log)
    found = nodes.ask(ann, "address", name=SERVICE, port=PORT)
    serval, plain = workers
    zero = time.monotonic()
    begin(serval, (found["address"], found["port"]))
    begin(plain, ("10.2.1.10", PORT + 1))
    time.sleep(1)

    record = guest.move("ian", address=SECOND[0], gateway=SECOND[1])
    time.sleep(AFTER_SECONDS)

    assert (record.form, record.source, record.destination) == ("real", "hal", "ian")
    assert record.figures["noticed"] == "by itself"
    assert set(record.parts()) == set(PARTS) and min(record.parts().values()) > 0
    serval.order("stop")
    serval.order("drain", seconds=10)
    moved, dead = finish(serval, zero), finish(plain, zero)
    assert (moved["wrong"], moved["error"]) == (None, None) and moved["ended"] is not None
    # Both flowed until the move. The last of plain TCP's bytes may have come by the old address over the new link.
    assert record.stopped - zero - 0.5 < dead["last"] < record.asked - zero + 0.1 < moved["last"] - 1
    # Its node has told the controller where it is now, over a channel that was made anew.
    network.wait("the router leads to the new place", lambda: network.targets(cleo, SERVICE) == {"10.2.2.10"}, log=log)
    assert (guest.host, guest.address) == ("ian", "10.2.2.10")
    guest.run("link", ["cat", "/sys/class/net/eth0/mtu"])
    network.wait("cat has ended", lambda: guest.output("link") == "9000\n", log=log)
    offset, uncertainty = guest.clock_offset()
    assert 0 < uncertainty < 1 and offset > 0


def test_a_guest_whose_migration_fails_goes_on_where_it_was(
    guest: VirtualMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, address = guest.host, guest.address
    migrate = migration.migrate

    def kill(pid: int) -> None:
        with suppress(ProcessLookupError):  # the move has failed before, and its own error says so
            os.kill(pid, signal.SIGKILL)

    def dying(source: Machine, destination: Machine, at: str) -> migration.Transfer:
        threading.Timer(0.2, kill, (destination.pid,)).start()
        return migrate(source, destination, at)

    monkeypatch.setattr(migration, "migrate", dying)
    to, place = ("hal", FIRST) if there == "ian" else ("ian", SECOND)
    with pytest.raises(TestbedError, match=f"that was to take vm has ended; vm is on {there}"):
        guest.move(to, address=place[0], gateway=place[1])
    assert guest.host == there and guest.ask("status")["addresses"] == [address]


@pytest.mark.parametrize(
    ("to", "place", "said"),
    [
        ("ian", SECOND, "is on ian already"),
        ("hal", SECOND, "not of the subnet that hal is in"),
        ("hal", ("10.2.1.1/24", "10.2.1.254"), "hal has the address 10.2.1.1 already"),
        ("jon", FIRST, "no host 'jon'"),
    ],
)
def test_a_move_that_cannot_be_is_refused(guest: VirtualMachine, to: str, place: tuple[str, str], said: str) -> None:
    with pytest.raises(TestbedError, match=said):
        guest.move(to, address=place[0], gateway=place[1])
    assert guest.host == "ian" and guest.ask("status")["addresses"] == ["10.2.2.10"]
