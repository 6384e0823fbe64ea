"""Ryu's stock learning switch and topology discovery on one OpenFlow port with the service controller."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from serval_node.control.experimenter import node_datapath_id
from testbed import frameworks, nodes
from testbed.network import ServalNetwork
from tests.emulation import stock_apps
from tests.emulation.datacenter import wait_for
from topologies.datacenter import Datacenter

TOPOLOGY = {"racks": 2, "hosts": 1, "clients": 1, "delay": "0"}
SERVICE = "web.example"
LLDP_PRIORITY = 0xFFFF
"""Topology discovery's flow; the learning switch has priority 0 (to the controller) and 1."""

Config = Mapping[str, Mapping[str, Any]]


class Stock:
    """A datacenter whose switches are ruled by stock apps."""

    def __init__(self, net: ServalNetwork, config: Config) -> None:
        self.net = net
        self._config = config
        self.nodes = {f"{node_datapath_id(number):016x}" for number in range(1, len(net.serval_hosts) + 1)}
        self.switches = {f"{int(switch.dpid, 16):016x}": switch.name for switch in net.switches}

    def observed(self) -> dict[str, Any]:
        return self.net.controller_request("observed")

    def links(self) -> set[tuple[int, int, int, int]]:
        """The links between switches as built, in both directions, as (datapath id, port) twice."""
        found = set()
        for link in self.net.links:
            ends = [(end.node, end) for end in (link.intf1, link.intf2)]
            if all(node in self.net.switches for node, _ in ends):
                one, other = ((int(node.dpid, 16), node.ports[interface]) for node, interface in ends)
                found |= {(*one, *other), (*other, *one)}
        return found

    def discovered(self) -> set[tuple[int, ...]]:
        return {tuple(link) for link in self.observed()["links"]}

    def ping(self, host: str, address: str) -> None:
        self.net.run_in(host, ["ping", "-n", "-c", "1", "-W", "5", address])

    def who(self) -> str:
        """Which instance answers ann."""
        answer = self.net.run_in("ann", ["curl", "-s", "--max-time", "5", f"http://{SERVICE}/"])
        return answer.removeprefix("This is ").partition(",")[0]

    def flows(self, switch: str) -> set[tuple[int, str, str, str, str]]:
        """(priority, in_port, source, destination, action) of each flow."""
        argv = ["ovs-ofctl", "-O", "OpenFlow13", "--no-names", "--no-stats", "dump-flows", switch]
        text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout
        found = set()
        for line in text.splitlines():
            if "actions=" not in line:
                continue
            match, actions = line.strip().split(" actions=")
            fields = dict(part.partition("=")[::2] for part in match.split(","))
            where = (fields.get(key, "") for key in ("in_port", "dl_src", "dl_dst"))
            priority = int(fields.get("priority", 0x8000))
            in_port, source, destination = where
            found.add((priority, in_port, source, destination, actions))
        return found

    def restart(self, name: str) -> None:
        """End a node's process, wait until the controller has noticed, and start it again."""
        launcher, host = self.net._launcher, self.net.serval_host(name)
        assert launcher is not None
        process = launcher.pids[name]
        os.kill(process, signal.SIGTERM)
        wait_for(f"the end of {name}'s channel", lambda: name not in self.connected())
        # It is the launcher's child, and gone when the launcher has seen its end.
        wait_for(f"the end of {name}'s node", lambda: not Path(f"/proc/{process}").exists())
        launcher.start([host], self._config)
        wait_for(f"{name}'s return", lambda: name in self.connected())

    def connected(self) -> set[str]:
        return set(self.net.controller_request("status")["nodes"])

    def channels(self) -> dict[str, int]:
        """Node -> how often it has reported itself to the controller, by the controller's log."""
        log = (self.net.logs / "controller.log").read_text()
        assert "Traceback" not in log and "Exception" not in log, log
        assert "answers with error" not in log, log
        names = re.findall(r"controllers\.service INFO (?:host|router) (\w+) reports", log)
        return {name: names.count(name) for name in names}


