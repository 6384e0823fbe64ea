"""A client with two interfaces, a stock Linux IP router and a server: where flows move in a benchmark.

              10.60.0.0/24, 200 Mbit/s
        +---------------------------------+          10.62.0.0/24, the round-trip time
    ann                                     r ------------------------------------------ eve
        +---------------------------------+
              10.61.0.0/24, 200 Mbit/s

The first interface is in use, the second one stands by: what leaves from its address goes by it, and its default route
stands behind the first's (testbed.mobility.multihoming). Neighbours are known beforehand: no ARP is in the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mininet.net import Mininet

from testbed import hosts, nodes
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode, PlainRouter, ServalHost
from testbed.link.emulated import EmulatedLink
from testbed.traffic.programs import Program, Worker

RATE = 200
PORT, MPTCP_PORT = 5101, 5102
SERVICE = "stream.example"
PROVIDERS = {"example": 0x5E7A1E}
FIRST, SECOND, SERVER = "10.60.0.1", "10.61.0.1", "10.62.0.2"
_GATEWAYS = {FIRST: "10.60.0.254", SECOND: "10.61.0.254"}
HOLE_TABLE = 66
_PREFERENCE, _PREFERRED_SUBFLOWS = 10, 2
CONGESTION_CONTROL = hosts.CONGESTION_CONTROL
MPTCP_STALE_LOSSES = {"default": 4, "tuned": 1}


class Multihomed:
    """The running network."""

    def __init__(self, client: ServalHost, router: PlainRouter, server: ServalHost, links: list[EmulatedLink]) -> None:
        self.client, self.router, self.server, self.links = client, router, server, links
        self.streams: Worker
        self.client_trigger: Worker
        self.router_trigger: Worker

    @property
    def first_interface(self) -> str:
        return self.links[0].intf1.name

    @property
    def first_interface_of_router(self) -> str:
        return self.links[0].intf2.name

    def restore(self) -> None:
        """Everything as it was in the beginning, whatever happened; raises TestbedError when the first path is dead."""
        hosts.script(self.router, [f"ip link set {self.first_interface_of_router} up", *self._router_lines()])
        hosts.script(self.client, [f"ip link set {self.first_interface} up", *self._client_lines()])
        hosts.run(self.client, ["ping", "-q", "-n", "-c", "1", "-W", "2", "-I", FIRST, SERVER])

    def _router_lines(self) -> list[str]:
        # "throw": the search goes on in the next table, as if this one were not there.
        lines = [f"ip route replace throw default table {HOLE_TABLE}"]
        lines += [_neighbour(link.intf2, link.intf1) for link in self.links[:2]]
        return [*lines, _neighbour(self.links[2].intf1, self.links[2].intf2)]

    def _client_lines(self) -> list[str]:
        lines = [" ".join(hosts.route_command("replace", *route)) for route in self.client.routes()]
        return lines + [_neighbour(link.intf1, link.intf2) for link in self.links[:2]]

    def set_up(self) -> None:
        """What stays: the rules behind which the silent hole opens, TCP that forgets."""
        forget = "sysctl -q -w net.ipv4.tcp_no_metrics_save=1"
        hosts.script(self.client, [forget])
        hole = [
            f"ip rule add iif {self.first_interface_of_router} lookup {HOLE_TABLE} pref {_PREFERENCE}",
            f"ip rule add to {FIRST} lookup {HOLE_TABLE} pref {_PREFERENCE}",
        ]
        hosts.script(self.router, hole)
        neighbour = _neighbour(self.links[2].intf2, self.links[2].intf1)
        hosts.script(self.server, [forget, neighbour])
        self.restore()

    def set_mptcp(self, tuned: bool) -> None:
        """Kernel MPTCP's endpoints and its patience for the next connection. Two subflows at once by default; tuned,
        the second one is a backup and the first one is given up for it at its first loss.
        """
        losses = MPTCP_STALE_LOSSES["tuned" if tuned else "default"]
        stale = f"sysctl -q -w net.mptcp.stale_loss_cnt={losses}"
        first, second = (link.intf1.name for link in self.links[:2])
        hosts.script(self.server, [stale, f"ip mptcp limits set subflows {_PREFERRED_SUBFLOWS}"])
        lines = [
            stale,
            f"ip mptcp limits set subflows {_PREFERRED_SUBFLOWS}",
            "ip mptcp endpoint flush",
            f"ip mptcp endpoint add {FIRST} dev {first} id 1 subflow",
            f"ip mptcp endpoint add {SECOND} dev {second} id 2 subflow{' backup' if tuned else ''}",
        ]
        hosts.script(self.client, lines)

    def facts(self) -> dict[str, Any]:
        return {
            "links": [str(link.shape) for link in self.links],
            "delay_by": self.links[2].mechanism,
            "congestion_control": CONGESTION_CONTROL,
            "mptcp_stale_loss_cnt": MPTCP_STALE_LOSSES,
        }


def _neighbour(own: Any, other: Any) -> str:
    return f"ip neigh replace {other.ip} lladdr {other.mac} dev {own.name} nud permanent"


@contextmanager
def multihomed(logs: Path, *, delay: float = 0.0, loss: float = 0.0) -> Iterator[Multihomed]:
    """Build it, start everything, wait until it works; `delay` in seconds and `loss` in percent, one way, of the
    server's link. Raises TestbedError.
    """
    undo: list[Callable[[], object]] = []
    try:
        network = _build(undo, logs, delay, loss)
        network.set_up()
        launcher = nodes.Launcher(logs)
        undo.append(launcher.stop)
        workers = _start_programs(undo, network, logs)
        launcher.wait_ready()
        serval = [network.client, network.server]
        launcher.start(serval, {host.name: _config(number, host) for number, host in enumerate(serval, 1)})
        for worker in workers:
            worker.wait_ready()
        nodes.ask(network.server, "bind", service=SERVICE, port=PORT)
        targets = [{"action": "forward", "address": SERVER}]
        nodes.ask(network.client, "rule_set", prefix=SERVICE, targets=targets)
        yield network
    finally:
        while undo:
            undo.pop()()


def _build(undo: list[Callable[[], object]], logs: Path, delay: float, loss: float) -> Multihomed:
    client, server = ServalHost("ann"), ServalHost("eve", defaultRoute="via 10.62.0.254")
    router = PlainRouter("r")
    undo += [client.terminate, server.terminate, router.terminate]
    # The server's link first, so that no end of the client's links has the number that its other end has: the kernel
    # would take such a link for hardware and hold its news of a lost carrier back, up to a second after the one before
    # (net/core/link_watch.c).
    shape = {**({"delay": f"{delay * 1e3:g}ms"} if delay else {}), **({"loss": loss} if loss else {})}
    server_link = _link(undo, router, server, ("10.62.0.254", SERVER), shape)
    client_links = [_link(undo, client, router, (address, _GATEWAYS[address]), {"bw": RATE}) for address in _GATEWAYS]
    for link in client_links:
        link.intf1.gateway = _GATEWAYS[link.intf1.ip]
    links = [*client_links, server_link]
    for node in (client, router, server):
        node.configure()
    for link in links:
        link.apply(userspace_switches=False, logs=logs)
    for link in links:
        link.wait_ready()
    return Multihomed(client, router, server, links)


def _link(
    undo: list[Callable[[], object]],
    one: EmulatedNode,
    other: EmulatedNode,
    pair: tuple[str, str],
    shape: dict[str, Any],
) -> EmulatedLink:
    macs = [Mininet.randMac(), Mininet.randMac()]
    link = EmulatedLink(one, other, addr1=macs[0], addr2=macs[1], **shape)
    undo.append(link.stop)
    for interface, address, mac in zip((link.intf1, link.intf2), pair, macs, strict=True):
        interface.setIP(f"{address}/24")
        interface.mac = mac
    return link


def _start_programs(undo: list[Callable[[], object]], network: Multihomed, logs: Path) -> list[Program]:
    stream, trigger = "experiments.benchmarks.stream", "experiments.benchmarks.trigger"
    far = Program("stream-server", network.server, [stream, "serve", str(PORT), str(MPTCP_PORT)], logs)
    undo.append(far.stop)
    workers = []
    for name, host, words in (
        ("stream-client", network.client, [stream, "client"]),
        ("trigger-client", network.client, [trigger]),
        ("trigger-router", network.router, [trigger]),
    ):
        worker = Worker(name, host, words, logs)
        undo += [worker.stop, worker.close]
        workers.append(worker)
    network.streams, network.client_trigger, network.router_trigger = workers
    return [far, *workers]


def _config(number: int, host: ServalHost) -> dict[str, Any]:
    return {
        "name": host.name,
        "node_id": number,
        "role": "host",
        "providers": PROVIDERS,
        "run_dir": str(host.run_directory),
        "congestion": CONGESTION_CONTROL,
    }


def check_first_path(network: Multihomed, flows: list[dict[str, Any]]) -> dict[str, Any]:
    """The open flow of the running stream, which must go over the first interface; raises TestbedError."""
    found = [row for row in flows if row["state"] == "CONNECTED" and row["service"].startswith("stream.example")]
    if not found or found[-1]["local"] != FIRST:
        places = ", ".join(row["local"] for row in found) or "no flow"
        raise TestbedError(f"the stream does not go over {FIRST}: {places}", f"see {network.client.log_path}")
    return found[-1]
