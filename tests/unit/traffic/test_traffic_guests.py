"""A stream from a virtual machine: what is asked of the machine, which here is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.experiment.specification import MPTCP, SERVAL, TCP, Contender
from testbed.experiment.traffic import UP, Stream
from testbed.traffic import transports
from testbed.traffic.guests import GuestFar
from testbed.vm_migration import LIGHT, REAL

ITEM = Stream(name="the flow", source="ann", target="vic", service="flow.example")


class Machine:
    """What of a VmForm is used."""

    def __init__(self, form: str = REAL) -> None:
        self.form, self.name, self.address = form, "vic", "10.2.1.10"
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.started: dict[str, Sequence[str]] = {}

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        self.asked.append((op, fields))
        return {}

    def run(self, name: str, argv: Sequence[str], *, modules: Sequence[str] = ()) -> None:
        assert list(modules) == ["testbed.traffic.far"]
        self.started[name] = argv

    def output(self, name: str) -> str:
        return "ready\n" if name in self.started else ""

    def end(self, name: str) -> str:
        del self.started[name]
        return "ready\n"


def run(machine: Machine, transport: str = SERVAL) -> Any:
    targets = iter([set(), {"10.2.1.9"}, {machine.address}])

    def wait(what: str, ready: Callable[[], bool], *, log: Path) -> None:
        while not ready():
            pass

    router = SimpleNamespace(name="cleo", log_path=Path("cleo.log"))
    network = SimpleNamespace(
        vms={"vic": machine},
        routers=[router],
        logs=Path("logs"),
        wait=wait,
        targets=lambda _router, _service: next(targets),
        find=lambda name: SimpleNamespace(name=name, addresses=lambda: ["10.1.0.1"]),
    )
    contender = Contender(name=transport, label="", transport=transport)
    return SimpleNamespace(network=network, contender=contender, facts={})


def test_its_far_end_runs_inside_and_takes_no_orders() -> None:
    machine = Machine()
    far = GuestFar(run(machine), machine, ITEM, 5101)  # type: ignore[arg-type]
    far.wait_ready()
    words = ["python3", "-m", "testbed.traffic.far", "-", "5101", "0", "cubic", "-"]
    assert machine.started == {"the_flow-far": words}
    assert far.order("finish", zero=1.0) == {"bins": None, "error": None}
    far.close()
    far.stop()
    assert not machine.started


def test_what_it_receives_nobody_would_know() -> None:
    up = Stream(name="up", source="ann", target="vic", service="up.example", direction=UP)
    machine = Machine()
    with pytest.raises(TestbedError, match="vic is a virtual machine, which tells nothing"):
        GuestFar(run(machine), machine, up, 5101)  # type: ignore[arg-type]


def test_its_node_is_asked_and_its_service_waited_for() -> None:
    machine = Machine()
    transports.serve(run(machine), ITEM, 5101)
    assert machine.asked == [("bind", {"service": "flow.example", "port": 5101})]


def test_who_connects_to_addresses_takes_the_one_that_it_has_now() -> None:
    machine = Machine()
    assert transports.target(run(machine, TCP), ITEM, 5101) == ("10.2.1.10", 5101)
    machine.address = "10.2.2.10"
    assert transports.target(run(machine, TCP), ITEM, 5101) == ("10.2.2.10", 5101)
    assert transports.paths(run(machine, MPTCP), ITEM) == 1


def test_the_light_form_is_a_host_like_others() -> None:
    light = run(Machine(LIGHT), TCP)
    assert transports.guest(light, "vic") is None
    assert transports.target(light, ITEM, 5101) == ("10.1.0.1", 5101)
