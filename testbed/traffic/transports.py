"""What each transport of an experiment needs: of the kernel, of the hosts, and of whoever connects.

    serval, serval-udp    ordinary kernel sockets, to the virtual address of the item's service; packets are raw or
                          inside UDP, as the connecting node is told
    tcp                   the kernel's own, to the target's first address
    tcp-reconnect         the same, and the application connects anew after a silence or an error, and goes on
    mptcp, mptcp-tuned    kernel MPTCP with a path for each address of either end: all in use at once; tuned, the first
                          one is in use, the others are backups, and a path is given up at its first loss

Options of a contender: `patience` and `reconnect` (seconds), `congestion` (a congestion control).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

from testbed import hosts, nodes
from testbed.errors import TestbedError
from testbed.experiment.run import Run
from testbed.experiment.specification import (
    MPTCP,
    MPTCP_TUNED,
    SERVAL,
    SERVAL_UDP,
    TCP_RECONNECT,
    transport_obstacle,
)
from testbed.experiment.traffic import Traffic
from testbed.hosts import EmulatedNode, ServalHost
from testbed.traffic import mptcp
from testbed.vm_migration import REAL, VmForm

PATIENCE = 1.0
"""A silence of so many seconds that lasts to the end means that the stream is broken."""
RECONNECT = 1.0
"""The application of tcp-reconnect waits for data so many seconds."""
READY_SECONDS = 10.0
FACT = "transport"
SUBFLOWS = 2
STALE_LOSSES = {MPTCP: 4, MPTCP_TUNED: 1}
"""Retransmission time-outs in a row after which a path is given up (net.mptcp.stale_loss_cnt; 4 is the kernel's)."""
_ENCAPSULATION = {SERVAL: "raw", SERVAL_UDP: "udp"}


def named(run: Run) -> bool:
    """Whether the contender connects to services, not to addresses."""
    return run.contender.transport in _ENCAPSULATION


def protocol(run: Run) -> int:
    """Of its sockets, beside AF_INET and SOCK_STREAM."""
    return mptcp.IPPROTO_MPTCP if run.contender.transport in STALE_LOSSES else 0


def congestion(run: Run) -> str:
    """The congestion control of all its connections."""
    return str(run.contender.options.get("congestion", hosts.CONGESTION_CONTROL))


def patience(run: Run) -> float:
    return float(run.contender.options.get("patience", PATIENCE))


def reconnect(run: Run) -> float | None:
    """Seconds of silence after which the application connects anew; None: it never does."""
    if run.contender.transport != TCP_RECONNECT:
        return None
    return float(run.contender.options.get("reconnect", RECONNECT))


def target(run: Run, item: Traffic, port: int) -> tuple[str, int]:
    """The address and port that the source of an item connects to; raises TestbedError."""
    if named(run):
        answer = nodes.ask(run.network.serval_host(item.source), "address", name=item.service)
        return answer["address"], answer["port"]
    return first_address(run, item.target), port


def guest(run: Run, name: str) -> VmForm | None:
    """A real virtual machine of this name: a kernel of its own, not a host of the network. None when there is none."""
    vm = run.network.vms.get(name)
    return vm if vm is not None and vm.form == REAL else None


def first_address(run: Run, name: str) -> str:
    """Of a host or a virtual machine; raises TestbedError."""
    vm = guest(run, name)
    return run.network.find(name).addresses()[0] if vm is None else vm.address


def address_of(host: EmulatedNode, place: str) -> str:
    """The address of an interface of a host, or that address itself; "eth0" is its first interface.

    Raises TestbedError that lists what there is.
    """
    places: dict[str, str] = {}
    for number, interface in enumerate(host.intfList()):
        if interface.ip is not None:
            places |= dict.fromkeys((f"eth{number}", interface.name, interface.ip), interface.ip)
    if place not in places:
        raise TestbedError(f"{host.name} has no interface or address {place!r}", f"it has: {', '.join(places)}")
    return places[place]


def paths(run: Run, item: Traffic) -> int:
    """How many ways MPTCP has between the two ends of an item."""
    ends = [name for name in (item.source, item.target) if guest(run, name) is None]
    return max(len(run.network.find(name).addresses()) for name in ends)


def set_up(run: Run, items: Iterable[Traffic]) -> None:
    """Make the hosts of these items ready for the run's transport, once in a run; raises TestbedError.

    What they were told is the run's fact "transport".
    """
    if FACT in run.facts:
        return
    reason = transport_obstacle(run.contender.transport)
    if reason is not None:
        raise TestbedError(f"{run.contender.transport} cannot run here: {reason}")
    sources = {item.source: run.network.find(item.source) for item in items}
    guests = {item.target: guest(run, item.target) for item in items}
    targets = {name: run.network.find(name) for name, vm in guests.items() if vm is None}
    for host in {**sources, **targets}.values():
        # What a connection learned of a path would help the next one.
        hosts.script(host, ["sysctl -q -w net.ipv4.tcp_no_metrics_save=1"])
        if named(run) and (host.name in sources or isinstance(host, ServalHost)):
            serval = run.network.serval_host(host.name)
            nodes.ask(serval, "encapsulation", mode=_ENCAPSULATION[run.contender.transport])
    for vm in guests.values():
        if vm is not None and named(run):
            vm.ask("encapsulation", mode=_ENCAPSULATION[run.contender.transport])
    if run.contender.transport in STALE_LOSSES:
        for host in targets.values():
            set_mptcp(host, run.contender.transport, announce=True)
        for host in sources.values():
            set_mptcp(host, run.contender.transport, announce=False)
    run.facts[FACT] = _facts(run)


def set_mptcp(host: EmulatedNode, transport: str, *, announce: bool) -> None:
    """Tell a host's kernel which of its addresses MPTCP may use, before there are connections; raises TestbedError.

    announce  a server's: its addresses are told to the client, which opens the paths
    """
    lines = [
        f"sysctl -q -w net.mptcp.stale_loss_cnt={STALE_LOSSES[transport]}",
        f"ip mptcp limits set subflows {SUBFLOWS} add_addr_accepted {SUBFLOWS}",
        "ip mptcp endpoint flush",
    ]
    held = [interface for interface in host.intfList() if interface.ip is not None]
    for number, interface in enumerate(held if len(held) > 1 else [], 1):
        kind = "signal" if announce else "subflow"
        backup = " backup" if transport == MPTCP_TUNED and number > 1 else ""
        lines.append(f"ip mptcp endpoint add {interface.ip} dev {interface.name} id {number} {kind}{backup}")
    hosts.script(host, lines)


def follow(run: Run, host: EmulatedNode) -> None:
    """Tell MPTCP of a host whose addresses have changed, as a network manager does: those that are gone are forgotten,
    new ones become paths. Of other transports nobody has to be told. Raises TestbedError.
    """
    if run.contender.transport not in STALE_LOSSES:
        return
    known = json.loads(hosts.run(host, ["ip", "-json", "mptcp", "endpoint", "show"]) or "[]")
    held = {interface.ip: interface.name for interface in host.intfList() if interface.ip is not None}
    kind = "signal" if any("signal" in endpoint for endpoint in known) else "subflow"
    lines = [f"mptcp endpoint delete id {endpoint['id']}" for endpoint in known if endpoint["address"] not in held]
    there = {endpoint["address"] for endpoint in known}
    lines += [f"mptcp endpoint add {ip} dev {name} {kind}" for ip, name in held.items() if ip not in there]
    if lines:
        hosts.script(host, [hosts.batch("ip", lines)])


def _facts(run: Run) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": run.contender.transport,
        "congestion_control": congestion(run),
        "patience": patience(run),
    }
    if run.contender.transport == TCP_RECONNECT:
        told["reconnect_after"] = reconnect(run)
    if run.contender.transport in STALE_LOSSES:
        told["stale_loss_cnt"] = STALE_LOSSES[run.contender.transport]
    if named(run):
        told["encapsulation"] = _ENCAPSULATION[run.contender.transport]
    return told


def serve(run: Run, item: Traffic, port: int) -> None:
    """Register what listens on a port of an item's target under its service, and wait until the source's SYNs find it.

    Nothing is done for who connects to addresses. Raises TestbedError.
    """
    if not named(run):
        return
    vm, network = guest(run, item.target), run.network
    if vm is None:
        nodes.ask(network.serval_host(item.target), "bind", service=item.service, port=port)
        network.wait_service(item.service, [item.target])
        return
    vm.ask("bind", service=item.service, port=port)
    for router in network.routers:
        what = f"the rule of {router.name} for {item.service} names {item.target}"
        network.wait(what, partial(_leads_to, run, router, item.service, vm.address), log=router.log_path)


def _leads_to(run: Run, router: ServalHost, service: str, address: str) -> bool:
    return run.network.targets(router, service) == {address}
