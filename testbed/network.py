"""An emulated network with its controller, switches, hosts, links and Serval nodes, started and stopped in order.

A Mininet network, without what Mininet does to the machine around it (fixLimits, clean-up of what it did not make) and
without its guesses: each step is done when it is seen to be done, within a limit, and a failure names the log.
It runs inside a sandbox only. Usable from a plain script (docs/mininet.md has a whole one):

    testbed.enter_sandbox()
    with ServalNetwork(Datacenter(racks=1)) as net:
        print(net.run_in("ann", ["curl", "-sS", "http://web.example/"]))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mininet.net import Mininet
from mininet.node import Node
from mininet.topo import Topo

from testbed import frameworks, hosts, nodes, openvswitch, processes, sandbox, switches, sysctl
from testbed.controller_process import (
    CONTROLLER_HOST,
    CONTROLLER_PORT,
    CONTROLLER_SOCKET,
    RUN_DIRECTORY,
    controller_ready,
    launch_controller,
)
from testbed.errors import TestbedError, report
from testbed.hosts import EmulatedNode, PlainHost, PlainRouter, ServalHost
from testbed.link import status
from testbed.link.emulated import EmulatedLink, remove
from testbed.link.planned import check_links
from testbed.mobility.light_vm import LightVm
from testbed.services import Instance
from testbed.switches import FabricSwitch, KernelBridge
from testbed.vm_migration import VmForm
from testbed.words import did_you_mean
from topologies.declarations import Bridge, IpRouter, Service

LOG_DIRECTORY = RUN_DIRECTORY / "logs"
NO_CONTROLLER = "what each node knows by itself: NAME serval table, for all of them: tables"
COMPLETE_SECONDS = 20.0
POLL_SECONDS = 0.02

Say = Callable[[str], None]


class ServalNetwork(Mininet):
    """One topology, running.

    topo  any Mininet topology; providers, services and Serval hosts are those that it declares
    host  the class of hosts that say nothing of Serval. With ServalHost all hosts of any topology are Serval hosts, and
          where it declares no service router, the first host is one for all names
    say   gets a line of progress at each slow step
    logs  where the logs of controller, switches and launcher go
    seed  of loss and jitter on links
    controller_options  of controllers.run: ["--app", "my_app.py"], for example (docs/ryu-apps.md)
    """

    def __init__(
        self,
        topo: Topo,
        *,
        host: type[EmulatedNode] = PlainHost,
        say: Say = lambda line: None,
        logs: Path = LOG_DIRECTORY,
        seed: int | None = None,
        controller_options: Sequence[str] = (),
    ) -> None:
        if not sandbox.inside():
            raise TestbedError(
                "networks are built in a sandbox only",
                "call testbed.enter_sandbox() first, or use: testbed exec -- COMMAND",
            )
        check_links(topo)
        # Mininet would set limits of the whole machine in its constructor; the sandbox has what is needed.
        Mininet.inited = True
        super().__init__(topo=topo, switch=FabricSwitch, host=host, link=EmulatedLink, controller=None, build=False)
        self.providers: Mapping[str, int] = getattr(topo, "providers", {})
        self.services: Sequence[Service] = getattr(topo, "services", ())
        self.has_controller: bool = getattr(topo, "has_controller", True)
        self.logs = logs
        self.seed = seed
        self.controller_options = tuple(controller_options)
        self.say = say
        self.instances: list[Instance] = []
        self.warnings: list[str] = []
        self.vms: dict[str, VmForm] = {}
        self.start_seconds = 0.0
        self._undo: list[tuple[str, Callable[[], object]]] = []
        self._launcher: nodes.Launcher | None = None
        self._controller: processes.Daemon | None = None
        self._configurations: Mapping[str, Mapping[str, Any]] = {}

    # -- building, as Mininet wants it

    def addHost(self, name: str, cls: type[Node] | None = None, **params: Any) -> Node:
        if "serval" in params:
            cls = ServalHost
        elif cls is IpRouter:
            cls = PlainRouter
        return super().addHost(name, cls=cls, **params)

    def addSwitch(self, name: str, cls: type[Node] | None = None, **params: Any) -> Node:
        return super().addSwitch(name, cls=KernelBridge if cls is Bridge else cls, **params)

    def configHosts(self) -> None:
        """Set addresses, routes and sysctls of all hosts; raises TestbedError."""
        for host in self.hosts:
            if host.params.get("ip"):
                host.defaultIntf().setIP(host.params["ip"])
            host.configure()

    # -- views

    @property
    def fabric(self) -> list[FabricSwitch]:
        """The OpenFlow switches; the others are plain bridges."""
        return [switch for switch in self.switches if isinstance(switch, FabricSwitch)]

    @property
    def serval_hosts(self) -> list[ServalHost]:
        return [host for host in self.hosts if isinstance(host, ServalHost)]

    @property
    def routers(self) -> list[ServalHost]:
        """The service routers."""
        return [host for host in self.serval_hosts if host.options["role"] == "router"]

    def find(self, name: str) -> EmulatedNode:
        """A host or router by name; raises TestbedError that lists the known ones."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = [host.name for host in self.hosts]
        raise TestbedError(f"no host {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")

    def serval_host(self, name: str) -> ServalHost:
        host = self.find(name)
        if not isinstance(host, ServalHost):
            able = ", ".join(item.name for item in self.serval_hosts)
            raise TestbedError(f"{name} has no Serval node", f"these have one: {able}")
        return host

    def link_between(self, first: str, second: str) -> EmulatedLink:
        """The link between two nodes, of several the first; raises TestbedError."""
        return self._links_between(first, second)[0]

    def _links_between(self, first: str, second: str) -> list[EmulatedLink]:
        ends = {first, second}
        found = [link for link in self.links if ends == {link.intf1.node.name, link.intf2.node.name}]
        if not found:
            known = ", ".join(sorted(link.name for link in self.links))
            raise TestbedError(f"no link between {first} and {second}; there are: {known}")
        return found

    def set_link(self, first: str, second: str, *, up: bool) -> list[str]:
        """Take the link between two nodes down, or bring it up. Raises TestbedError.

        What comes up gets back the routes that the topology declares there and that the kernel has dropped; they are
        returned: ["ann: default via 10.1.0.254"]. One whose destination has another route by now stays as it is.
        """
        return status.change(self._links_between(first, second), up=up)

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:
        """Mininet's name for `set_link`: status is "up" or "down"."""
        self.set_link(src, dst, up=status == "up")

    def run_in(self, host: str, argv: Sequence[str], *, timeout: float = processes.COMMAND_SECONDS) -> str:
        """Run a command in a host and return its output; raises TestbedError when it fails."""
        return hosts.run(self.find(host), argv, timeout=timeout)

    def controller_request(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request to the controller's hand-control socket; raises TestbedError."""
        if not self.has_controller:
            raise TestbedError("this network has no controller", NO_CONTROLLER)
        log = self.logs / "controller.log"
        return nodes.request(str(CONTROLLER_SOCKET), "the controller", op, log=log, **fields)

    @property
    def controller_framework(self) -> str:
        """What the running controller says it runs on: "os-ken 4.2.2" or "Ryu 4.34"; raises TestbedError."""
        said = None if self._controller is None else frameworks.named_in(self._controller.printed())
        if said is None:
            raise TestbedError(
                "the controller has not said what it runs on", f"its log is {self.logs / 'controller.log'}"
            )
        return said

    # -- life

    def __enter__(self) -> ServalNetwork:
        """Started, with its services."""
        self.start()
        try:
            self.start_services()
        except BaseException:  # Ctrl-C too: what was started is stopped in order
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Controller, switches, nodes; each observed to be ready. Raises TestbedError after undoing what was done."""
        begun = time.monotonic()
        try:
            with self._step("Open vSwitch and controller" if self.has_controller else "Open vSwitch, no controller"):
                self._start_daemons()
            with self._step(f"{len(self.topo.hosts())} hosts and {len(self.topo.links())} links"):
                self._build()
            with self._step("controller ready" if self.has_controller else "launcher ready"):
                self._wait_daemons()
            with self._step(f"{len(self.switches)} switches"):
                self._start_switches()
            with self._step("rates and delays"):
                self._shape()
            with self._step(f"{len(self.serval_hosts)} Serval nodes"):
                self._start_nodes()
            if self.has_controller:
                self._meet_controller()
        except BaseException:  # Ctrl-C too: what was started is stopped in order
            self.stop()
            raise
        self.start_seconds = time.monotonic() - begun

    def _meet_controller(self) -> None:
        with self._step("controller knows every switch and node"):
            self.wait("the controller knows every switch and node", self._complete, log=self.logs / "controller.log")
        with self._step("switches know every host"):
            self._introduce()

    def stop(self) -> bool:
        """Undo everything in reverse order; a step that fails is reported and the next one is done. Call it as often
        as you like. Returns whether no step failed."""
        well = True
        for instance in self.instances:
            instance.ask_to_end()
        while self._undo:
            what, undo = self._undo.pop()
            try:
                undo()
            except TestbedError as error:
                report(TestbedError(f"while stopping {what}: {error.message}", error.hint))
                well = False
            except OSError as error:
                report(TestbedError(f"while stopping {what}: {error}"))
                well = False
        return well

    def stop_controller(self, *, crash: bool = False) -> None:
        """End the controller, with `crash` by SIGKILL. Nodes and switches go on with the rules that they have (S58)."""
        if self._controller is not None:
            self._controller.kill() if crash else self._controller.stop()

    def start_controller(self) -> None:
        """Start the controller again after `stop_controller`, until it listens; raises TestbedError."""
        if not self.has_controller:
            raise TestbedError("this network has no controller", NO_CONTROLLER)
        self._controller = controller = self._launch_controller()
        controller.wait_ready(partial(controller_ready, controller))

    def vm(self, name: str) -> VmForm:
        """A virtual machine of either form; raises TestbedError that lists them."""
        if name not in self.vms:
            there = ", ".join(self.vms)
            raise TestbedError(
                f"no virtual machine {name!r}{did_you_mean(name, self.vms)}; there are: {there or 'none'}"
            )
        return self.vms[name]

    def restart_node(self, name: str) -> None:
        """Start the Serval node of a host again after it has ended, until the controller knows it; raises TestbedError.

        Its rules and flows went with it. What runs below `serval run` registers again by itself, other servers do not.
        """
        host = self.serval_host(name)
        if self._launcher is None or name not in self._configurations:
            raise TestbedError(f"the node of {name} has not been started yet")
        if self._launcher.running(name):
            raise TestbedError(f"the node of {name} is running (process {self._launcher.pids[name]})")
        self.warnings += self._launcher.start([host], self._configurations)
        if self.has_controller:
            self.wait(
                f"the controller knows {name}",
                lambda: name in self.controller_request("status")["nodes"],
                log=self.logs / "controller.log",
            )

    def undo_at_stop(self, what: str, undo: Callable[[], object]) -> None:
        """Have something stopped before all that is there by now."""
        self._undo.append((what, undo))

    def start_services(self) -> None:
        """Start the declared services and wait until every router resolves each to all its instances."""
        if not self.services:
            return
        with self._step(f"services {', '.join(service.name for service in self.services)}"):
            for service in self.services:
                for name in service.hosts:
                    self.start_instance(service.name, name)
            for service in self.services:
                self.wait_service(service.name, service.hosts)

    def start_instance(self, service: str, host: str) -> Instance:
        """Start one more instance of a declared service, or one again that has ended; raises TestbedError."""
        declared = next((item for item in self.services if item.name == service), None)
        if declared is None:
            known = ", ".join(item.name for item in self.services)
            near = did_you_mean(service, [item.name for item in self.services])
            raise TestbedError(f"the topology declares no service {service!r}{near}; there are: {known}")
        if any((item.service, item.host.name, item.alive) == (declared, host, True) for item in self.instances):
            raise TestbedError(f"{service} is running on {host} already", f"kill {service} {host} ends it")
        instance = Instance(self.serval_host(host), declared)
        self.instances.append(instance)
        self.undo_at_stop(f"{service} on {host}", instance.stop)
        return instance

    def ended_nodes(self) -> list[ServalHost]:
        """The hosts whose Serval nodes have ended by themselves since the last call."""
        return [] if self._launcher is None else [self.serval_host(name) for name in self._launcher.ended()]

    def node_process(self, name: str) -> int:
        """The process of a host's Serval node; raises TestbedError when it is not running."""
        host = self.serval_host(name)
        process = None if self._launcher is None else self._launcher.pids.get(name)
        if process is None or not Path(f"/proc/{process}").exists():
            raise TestbedError(f"the node of {name} is not running", f"its log is {host.log_path}")
        return process

    def running(self, service: str) -> list[str]:
        """The hosts on which instances that the testbed started are running."""
        return sorted({item.host.name for item in self.instances if item.service.name == service and item.alive})

    def instance(self, service: str, host: str) -> Instance:
        """The running instance of a service on a host; raises TestbedError."""
        for instance in self.instances:
            if (instance.service.name, instance.host.name) == (service, host) and instance.alive:
                return instance
        running = ", ".join(sorted(f"{item.service.name} {item.host.name}" for item in self.instances if item.alive))
        raise TestbedError(
            f"no instance of {service} that the testbed started is running on {host}",
            f"there are: {running}" if running else "none is running any more: start SERVICE HOST",
        )

    def wait_service(self, service: str, on: Sequence[str]) -> float:
        """Wait until the routers' rules for a service name exactly these hosts; returns the seconds it took.

        Without a controller nobody has such a rule: then until these hosts, and no others, serve it.
        """
        wanted = {self.find(name).addresses()[0] for name in on}
        begun = time.monotonic()
        if not self.has_controller:
            for host in self.serval_hosts:
                what = f"{host.name} {'serves' if host.name in on else 'no longer serves'} {service}"
                self.wait(what, partial(self._served, host, service, host.name in on), log=host.log_path)
            return time.monotonic() - begun
        for router in self.routers:
            what = f"the rule of {router.name} for {service} names {', '.join(on) or 'nobody'}"
            self.wait(what, partial(self._resolves, router, service, wanted), log=router.log_path)
        return time.monotonic() - begun

    def _resolves(self, router: ServalHost, service: str, wanted: set[str]) -> bool:
        latest = {item.host.name: item for item in self.instances if item.service.name == service}
        for instance in latest.values():
            if instance.host.addresses()[0] in wanted:
                instance.check()
        return self.targets(router, service) == wanted

    def _served(self, host: ServalHost, service: str, wanted: bool) -> bool:
        if wanted:
            for instance in self.instances[::-1]:
                if (instance.host, instance.service.name) == (host, service):
                    instance.check()
                    break
        prefix = nodes.ask(host, "resolve", service=service)["prefix"]
        entries = [entry for entry in nodes.ask(host, "table")["entries"] if entry["prefix"] == prefix]
        return wanted == any(target["action"] == "demux" for entry in entries for target in entry["targets"])

    def targets(self, node: ServalHost, service: str) -> set[str]:
        """Where a node's rules for exactly this service lead: the addresses of FORWARD, its own for DEMUX."""
        # Asked by name, the node also learns the name, which its tables then show.
        prefix = nodes.ask(node, "resolve", service=service)["prefix"]
        entries = [entry for entry in nodes.ask(node, "table")["entries"] if entry["prefix"] == prefix]
        found = [target for entry in entries for target in entry["targets"]]
        own = {node.addresses()[0] for target in found if target["action"] == "demux"}
        return own | {target["address"] for target in found if target["action"] == "forward"}

    def wait(self, what: str, ready: Callable[[], bool], *, log: Path, timeout: float = COMPLETE_SECONDS) -> None:
        """Ask `ready` until it says so; raises TestbedError naming the log when it does not in time (seconds)."""
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                raise TestbedError(f"after {timeout:g} s it is still not so that {what}", f"see {log}")
            time.sleep(POLL_SECONDS)

    # -- the steps

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.say(f"  {what}: {time.monotonic() - begun:.1f} s")

    def _start_daemons(self) -> None:
        # Controller and launcher take their time with imports: they are waited for when the hosts are there.
        if self.has_controller:
            self._controller = self._launch_controller()
            self.undo_at_stop("the controller", self.stop_controller)
        self._launcher = nodes.Launcher(self.logs)
        self.undo_at_stop("the nodes' launcher", self._launcher.stop)
        switch = openvswitch.start(self.logs)
        self.undo_at_stop("Open vSwitch", switch.stop)

    def _wait_daemons(self) -> None:
        assert self._launcher is not None
        self._launcher.wait_ready()
        if self._controller is not None:
            self._controller.wait_ready(partial(controller_ready, self._controller))

    def _launch_controller(self) -> processes.Daemon:
        return launch_controller(self.providers, self.logs, options=self.controller_options)

    def _build(self) -> None:
        # Undone in the reverse of: hosts (their namespaces), links.
        self.undo_at_stop("hosts", lambda: [node.terminate() for node in (*self.hosts, *self.switches)])
        self.undo_at_stop("links", lambda: remove(self.links))
        # New interfaces on the switches' side stay silent; loopback keeps what it has.
        sysctl.write("net.ipv6.conf.default.disable_ipv6", 1)
        self.build()
        if self.host is ServalHost:
            nodes.appoint_router(self.serval_hosts)

    def _start_switches(self) -> None:
        self.undo_at_stop("switches", lambda: switches.stop(self.fabric))
        switches.start(self.fabric, f"tcp:{CONTROLLER_HOST}:{CONTROLLER_PORT}" if self.has_controller else None)
        for switch in self.switches:
            if isinstance(switch, KernelBridge):
                self.undo_at_stop(f"the bridge {switch.name}", switch.stop)
                switch.start()

    def _shape(self) -> None:
        userspace = openvswitch.datapath_type().name == "user"
        for link in self.links:
            link.apply(userspace_switches=userspace, logs=self.logs, seed=self.seed)
        for link in self.links:
            link.wait_ready()

    def _start_nodes(self) -> None:
        assert self._launcher is not None
        self.undo_at_stop("nodes", self._launcher.stop)
        addresses = {host.name: host.addresses()[0] for host in self.hosts if host.addresses()}
        channel = (CONTROLLER_HOST, CONTROLLER_PORT) if self.has_controller else None
        self._configurations = nodes.configurations(self.serval_hosts, addresses, self.providers, channel)
        self.warnings += self._launcher.start(self.serval_hosts, self._configurations)
        for host in self.serval_hosts:
            if host.params.get("vm"):
                self.vms[host.name] = vm = LightVm(self, host.name)
                self.undo_at_stop(f"the programs of {host.name}", vm.stop)

    def _introduce(self) -> None:
        """Let the fabric learn where each host is: to a host that it knows it leads without the controller (S58)."""
        for host in self.hosts:
            if host.gateway is not None:
                try:
                    hosts.run(host, ["ping", "-n", "-q", "-c", "1", "-W", "3", host.gateway])
                except TestbedError as error:
                    if "failed with status 1:" not in error.message:  # ping's for "no answer"
                        raise
                    raise self._unanswered(host) from None

    def _unanswered(self, host: EmulatedNode) -> TestbedError:
        """Why a host's gateway may be silent."""
        what = f"{host.name} gets no answer from its gateway {host.gateway}"
        if "switches" in self.controller_request("status"):
            return TestbedError(what, f"see {self.logs / 'controller.log'}")
        return TestbedError(
            f"{what}: the switches are left to the apps of --app, and these do not forward its packets",
            "--fabric beside --app keeps the switch fabric; a script says so by"
            ' controller_options=[..., "--apps", "fabric,service"] (docs/ryu-apps.md)',
        )

    def _complete(self) -> bool:
        status = self.controller_request("status")
        # Without the fabric the switches belong to other apps; then only their being connected can be seen.
        return (
            status.get("fabric_ready", True)
            and len(status.get("switches", status.get("connected_switches", ()))) == len(self.fabric)
            and set(status["nodes"]) == {host.name for host in self.serval_hosts}
        )
