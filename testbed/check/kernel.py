"""What the kernel has, tried out inside the sandbox, where a trial touches nothing else."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from testbed import openvswitch, requirements
from testbed.check.findings import ABSENT, MISSING, OK, SUBSTITUTE, Finding
from testbed.errors import TestbedError
from testbed.link.emulated import netem_available
from testbed.requirements import Feature

MEMBERS = 40
"""Nodes, switches and links that the limits are held against: a datacenter of a dozen hosts."""
_IPPROTO_MPTCP = 262


@dataclass(frozen=True)
class Optional:
    """A feature that the testbed does without. `missing` says why it is not there, None when it is."""

    name: str
    state: str
    instead: str
    remedy: str
    missing: Callable[[], str | None]


def look() -> Iterator[Finding]:
    """What is needed, then what is not."""
    for feature in requirements.FEATURES:
        yield _needed(feature)
    yield _limits()
    for optional in OPTIONAL:
        why = optional.missing()
        if why is None:
            yield Finding(optional.name, OK, "there")
        else:
            yield Finding(optional.name, optional.state, f"{why}: {optional.instead}", optional.remedy)


def _needed(feature: Feature) -> Finding:
    try:
        requirements.check_kernel([feature])
    except TestbedError as error:
        return Finding(feature.name, MISSING, error.hint or error.message, feature.remedy)
    return Finding(feature.name, OK, "there")


def _limits() -> Finding:
    try:
        requirements.check_limits(MEMBERS)
        requirements.check_room()
    except TestbedError as error:
        return Finding("limits and room", MISSING, error.message, error.hint or "")
    return Finding("limits and room", OK, "enough open files, processes and disk")


def _netem() -> str | None:
    return None if netem_available() else "this kernel has none"


def _kernel_switch() -> str | None:
    datapath = openvswitch.datapath_type()
    return None if datapath.name == "system" else datapath.reason


def _mptcp() -> str | None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, _IPPROTO_MPTCP).close()
    except OSError as error:
        return "this kernel has none" if error.errno == errno.EPROTONOSUPPORT else str(error.strerror)
    return None


OPTIONAL: tuple[Optional, ...] = (
    Optional(
        "netem",
        SUBSTITUTE,
        "delay and loss of links are made by the relay, a program of the testbed",
        "sudo modprobe sch_netem (CONFIG_NET_SCH_NETEM)",
        _netem,
    ),
    Optional(
        "Open vSwitch in the kernel",
        SUBSTITUTE,
        "switches forward in user space, at about 1 Gbit/s",
        "sudo modprobe openvswitch (CONFIG_OPENVSWITCH)",
        _kernel_switch,
    ),
    Optional(
        "MPTCP",
        ABSENT,
        "experiments skip it as a rival, by name",
        "a kernel with CONFIG_MPTCP, and net.mptcp.enabled=1",
        _mptcp,
    ),
)