@pytest.fixture(
    params=[("osken", False), ("osken", True), ("ryu", False), ("ryu", True)],
    ids=lambda param: f"{param[0]}-{'shown' if param[1] else 'hidden'}",
)
def mode(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """The framework, and whether the other apps are shown the nodes."""
    obstacle = frameworks.ryu_obstacle()
    if obstacle is not None:
        pytest.skip(f"Python without Ryu: {obstacle}")
    return request.param


@pytest.fixture
def stock(mode: tuple[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stock]:
    choice, shown = mode
    monkeypatch.setenv("CONTROLLER", choice)
    config: dict[str, Mapping[str, Any]] = {}
    start = nodes.Launcher.start

    def remember(self: nodes.Launcher, hosts: Any, wanted: Config) -> list[str]:
        config.update(wanted)
        return start(self, hosts, wanted)

    monkeypatch.setattr(nodes.Launcher, "start", remember)
    options = [*stock_apps.beside(choice, tmp_path), *["--show-nodes"][: int(shown)], "--", "--observe-links"]
    net = ServalNetwork(Datacenter(**TOPOLOGY), logs=tmp_path, controller_options=options)
    with net:
        yield Stock(net, config)


@pytest.mark.deadline(120)
def test_stock_apps_and_serval_nodes_do_not_disturb_each_other(stock: Stock, mode: tuple[str, bool]) -> None:
    shown = mode[1]
    net, names = stock.net, {host.name for host in stock.net.serval_hosts}

    # What topology discovery finds: the switches and their links; the nodes only when it is shown them.
    wait_for("all links discovered", lambda: stock.discovered() == stock.links())
    switches = {dpid: ports for dpid, ports in stock.observed()["switches"].items() if dpid not in stock.nodes}
    assert set(switches) == set(stock.switches) and all(switches.values())
    wanted_nodes = dict.fromkeys(stock.nodes, 0) if shown else {}
    assert {d: p for d, p in stock.observed()["switches"].items() if d in stock.nodes} == wanted_nodes

    # Hosts reach each other by the learned flows, which are those of the learning switch and of discovery alone.
    stock.ping("dan", net.find("eve").addresses()[0])
    stock.ping("ann", net.find("dan").addresses()[0])
    learned = stock.observed()["learned"]
    assert set(learned) == set(stock.switches)
    for dpid, name in stock.switches.items():
        flows = stock.flows(name)
        assert {flow[0] for flow in flows} == {0, 1, LLDP_PRIORITY}, flows
        for _, in_port, source, destination, actions in (flow for flow in flows if flow[0] == 1):
            assert learned[dpid][source] == int(in_port)
            assert actions == f"output:{learned[dpid][destination]}"

    # Serval over them: a connect by name, and a rule change that arrives.
    assert stock.who() in ("dan", "eve")
    for name in ("eve", "dan"):
        net.controller_request("change", node="cleo", service=SERVICE, action="forward", targets=[name])
        assert {stock.who() for _ in range(3)} == {name}
    net.controller_request("remove", node="cleo", service=SERVICE)

    # A node that is started again is back with its rules, and all others never went away.
    stock.restart("ann")
    wait_for("its rules", lambda: nodes.ask(net.serval_host("ann"), "table")["entries"])
    assert stock.who() in ("dan", "eve")
    assert stock.channels() == {name: 2 if name == "ann" else 1 for name in names}
    assert stock.connected() == names

    # Discovery held all the time, and our messages came to other apps only when they were shown the nodes.
    assert stock.discovered() == stock.links()
    counts = stock.observed()["counts"]
    assert counts["EventSwitchEnter"] == len(stock.switches) + (len(stock.nodes) + 1 if shown else 0)
    assert counts.get("EventSwitchLeave", 0) == (1 if shown else 0)
    assert "EventSwitchReconnected" not in counts and "EventLinkDelete" not in counts
    assert ("EventOFPExperimenter" in counts) is shown
    if shown:
        poke_the_nodes(stock)


def poke_the_nodes(stock: Stock) -> None:
    """What apps for switches send is refused or answered as by a switch without ports, and the channel stays."""
    before = stock.channels()
    for node in stock.nodes:
        earlier = len(stock.observed()["answers"].get(node, []))
        stock.net.controller_request("poke", datapath_id=node)
        wait_for("the barrier", lambda node=node: "BarrierReply" in stock.observed()["answers"].get(node, []))
        answers = stock.observed()["answers"][node][earlier:]
        assert answers == ["2/4", "5/2", "FlowStatsReply", "PortDescStatsReply", "BarrierReply"]
    assert stock.channels() == before
    assert stock.who() in ("dan", "eve")
