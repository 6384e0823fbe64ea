"""What `testbed mn` gives Mininet's `mn` to choose from inside a sandbox: switches, controller, links, Serval hosts.

Each keeps Mininet's own interface, so that all of mn's options, tests and prompt commands go on working with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mininet.link import Intf, OVSIntf, TCIntf, TCULink
from mininet.node import Controller, Node, OVSBridge, OVSSwitch

from testbed import openvswitch, processes
from testbed.controller_process import CONTROLLER_PORT, controller_ready, launch_controller
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.link.emulated import EmulatedLink

MININETS_ONLY = frozenset(
    {
        "speedup", "use_hfsc", "use_tbf", "latency_ms", "enable_ecn", "enable_red", "gro",
        "disable_gro", "txo", "rxo",
    }
)  # fmt: skip
"""What Mininet's TCLink takes and a shaped link does not."""


class _PrivateSwitch(OVSSwitch):
    """A bridge of the sandbox's own Open vSwitch, with the datapath that works here."""

    def __init__(self, name: str, **params: Any) -> None:
        params.setdefault("datapath", openvswitch.datapath_type().mininet_name)
        super().__init__(name, **params)

    def intfOpts(self, intf: Intf) -> str:
        options = super().intfOpts(intf)
        if isinstance(intf, OVSIntf):
            return options
        # Else ovs-vswitchd takes every queueing discipline away that it did not put there.
        name = f"@untouched-{intf}"
        return f"{options} -- --id={name} create QoS type=linux-noop -- set Port {intf} qos={name}"


class SandboxSwitch(_PrivateSwitch):
    """An OpenFlow switch, `--switch ovs` and the default."""


class SandboxBridge(_PrivateSwitch, OVSBridge):
    """A switch that learns by itself, `--switch ovsbr`."""


class ShapedLink(EmulatedLink):
    """`--link tc`: shaped as in the testbed's own networks: read back, and without netem by a relay (docs/links.md)."""

    def __init__(self, node1: Node, node2: Node, **params: Any) -> None:
        strange = sorted(MININETS_ONLY & params.keys())
        if strange:
            raise TestbedError(
                f"link {node1}-{node2}: --link tc has bw, delay, jitter, loss and max_queue_size here,"
                f" not {', '.join(strange)}",
                "--link tcu is Mininet's own TCLink with all its options; most of them need a kernel with netem",
            )
        super().__init__(node1, node2, **{"cls1": Intf, "cls2": Intf, **params})


class CheckedInterface(TCIntf):
    """Mininet's, which prints tc's errors and goes on without the delay that was asked for; here they end the run."""

    def tc(self, cmd: str, tc: str = "tc") -> str:
        said: str = super().tc(cmd, tc)
        errors = [line for line in said.splitlines() if line and not line.startswith("Warning:")]
        if errors and " add " in cmd:  # what is deleted first need not be there
            reason = errors[0].removeprefix("Error: ")
            hint = "this kernel lacks what the option needs (netem, mostly); --link tc delays and loses without it"
            raise TestbedError(f"link at {self.name}: tc: {reason}", hint)
        return said


class CheckedLink(TCULink):
    """`--link tcu`: Mininet's own, whose settings are there or the run ends."""

    def __init__(self, *nodes: Node, **params: Any) -> None:
        super().__init__(*nodes, **{"cls1": CheckedInterface, "cls2": CheckedInterface, **params})


class ServalController(Controller):
    """`--controller serval` and the default: the testbed's controller process, with switch fabric and service control.

    It breaks loops between switches, so that topologies like torus work too.
    """

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__(name, **{"port": CONTROLLER_PORT, **params})
        self._daemon: processes.Daemon | None = None

    def checkListening(self) -> None:
        """Nobody else is in this sandbox; a port in use is found by the start itself."""

    def launch(self, providers: Mapping[str, int], logs: Path) -> None:
        """Start it without waiting: its imports take their time."""
        self._daemon = launch_controller(providers, logs, host=self.IP(), port=self.port)

    def start(self) -> None:
        """Wait until it listens; raises TestbedError."""
        assert self._daemon is not None
        self._daemon.wait_ready(partial(controller_ready, self._daemon))

    def end(self) -> None:
        """End the process; may be called again."""
        if self._daemon is not None:
            self._daemon.stop()

    def stop(self, *args: Any, **options: Any) -> None:
        self.end()
        Node.stop(self, *args, **options)


class MnServalHost(ServalHost):
    """`--host serval`: a host whose addresses Mininet sets and whose node `testbed mn` starts.

    router  with `--host serval,router=h3` this host is the service router for all names
    """

    def __init__(self, name: str, router: str | None = None, **params: Any) -> None:
        super().__init__(name, **params)
        self.wanted_router = router

    def config(self, **params: Any) -> dict[str, Any]:
        """Mininet's settings, then those that Serval needs; raises TestbedError."""
        result = super().config(**params)
        self.configure()
        return result
