"""Emulated hosts and plain IP routers: Mininet nodes whose addresses and sysctls are set with checked commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mininet.link import Intf
from mininet.node import Node

from testbed import processes
from testbed.errors import TestbedError
from testbed.mobility import multihoming
from testbed.mobility.multihoming import Home
from topologies.declarations import IpRouter

HOSTS_DIRECTORY = Path("/run/testbed/hosts")
SHELL_SECONDS = 1.0
CONGESTION_CONTROL = "cubic"
DEFAULT = "default"
# rp_filter would drop what comes back another way; IPv6's chatter would be in every capture and counter.
SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": 1,
    "net.ipv6.conf.default.disable_ipv6": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
}


def inside(node: Node, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in the node's network and mount namespaces."""
    return ["mnexec", "-a", str(node.pid), *argv] if node.inNamespace else list(argv)


def run(node: Node, argv: Sequence[str], *, timeout: float = processes.COMMAND_SECONDS) -> str:
    """Run a command in a node to its end, apart from the node's shell; raises TestbedError naming the node."""
    try:
        return processes.run(inside(node, argv), timeout=timeout)
    except TestbedError as error:
        raise TestbedError(f"{node.name}: {error.message}", error.hint) from None


def script(node: Node, lines: Sequence[str]) -> str:
    """Run shell lines in a node, stopping at the first that fails; raises TestbedError."""
    return run(node, ["sh", "-ec", "\n".join(lines)])


def batch(program: str, lines: Sequence[str]) -> str:
    """A shell line that gives `ip` or `tc` many of its commands at once; at the first that fails it stops."""
    return f"{program} -batch - <<'END'\n" + "\n".join(lines) + "\nEND"


def end_shell(node: Node) -> None:
    """End a node's shell, with what runs in it; one that does not hear is killed."""
    if node.shell and node.shell.poll() is None:
        # Mininet would wait for it without a limit.
        for number in (signal.SIGHUP, signal.SIGKILL):
            try:
                os.killpg(node.shell.pid, number)
                node.shell.wait(SHELL_SECONDS)
                break
            except ProcessLookupError:
                break  # it ended between the two calls
            except subprocess.TimeoutExpired:
                continue
    node.cleanup()


class Interface(Intf):
    """An interface that keeps its addresses as data; `configure` of its node sets them all in one go."""

    gateway: str | None = None
    """Of a host with several interfaces: the router of what leaves from this one's address (mobility.multihoming)."""

    def config(
        self, mac: str | None = None, ip: str | None = None, gateway: str | None = None, **_unused: Any
    ) -> dict[str, Any]:
        self.mac = mac
        self.gateway = gateway
        if ip is not None:
            self.ip, self.prefixLen = ip.split("/")
        return {}

    def setIP(self, ipstr: str, prefixLen: int | str | None = None) -> str:
        """Keep an address given by a node's option `ip`; the prefix length stands in it or beside it."""
        address, _, length = ipstr.partition("/")
        self.ip, self.prefixLen = address, length or str(prefixLen)
        return ""


def route_command(verb: str, destination: str, way: str) -> list[str]:
    """The command for a route; `verb` is add or replace, `way` "via 10.1.0.254", "dev ann-eth0" or both."""
    words = ["ip", "route", verb, destination, *way.split()]
    # In a namespace the sysctl allows only what the first namespace lets everyone use; the route attribute takes any.
    return [*words, "congctl", CONGESTION_CONTROL] if destination == DEFAULT else words


