"""A small network for benchmarks, without switches and without a controller: rules are made by hand.

    direct   ann ------------- eve        one link
    routed   ann ----- r ----- eve        r is a stock Linux IP router; cleo, at r too, is a service router;
                       +------ cleo       delay and rate are those of ann's link

On it run, beside the Serval nodes: the server of all variants at eve, the client's worker at ann, and the bounce.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mininet.net import Mininet

from testbed import hosts, nodes
from testbed.hosts import EmulatedNode, PlainRouter, ServalHost
from testbed.link.emulated import EmulatedLink
from testbed.traffic.programs import Program, Worker

PORT, SINK_PORT = 5001, 5002
PROVIDERS = {"example": 0x5E7A1E}
DIRECT, ROUTED, BULK = "direct.example", "routed.example", "bulk.example"
"""Services of the server: the first two differ in their way there, over the client's own rule or the service router."""
CLIENT_BOUNCE, SERVER_BOUNCE = "10.77.0.1", "10.77.0.2"
CONGESTION_CONTROL = hosts.CONGESTION_CONTROL


class Lan:
    """The running network. `order` gives the client's worker something to do."""

    def __init__(self, client: ServalHost, server: ServalHost, link: EmulatedLink, logs: Path) -> None:
        self.client, self.server, self.link, self.logs = client, server, link, logs
        self.node_pids: dict[str, int] = {}
        self.worker: Worker

    def order(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One order for the worker, see worker.py; raises TestbedError."""
        return self.worker.order(op, **arguments)

    def virtual(self, name: str, port: int) -> list[Any]:
        """The virtual address and port of a name, as an ordinary program at the client would find it."""
        answer = nodes.ask(self.client, "address", name=name, port=port)
        return [answer["address"], answer["port"]]

    def offloads(self, on: bool) -> None:
        """Segmentation offload of the link's two ends, on or off."""
        word = "on" if on else "off"
        for interface in (self.link.intf1, self.link.intf2):
            features = ["tso", word, "gso", word, "gro", word]
            hosts.run(interface.node, ["ethtool", "-K", interface.name, *features])

    def inside_udp(self, on: bool) -> None:
        """Whether the client's connections that begin from now on go inside UDP."""
        nodes.ask(self.client, "encapsulation", mode="udp" if on else "raw")

    def facts(self) -> dict[str, Any]:
        shown = hosts.run(self.client, ["ethtool", "-k", self.link.intf1.name])
        wanted = (
            "tx-checksumming",
            "tcp-segmentation-offload",
            "generic-segmentation-offload",
            "generic-receive-offload",
        )
        pairs = (line.partition(":") for line in shown.splitlines())
        return {
            "link": str(self.link.shape),
            "delay_by": self.link.mechanism,
            "offloads": {name.strip(): value.strip() for name, _, value in pairs if name.strip() in wanted},
            "congestion_control": CONGESTION_CONTROL,
            "queueing": hosts.run(self.client, ["tc", "qdisc", "show", "dev", self.link.intf1.name]).strip(),
        }


@contextmanager
def lan(logs: Path, *, routed: bool = False, mtu: int = 1500, bounce: bool = True, **shape: Any) -> Iterator[Lan]:
    """Build it, start everything, wait until it works; raises TestbedError. `shape`: bw, delay, loss of the link."""
    undo: list[Callable[[], object]] = []
    try:
        client, server, others, link = _build(undo, logs, routed, mtu, shape)
        network = Lan(client, server, link, logs)
        launcher = nodes.Launcher(logs)
        undo.append(launcher.stop)
        _start_programs(undo, network, bounce, mtu)
        launcher.wait_ready()
        serval = [client, server, *(other for other in others if isinstance(other, ServalHost))]
        launcher.start(serval, {host.name: _config(number, host, mtu) for number, host in enumerate(serval, 1)})
        network.node_pids = dict(launcher.pids)
        _rules(network, serval)
        yield network
    finally:
        while undo:
            undo.pop()()


def _build(
    undo: list[Callable[[], object]], logs: Path, routed: bool, mtu: int, shape: dict[str, Any]
) -> tuple[ServalHost, ServalHost, list[EmulatedNode], EmulatedLink]:
    def host(name: str, network: int, role: str = "host") -> ServalHost:
        route = f"via 10.8.{network}.254" if routed else None
        node = ServalHost(name, serval={"role": role}, defaultRoute=route)
        undo.append(node.terminate)
        return node

    client, server = host("ann", 1), host("eve", 2)
    others: list[EmulatedNode] = []
    if routed:
        middle = PlainRouter("r")
        undo.append(middle.terminate)
        others = [middle, host("cleo", 3, "router")]
        ends = [(client, middle), (server, middle), (others[1], middle)]
    else:
        ends = [(client, server)]
    links = []
    for number, (one, other) in enumerate(ends):
        options = shape if number == 0 else {name: shape[name] for name in ("bw",) if name in shape}
        link = EmulatedLink(one, other, addr1=Mininet.randMac(), addr2=Mininet.randMac(), **options)
        undo.append(link.stop)
        links.append(link)
        network = number + 1 if routed else 0
        link.intf1.setIP(f"10.8.{network}.1/24")
        link.intf2.setIP(f"10.8.{network}.{254 if routed else 2}/24")
    for node in (client, server, *others):
        node.configure()
        _finish(node, mtu, routed)
    for link in links:
        link.apply(userspace_switches=False, logs=logs)
    for link in links:
        link.wait_ready()
    return client, server, others, links[0]


def _finish(node: EmulatedNode, mtu: int, routed: bool) -> None:
    lines = [f"ip link set {interface.name} mtu {mtu}" for interface in node.intfList()]
    if not routed:  # else the default route says it
        interface = node.defaultIntf()
        network = f"10.8.0.0/24 dev {interface.name} proto kernel scope link src {interface.ip}"
        lines.append(f"ip route replace {network} congctl {CONGESTION_CONTROL}")
    hosts.script(node, lines)


def _config(number: int, host: ServalHost, mtu: int) -> dict[str, Any]:
    return {
        "name": host.name,
        "node_id": number,
        "role": host.params["serval"]["role"],
        "providers": PROVIDERS,
        "run_dir": str(host.run_directory),
        "congestion": CONGESTION_CONTROL,
        "encapsulation": "raw",
        "mtu": mtu,  # else it would be the smallest of all interfaces, and that is the bounce's
    }


def _rules(network: Lan, serval: Sequence[ServalHost]) -> None:
    address = network.server.addresses()[0]
    router = next((host for host in serval if host.params["serval"]["role"] == "router"), None)

    def forward(at: ServalHost, service: str, to: str) -> None:
        nodes.ask(at, "rule_set", prefix=service, targets=[{"action": "forward", "address": to}])

    for service, port in ((DIRECT, PORT), (ROUTED, PORT), (BULK, SINK_PORT)):
        nodes.ask(network.server, "bind", service=service, port=port)
        forward(network.client, service, address)
    if router is not None:
        forward(network.client, ROUTED, router.addresses()[0])
        forward(router, ROUTED, address)


def _start_programs(undo: list[Callable[[], object]], network: Lan, bounce: bool, mtu: int) -> None:
    client, server, logs = network.client, network.server, network.logs
    network.worker = Worker("worker", client, ["experiments.benchmarks.worker"], logs)
    undo += [network.worker.stop, network.worker.close]
    programs: list[tuple[str, ServalHost, list[str]]] = [
        ("answers", server, ["experiments.benchmarks.server", "answers", str(PORT)]),
        ("sink", server, ["experiments.benchmarks.server", "sink", str(SINK_PORT)]),
    ]
    if bounce:
        outer = client.addresses()[0], server.addresses()[0]
        inner = [str(mtu - 20)]
        bounce_program = "testbed.measure.bounce"
        programs += [
            ("bounce-client", client, [bounce_program, "bounce0", f"{CLIENT_BOUNCE}/24", *outer, *inner]),
            ("bounce-server", server, [bounce_program, "bounce0", f"{SERVER_BOUNCE}/24", *outer[::-1], *inner]),
        ]
    started: list[Program] = [network.worker]
    for name, host, words in programs:
        program = Program(name, host, words, logs)
        undo.append(program.stop)
        started.append(program)
    for one in started:
        one.wait_ready()
