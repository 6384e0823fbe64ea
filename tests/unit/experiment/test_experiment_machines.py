"""Virtual machines of the real form in a scene: where they may stand, what may flow to them, when they are started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from experiments import vm_migration
from testbed import vm_requirements
from testbed.errors import TestbedError
from testbed.experiment import build, live, plan, result
from testbed.experiment.actions import MoveVm
from testbed.experiment.machines import Machine
from testbed.experiment.schedule import Event, SpecificationError
from testbed.experiment.specification import TCP_RECONNECT, Contender, Scene
from testbed.experiment.traffic import UP, Bulk, Requests, Stream
from tests.unit.experiment.fakes import Note, World
from tests.unit.experiment.made import EXPERIMENT, planned


def no_machine(network: Any, machine: Machine) -> Any:
    raise AssertionError("checks make nothing")


VIC = Machine(name="vic", host="hal", address="10.2.1.10/24", gateway="10.2.1.254", make=no_machine)
STREAM = Stream(name="flow", source="ann", target="vic", service="flow.example", rate=10)
MOVE = MoveVm(vm="vic", to="ian", address="10.2.2.10/24", gateway="10.2.2.254")


def check(light: int = 0, contenders: tuple[Contender, ...] = EXPERIMENT.contenders, **changes: Any) -> None:
    def scene(values: Mapping[str, float], contender: Contender) -> Scene:
        options = {"light": light}
        laid = Scene(
            topology="vm-migration", options=options, traffic=(STREAM,), events=(Event(action=MOVE, at=1.0),), seconds=4
        )
        return replace(laid, **{"machines": (VIC,), **changes})

    replace(EXPERIMENT, contenders=contenders, scene=scene).check(build.topology, {}, quick=False)


def test_a_machine_stands_at_a_host_and_a_stream_comes_from_it() -> None:
    check()
    check(machines=(VIC, replace(VIC, name="viv", address="10.2.1.11/24")))
    check(light=1, machines=())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "ann"}, "machine 'ann': the topology or another machine has this name already"),
        ({"host": "hall"}, "machine 'vic': the topology has no host 'hall'; did you mean hal"),
        ({"address": "10.2.2.10/24", "gateway": "10.2.2.254"}, "10.2.2.10/24 is not in b1's subnet 10.2.1.0/24"),
        ({"address": "10.2.1.1/24"}, "machine 'vic': hal-eth0 has the address 10.2.1.1"),
        ({"gateway": "10.2.1.253"}, "nobody at b1 has the gateway's address 10.2.1.253"),
        ({"address": "10.2.1.10"}, "machine 'vic': the VM's address 10.2.1.10 needs the length of a prefix"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check(machines=(replace(VIC, **changes),))


def test_two_machines_share_neither_a_name_nor_an_address() -> None:
    with pytest.raises(SpecificationError, match="or another machine has this name"):
        check(machines=(VIC, replace(VIC, address="10.2.1.11/24")))
    with pytest.raises(SpecificationError, match="machine 'viv': vic has the address 10.2.1.10"):
        check(machines=(VIC, replace(VIC, name="viv")))
    with pytest.raises(SpecificationError, match="topology or another machine has this name"):
        check(light=1)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (replace(STREAM, target="vicky"), "the topology has no host 'vicky'"),
        (replace(STREAM, direction=UP), "vic is a virtual machine, which tells nothing of what it received"),
        (replace(STREAM, source="vic", target="ann"), "vic is a virtual machine, which can only be a target"),
        (Bulk(name="bulk", source="ann", target="vic", service="b.example"), "which can only have streams"),
        (Requests(name="web", source="ann", target="vic", service="w.example"), "which can only have streams"),
    ],
)
def test_what_cannot_flow_to_a_machine_is_refused(item: Any, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check(traffic=(item,))


def test_nobody_connects_anew_to_where_a_machine_was() -> None:
    contenders = (*EXPERIMENT.contenders, Contender(name="again", label="", transport=TCP_RECONNECT))
    with pytest.raises(SpecificationError, match="stream 'flow' of again: ann would connect anew to the first address"):
        check(contenders=contenders)


def test_only_a_machine_of_either_form_is_moved() -> None:
    lost = (Event(action=replace(MOVE, vm="vicky"), at=1.0),)
    with pytest.raises(SpecificationError, match="'vicky' is no virtual machine; there are: vic"):
        check(events=lost)
    with pytest.raises(SpecificationError, match="'vicky' is no virtual machine; there are: vic"):
        check(light=1, machines=(), events=lost)
    with pytest.raises(SpecificationError, match="'vic' is no virtual machine; there are: none"):
        check(machines=(), traffic=(replace(STREAM, target="hal"),))


@dataclass
class Made:
    """A machine in memory."""

    world: World
    machine: Machine
    error: str | None = None
    form: str = field(default="real", init=False)

    @property
    def host(self) -> str:
        return self.machine.host

    @property
    def address(self) -> str:
        return self.machine.address.partition("/")[0]

    def start(self) -> None:
        self.world.happened.append(f"{self.machine.name} up")
        if self.error is not None:
            raise TestbedError(self.error)


def one_run(world: World, directory: Path, error: str | None = None) -> dict[str, Any]:
    machine = replace(VIC, make=lambda network, told: Made(world, told, error))
    events = (Event(action=Note(world, "moved"), at=0.05),)

    def scene(values: Mapping[str, float], contender: Contender) -> Scene:
        return replace(EXPERIMENT.scene(values, contender), machines=(machine,), events=events)

    laid = replace(planned(runs=1), experiment=replace(EXPERIMENT, scene=scene))
    return live.carry_out(laid, laid.turns[0], 0, directory, world.tools())


def test_a_machine_is_up_before_anything_of_the_traffic_is_started(tmp_path: Path) -> None:
    world = World()
    record = one_run(world, tmp_path)
    assert record["failed"] is None
    assert world.happened[:4] == ["network up", "vic up", "flow made", "flow ready"]
    assert record["facts"]["machines"] == {"vic": {"form": "real", "host": "hal", "address": "10.2.1.10"}}


def test_a_machine_that_does_not_start_fails_the_run(tmp_path: Path) -> None:
    world = World()
    record = one_run(world, tmp_path, error="no guest boots here")
    assert record["failed"] == "no guest boots here"
    assert world.happened == ["network up", "vic up", "network down", "logs collected"]


def test_where_there_is_no_qemu_the_real_form_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_requirements.shutil, "which", lambda program: None)
    laid = plan.make(vm_migration.EXPERIMENT, plan.Settings(runs=1), build.topology)
    real = {one.contender.name: one.why for one in laid.skipped if one.contender.options["form"] == "real"}
    assert list(real) == ["vm-real", "tcp-real"] and all("make setup-vm" in why for why in real.values())
    assert "serval-light" in [one.name for one in laid.contenders]


def test_a_quick_run_does_without_the_real_form() -> None:
    """It takes too long for what every change is tested with."""
    laid = plan.make(vm_migration.EXPERIMENT, plan.Settings(runs=1, quick=True), build.topology)
    assert {one.options["form"] for one in laid.contenders} == {"light"}


def test_the_result_says_which_machine_stood_where() -> None:
    experiment = vm_migration.EXPERIMENT
    able = tuple(replace(one, missing=lambda: None) for one in experiment.contenders)
    laid = plan.make(replace(experiment, contenders=able), plan.Settings(runs=1), build.topology)
    scenes = {scene["contender"]: scene for scene in result.new(laid, {}, [])["scenes"]}
    assert scenes["vm-real"]["machines"] == [
        {"name": "vic", "host": "hal", "address": "10.2.1.10/24", "gateway": "10.2.1.254"}
    ]
    assert scenes["serval-light"]["machines"] == []
