"""What can be done to a running network in an experiment, and the conditions that can trigger it.

    Event(action=LinkDown("ann", "eth0"), at=4.0)
    Event(action=Migrate("flow1", to="eth1"), when=MovedBytes("flow1", 10_000_000), only=("serval",))

Each is a value: `describe`, `check` (pure; names the place) and `carry_out`, as `testbed.experiment.schedule` has them.
"""

from testbed.experiment.actions.balancing import Balance, Leave, SetPolicy
from testbed.experiment.actions.flows import Answered, Migrate, MovedBytes
from testbed.experiment.actions.links import BlackHole, CarrierLost, ChangeLink, Flap, LinkDown, LinkUp
from testbed.experiment.actions.moving import MoveInterface, MoveVm
from testbed.experiment.actions.processes import (
    CrashController,
    Freeze,
    Kill,
    RestartNode,
    StartController,
    StartInstance,
    StopController,
    StopInstance,
    Thaw,
)

__all__ = [
    "Answered",
    "Balance",
    "BlackHole",
    "CarrierLost",
    "ChangeLink",
    "CrashController",
    "Flap",
    "Freeze",
    "Kill",
    "Leave",
    "LinkDown",
    "LinkUp",
    "Migrate",
    "MoveInterface",
    "MoveVm",
    "MovedBytes",
    "RestartNode",
    "SetPolicy",
    "StartController",
    "StartInstance",
    "StopController",
    "StopInstance",
    "Thaw",
]
