"""The network of `testbed mn`: Mininet's own, and with `--host serval` a node in each host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mininet.log import info, warn
from mininet.net import Mininet, MininetWithControlNet
from mininet.node import Controller, Node, OVSSwitch, RemoteController, Switch
from mininet.topo import Topo

from testbed import hosts, nodes, requirements
from testbed.controller_process import CONTROLLER_SOCKET
from testbed.errors import TestbedError
from testbed.link.emulated import EmulatedLink
from testbed.mn_parts import MnServalHost, SandboxSwitch, ServalController
from testbed.network import COMPLETE_SECONDS, LOG_DIRECTORY, POLL_SECONDS

IPERF_SECONDS = 10.0
JUNK = ("/tmp/{}.log", "/tmp/{}-ofd.log", "/tmp/{}-ofp.log", "/tmp/{}.listen", "/tmp/ivs.{}.log")
"""Files that Mininet's other controllers and switches leave behind."""


class MnNetwork(Mininet):
    """Built by mn. Its start returns when switches and Serval nodes are connected and the fabric forwards."""

    def __init__(self, **params: Any) -> None:
        # Mininet would set limits of the whole machine in its constructor; the sandbox has what is needed.
        Mininet.inited = True
        self.providers: Mapping[str, int] = {}
        self.lost = 0.0
        self._launcher: nodes.Launcher | None = None
        self._channel: tuple[str, int] | None = None
        self._junk: list[Path] = []
        super().__init__(**params)

    @property
    def serval_hosts(self) -> list[MnServalHost]:
        return [host for host in self.hosts if isinstance(host, MnServalHost)]

    # -- building, as Mininet wants it

    def buildFromTopo(self, topo: Topo | None = None) -> None:
        topo = topo or self.topo
        self.providers = getattr(topo, "providers", {})
        if isinstance(self.host, type) and issubclass(self.host, MnServalHost):
            self._launcher = nodes.Launcher(LOG_DIRECTORY)
        requirements.check_limits(sum(len(part) for part in (topo.hosts(), topo.switches(), topo.links())))
        super().buildFromTopo(topo)
        if self.serval_hosts:
            self._channel = self._find_channel()
        if self._channel is not None:
            router = nodes.appoint_router(self.serval_hosts, self.serval_hosts[0].wanted_router)
            if router is not None:
                info(f"*** {router.name} is also the service router, for all names\n")

    def addController(self, *args: Any, **params: Any) -> Controller | None:
        controller = super().addController(*args, **params)
        if isinstance(controller, ServalController):
            controller.launch(self.providers, LOG_DIRECTORY)
        return controller

    # -- life

    def start(self) -> None:
        """Raises TestbedError when something does not come up; `abandon` then ends the rest."""
        named = [Path(form.format(node.name)) for node in (*self.controllers, *self.switches) for form in JUNK]
        self._junk = [path for path in named if not path.exists()]
        super().start()
        self._settle_links()
        if self.serval_hosts:
            self._start_nodes()
        if self._ours() is not None:
            self._wait_complete()

    def waitConnected(self, timeout: float | None = None, delay: float = 0.5) -> bool:
        """Asks the testbed's controller, which knows 5 s earlier than Open vSwitch's database."""
        if not self.controllers:  # Mininet would wait for ever
            warn("*** no controller: such switches forward nothing until somebody gives them rules\n")
            return False
        if self._ours() is None:
            return super().waitConnected(timeout, delay)
        info("*** Waiting for switches to connect\n")
        self._wait_complete()
        return True

    def stop(self) -> None:
        if self._launcher is not None:
            info(f"*** Stopping {len(self.serval_hosts)} Serval nodes\n")
            self._launcher.stop()
        super().stop()
        self._remove_junk()

    def abandon(self) -> None:
        """After an error or Ctrl-C: end the processes in order. What else there is goes with the sandbox."""
        if self._launcher is not None:
            self._launcher.stop()
        for link in self.links:
            if isinstance(link, EmulatedLink) and link.relay is not None:
                link.relay.stop()
        for controller in self.controllers:
            if isinstance(controller, ServalController):
                controller.end()
        for node in (*self.hosts, *self.switches, *self.controllers):
            if node.shell is not None:
                hosts.end_shell(node)
        self._remove_junk()

    def _remove_junk(self) -> None:
        for path in self._junk:
            path.unlink(missing_ok=True)

    def ping(self, hosts: list[Node] | None = None, timeout: str | None = None) -> float:
        """As in Mininet; `lost` keeps the worst loss (percent) of the run."""
        loss = super().ping(hosts, timeout)
        self.lost = max(self.lost, loss)
        return loss

    def iperfUdp(self, **options: Any) -> list[str]:
        """`--test iperfudp`, which Mininet 2.3 lists and does not have."""
        return self.iperf(l4Type="UDP", **options)

    # -- the steps

    def _ours(self) -> ServalController | None:
        return next((item for item in self.controllers if isinstance(item, ServalController)), None)

    def _settle_links(self) -> None:
        userspace = any(isinstance(switch, OVSSwitch) and switch.datapath == "user" for switch in self.switches)
        for link in self.links:
            if isinstance(link, EmulatedLink):
                link.apply(userspace_switches=userspace, logs=LOG_DIRECTORY)
            elif userspace:
                for end, other in ((link.intf1, link.intf2), (link.intf2, link.intf1)):
                    # Segments whose checksum is left to hardware that is not there pass no switch in user space.
                    if isinstance(other.node, OVSSwitch) and not isinstance(end.node, Switch):
                        hosts.run(end.node, ["ethtool", "-K", end.name, "tx", "off"])
        for link in self.links:
            if isinstance(link, EmulatedLink):
                link.wait_ready()

    def _start_nodes(self) -> None:
        assert self._launcher is not None
        info(f"*** Starting {len(self.serval_hosts)} Serval nodes\n")
        addresses = {host.name: host.IP() for host in self.hosts if host.IP()}
        config = nodes.configurations(self.serval_hosts, addresses, self.providers, self._channel)
        self._launcher.wait_ready()
        for warning in self._launcher.start(self.serval_hosts, config):
            warn(f"*** {warning}\n")

    def _find_channel(self) -> tuple[str, int] | None:
        """Where the nodes find their controller: the testbed's, else one of the user's own."""
        remote = next((item for item in self.controllers if isinstance(item, RemoteController)), None)
        chosen = self._ours() or remote
        if chosen is None:
            warn("*** no service controller: a name leads nowhere but to its own host\n")
            return None
        return chosen.IP(), chosen.port

    def _wait_complete(self) -> None:
        deadline = time.monotonic() + COMPLETE_SECONDS
        switches = [switch for switch in self.switches if isinstance(switch, SandboxSwitch)]
        wanted = set() if self._launcher is None else set(self._launcher.pids)
        log = LOG_DIRECTORY / "controller.log"
        while True:
            status = nodes.request(str(CONTROLLER_SOCKET), "the controller", "status", log=log)
            if status["fabric_ready"] and len(status["switches"]) >= len(switches) and wanted <= set(status["nodes"]):
                return
            if time.monotonic() > deadline:
                raise TestbedError(
                    f"after {COMPLETE_SECONDS:g} s the controller knows {len(status['switches'])} of"
                    f" {len(switches)} switches and {len(status['nodes'])} of {len(wanted)} Serval nodes",
                    f"see {log}; switches must speak OpenFlow 1.3",
                )
            time.sleep(POLL_SECONDS)


def wait_for_iperf(client: Node, server: str, port: int, timeout: float | None = None) -> bool:
    """Wait, in mn's iperf test, until the server serves; False when it does not in time (seconds).

    Mininet connects by telnet and then waits for the server's report of that connection, which newer iperf does not
    make. A connection by iperf itself is always reported.
    """
    deadline = time.monotonic() + (timeout or IPERF_SECONDS)
    while "/sec" not in client.cmd(f"iperf -c {server} -p {port} -n 1K"):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class MnControlNetwork(MnNetwork, MininetWithControlNet):
    """The same for `--innamespace`."""