class EmulatedNode(Node):
    """What hosts and routers share."""

    def configure(self) -> None:
        """Set sysctls, addresses and routes; raises TestbedError. Interfaces must be there."""
        settings = [f"{name}={value}" for name, value in self.sysctls().items()]
        commands = ["link set lo up"]
        for interface in self.intfList():
            settings.append(f"net.ipv4.conf.{interface.name}.rp_filter=0")
            if interface.ip is not None:
                commands.append(f"address replace {interface.ip}/{interface.prefixLen} brd + dev {interface.name}")
            commands.append(f"link set {interface.name} up")
        commands += [" ".join(route_command("replace", *route)[1:]) for route in self.routes()]
        commands += multihoming.rules(self.homes())
        # Few programs: in a large network their starts are most of the time that it takes.
        script(self, [f"sysctl -q -w {' '.join(settings)}", batch("ip", commands)])

    def sysctls(self) -> dict[str, int]:
        return {**SYSCTLS, "net.ipv4.ip_forward": 1} if self.params.get("ip_forward") else dict(SYSCTLS)

    @property
    def gateway(self) -> str | None:
        """The address of its default router."""
        words = (self.params.get("defaultRoute") or "").split()
        own = words[1] if words[:1] == ["via"] and len(words) > 1 else None
        return next((home.gateway for home in self.homes()), own)

    def homes(self) -> list[Home]:
        """Its interfaces that have a gateway of their own, in their order."""
        return [
            Home(interface.name, interface.ip, int(interface.prefixLen), interface.gateway)
            for interface in self.intfList()
            if isinstance(interface, Interface) and interface.ip is not None and interface.gateway is not None
        ]

    def routes(self) -> list[tuple[str, str]]:
        """The destination (a network, or `default`) of each declared route, and its way: "via 10.1.0.254"."""
        # Of one that has several gateways it is for Mininet alone, which knows no others.
        default = None if self.homes() else self.params.get("defaultRoute")
        declared = self.params.get("routes") or []
        return [
            *([(DEFAULT, default)] if default else []),
            *((destination, f"via {gateway}") for destination, gateway in declared),
            *multihoming.routes(self.homes()),
        ]

    def addresses(self) -> list[str]:
        """Its IPv4 addresses, in the order of its interfaces."""
        return [interface.ip for interface in self.intfList() if interface.ip is not None]

    def terminate(self) -> None:
        """End the node's shell, and with it the namespaces."""
        end_shell(self)


class PlainHost(EmulatedNode):
    """A host without Serval."""


class ServalHost(EmulatedNode):
    """A host with a Serval node. The topology's option `serval` says which: {"role": "host"}, what one is without that
    option, or a service router's, {"role": "router", "serves": ["example"]}.
    """

    def __init__(self, name: str, **params: Any) -> None:
        params.setdefault("serval", {"role": "host"})
        super().__init__(name, **params)

    def _popen(self, cmd: Sequence[str], **params: Any) -> subprocess.Popen[Any]:
        # For cmd() and popen() alike: `serval` is a program of this Python's environment, which need not be on PATH.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        params.setdefault("env", {**os.environ, "PATH": path})
        return super()._popen(cmd, **params)

    @property
    def options(self) -> dict[str, Any]:
        """The option `serval`."""
        return self.params["serval"]

    def serval(self, *words: str, timeout: float = processes.COMMAND_SECONDS) -> str:
        """What `serval WORDS` prints in this host; raises TestbedError when it fails or takes longer (seconds)."""
        return run(self, [sys.executable, "-m", "serval_node.cli", *words], timeout=timeout)

    @contextmanager
    def bind(self, service: str, *, answer: str | None = None) -> Iterator[None]:
        """Serve a name here while the block runs, by `serval bind`: echoes what comes, or sends `answer` to everyone.

        Raises TestbedError when the name cannot be served.
        """
        argv = [sys.executable, "-m", "serval_node.cli", "bind", service]
        argv += [] if answer is None else ["--answer", answer]
        log = self.run_directory / f"bind-{service.replace('/', '_')}.log"
        server = processes.start(f"{service} on {self.name}", inside(self, argv), log=log)
        try:
            server.wait_ready(lambda: "is served here" in server.printed())
            yield
        finally:
            server.stop()

    @property
    def run_directory(self) -> Path:
        """Seen as /run/serval inside the host."""
        return HOSTS_DIRECTORY / self.name

    @property
    def control_path(self) -> str:
        return str(self.run_directory / "control.sock")

    @property
    def log_path(self) -> Path:
        return self.run_directory / "servald.log"


class PlainRouter(EmulatedNode, IpRouter):
    """A stock Linux IP router (S7)."""

    def sysctls(self) -> dict[str, int]:
        return {**SYSCTLS, "net.ipv4.ip_forward": 1}
