"""The controller as it runs: its process, channels of scripted nodes, `servicectl`, and real switches."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serval_node.control import messages
from serval_node.wire.naming import Naming
from testbed import openvswitch
from tests.emulation.controller_peers import ROOT, Controller, ScriptedNode, stdout_json, wait_for

NAMING = Naming({"example": 0x9C1185})
BLOCK = NAMING.block("example")
WEB = NAMING.bind_prefix("web.example")
PORTS = itertools.count(16653)

MakeController = Callable[..., Controller]


@pytest.fixture
def make_controller(tmp_path: Path) -> Iterator[MakeController]:
    made: list[Controller] = []

    def make(*options: str) -> Controller:
        controller = Controller(tmp_path, next(PORTS), *options)
        made.append(controller)
        return controller

    yield make
    for controller in made:
        controller.stop()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=20, check=False)


class Figure:
    """Client ann, service router cleo, instances dan and eve, as scripted nodes."""

    def __init__(self, controller: Controller) -> None:
        self.ann = ScriptedNode(controller, 1, "ann", "10.1.0.1")
        self.cleo = ScriptedNode(controller, 2, "cleo", "10.2.0.1", role="router", serves=(BLOCK,))
        self.dan = ScriptedNode(controller, 3, "dan", "10.2.1.1")
        self.eve = ScriptedNode(controller, 4, "eve", "10.2.1.2")
        self.all = (self.ann, self.cleo, self.dan, self.eve)

    def connect(self) -> Figure:
        for node in self.all:
            node.connect()
        self.dan.bind(WEB, name="web.example")
        self.eve.bind(WEB, name="web.example")
        self.await_targets(self.dan, self.eve)
        return self

    def targets(self) -> set[str]:
        rule = self.cleo.rules.get(WEB)
        return set(rule.addresses) if rule is not None else set()

    def await_targets(self, *nodes: ScriptedNode, limit: float = 5.0) -> None:
        wanted = {node.address for node in nodes}
        wait_for(f"cleo's rule with {wanted}", lambda: self.targets() == wanted, limit)

    def disconnect(self) -> None:
        for node in self.all:
            node.disconnect()


@pytest.fixture
def controller(make_controller: MakeController) -> Controller:
    controller = make_controller("--grace", "4")
    controller.start()
    return controller


@pytest.fixture
def figure(controller: Controller) -> Iterator[Figure]:
    figure = Figure(controller).connect()
    yield figure
    figure.disconnect()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_when_it_is_ready_and_ends_in_order(controller: Controller, figure: Figure, number: int) -> None:
    began = time.monotonic()
    assert controller.stop(number) == 0
    assert time.monotonic() - began < 4.0
    assert not Path(controller.socket).exists()
    assert "Traceback" not in controller.log.read_text()


def test_it_cannot_start_twice(controller: Controller, make_controller: MakeController, tmp_path: Path) -> None:
    other = make_controller()
    for options, words in [
        (["--port", str(controller.port), "--socket", str(tmp_path / "b.sock")], "Address already in use"),
        ([], "in use by another controller"),
        (["--socket", "/proc/nowhere/c.sock"], "/proc/nowhere/c.sock"),
        (["--provider", "example=0x12"], "block"),
    ]:
        done = subprocess.run(
            other.command(*options), capture_output=True, text=True, cwd=ROOT, timeout=20, check=False
        )
        assert done.returncode == 1
        assert words in done.stderr and done.stderr.count("\n") == 1
    assert run(*other.command("--apps", "none")).returncode == 2


def test_a_socket_left_by_a_killed_controller_is_no_hindrance(controller: Controller) -> None:
    assert controller.stop(signal.SIGKILL) == -signal.SIGKILL
    assert Path(controller.socket).exists()
    controller.start()
    assert controller.ask("status")["nodes"] == []


def test_registrations_and_deaths_reach_the_tables(figure: Figure) -> None:
    """S31, S32, S33, S34 over real channels."""
    for host in (figure.ann, figure.dan, figure.eve):
        wait_for("the edge rule", lambda host=host: set(host.rules) == {BLOCK})
    figure.eve.unbind(WEB)
    figure.await_targets(figure.dan)
    figure.eve.bind(WEB)
    figure.await_targets(figure.dan, figure.eve)
    began = time.monotonic()
    figure.dan.disconnect()
    figure.await_targets(figure.eve)
    assert time.monotonic() - began < 1.0, "a closed connection is noticed at once"


def test_a_host_that_hangs_is_found_by_keep_alive(make_controller: MakeController) -> None:
    controller = make_controller("--echo-interval", "0.3", "--echo-lost", "3")
    controller.start()
    figure = Figure(controller).connect()
    figure.eve.freeze()
    began = time.monotonic()
    try:
        figure.await_targets(figure.dan)
        assert 0.6 < time.monotonic() - began < 3.0
    finally:
        figure.eve.thaw()
        figure.disconnect()


@pytest.mark.parametrize("order", [("cleo", "ann", "dan", "eve"), ("dan", "cleo", "eve", "ann")])
def test_a_restarted_controller_takes_nothing_away(
    controller: Controller, figure: Figure, order: tuple[str, ...]
) -> None:
    """S58: stopped and started, it relearns; the service router comes first, when no instance has reported."""
    wait_for("edge rules", lambda: all(BLOCK in node.rules for node in (figure.ann, figure.dan, figure.eve)))
    assert controller.stop() == 0
    figure.disconnect()
    assert figure.targets() == {figure.dan.address, figure.eve.address}, "rules outlive their controller"
    for node in figure.all:
        node.changes.clear()
    controller.start()
    for name in order:
        getattr(figure, name).connect()
        time.sleep(0.3)
        assert figure.targets() == {figure.dan.address, figure.eve.address}
    time.sleep(0.5)
    assert [node.changes for node in figure.all] == [[], [], [], []]
    assert len(controller.ask("services")["services"][0]["instances"]) == 2


def test_a_restarted_controller_knows_names_and_weights(controller: Controller, figure: Figure) -> None:
    """It learns both from the nodes' rules: a number does not tell its name, a target not whose word its weight is."""
    assert controller.ctl("add", "cleo", "deep.example", "drop").returncode == 0
    assert controller.ctl("policy", "web.example", "round-robin", "dan=9").returncode == 0
    wait_for("the weight", lambda: 9 in {target.weight for target in figure.cleo.rules[WEB].targets})
    controller.stop()
    figure.disconnect()
    controller.start()
    for node in figure.all:
        node.connect()
    wait_for("all nodes", lambda: len(controller.ask("services")["services"][:1]) == 1)
    figure.await_targets(figure.dan, figure.eve)
    listed = {rule["name"] for rule in stdout_json(controller.ctl("rules", "cleo", "--json"))["rules"]}
    assert listed == {"web.example", "deep.example"}
    assert controller.ctl("policy", "web.example").stdout == "web.example round-robin dan=9\n"
    assert {target.weight for target in figure.cleo.rules[WEB].targets} == {1, 9}


def test_after_the_grace_time_the_dead_are_given_up(controller: Controller, figure: Figure) -> None:
    controller.stop()
    figure.disconnect()
    began = time.monotonic()
    controller.start()
    figure.cleo.connect()
    figure.dan.connect()
    time.sleep(1.0)
    assert controller.ask("status")["waiting_for"] == [figure.eve.address]
    assert figure.targets() == {figure.dan.address, figure.eve.address}
    figure.await_targets(figure.dan, limit=8.0)
    assert time.monotonic() - began >= 4.0


def test_a_node_that_returns_before_its_old_channel_ended_is_kept(controller: Controller, figure: Figure) -> None:
    again = ScriptedNode(controller, 3, "dan", figure.dan.address)
    again.bindings = figure.dan.bindings
    again.connect()
    time.sleep(0.5)
    figure.dan.disconnect()
    time.sleep(0.5)
    assert figure.targets() == {figure.dan.address, figure.eve.address}
    again.disconnect()


def test_servicectl(controller: Controller, figure: Figure) -> None:
    """Lists are tables, changes are acknowledged or refused by the node, the exit status says which."""
    nodes = controller.ctl("nodes").stdout.splitlines()
    assert nodes[0].split()[:3] == ["NODE", "ROLE", "ADDRESSES"]
    assert [line.split()[0] for line in nodes[1:]] == ["ann", "cleo", "dan", "eve"]
    assert len({line.index("10.") for line in nodes[1:]}) == 1, "aligned"
    assert "web.example" in controller.ctl("services").stdout
    (service,) = stdout_json(controller.ctl("services", "--json"))["services"]
    assert [item["node"] for item in service["instances"]] == ["dan", "eve"]

    done = controller.ctl("add", "cleo", "web.example", "forward", "dan*3", "10.7.7.7", "--selector", "hash")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert figure.targets() == {figure.dan.address, "10.7.7.7"}
    rules = controller.ctl("rules", "cleo").stdout
    assert "hand" in rules and "maglev" in rules and "FORWARD" in rules
    for words in (["drop"], ["delay"], ["demux", "8080"]):
        assert controller.ctl("change", "cleo", "web.example", *words).returncode == 0
        assert figure.cleo.rules[WEB].targets[0].action == words[0]
    assert controller.ctl("remove", "cleo", "web.example").returncode == 0
    figure.await_targets(figure.dan, figure.eve)

    figure.cleo.refuse = "nothing listens on port 9"
    done = controller.ctl("add", "cleo", "web.example", "demux", "9")
    assert (done.returncode, done.stderr) == (1, "servicectl: cleo refuses: nothing listens on port 9\n")
    figure.cleo.refuse = ""
    for words in (["rules", "zoe"], ["policy", "web.example", "best"], ["remove", "ann", "web.example"]):
        done = controller.ctl(*words)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    for words in ([], ["fly"], ["add", "cleo", "web.example", "fly"], ["policy", "web.example", "hash", "dan=x"]):
        assert controller.ctl(*words).returncode == 2

    done = controller.ctl("policy", "wbe.example", "hash")
    assert (done.returncode, done.stdout) == (0, "wbe.example maglev\n")
    assert done.stderr == "servicectl: nobody serves wbe.example yet; the policy holds when somebody does\n"

    done = controller.ctl("policy", "web.example", "two-choices")
    assert (done.returncode, done.stderr) == (0, "")
    wait_for("load figures", lambda: figure.cleo.loads == {figure.dan.address: 3.0, figure.eve.address: 3.0})
    assert figure.cleo.rules[WEB].selector == "two-choices"


def test_servicectl_without_a_controller(make_controller: MakeController) -> None:
    done = make_controller().ctl("nodes")
    assert done.returncode == 1
    assert done.stderr.startswith("servicectl: nothing listens on ") and done.stderr.count("\n") == 1


def test_garbage_on_both_doors_harms_nobody(controller: Controller, figure: Figure) -> None:
    with socket.create_connection(("127.0.0.1", controller.port)) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n" * 10)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(controller.socket)
        sock.sendall(b"what?\n")
        assert b'"ok":false' in sock.recv(1000)
    figure.dan._send(messages.Result(True))
    assert controller.ask("status")["nodes"] == ["ann", "cleo", "dan", "eve"]


# -- switches

STATIONS = 4

LISTEN = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5000))
s.settimeout(1.5)
print("up", flush=True)
seen = 0
try:
    while seen < 5000:
        s.recv(100)
        seen += 1
except TimeoutError:
    pass
print(seen)
"""

SEND = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for n in range(10):
    s.sendto(b"%d" % n, ("10.8.0.255", 5000))
"""


def command(*words: str) -> str:
    done = run(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


class Ring:
    """Four switches in a ring with a chord and a doubled link, one host each, in a private Open vSwitch."""

    def __init__(self, port: int) -> None:
        kind = openvswitch.datapath_type().bridge_type
        self.target = f"tcp:127.0.0.1:{port}"
        self.hosts: dict[int, subprocess.Popen[bytes]] = {}
        self.listeners: list[subprocess.Popen[str]] = []
        for n in range(1, STATIONS + 1):
            settings = ["fail_mode=secure", f"datapath_type={kind}", "protocols=OpenFlow13"]
            bridge = ["--", "set", "Bridge", f"s{n}", *settings, f"other-config:datapath-id={n:016x}"]
            command("ovs-vsctl", "add-br", f"s{n}", *bridge)
        for a, b in [(1, 2), (2, 3), (3, 4), (4, 1), (1, 3), (1, 2)]:
            self._link(a, b)
        for n in range(1, STATIONS + 1):
            self._host(n)
            self.connect_switch(n)

    def connect_switch(self, n: int) -> None:
        command("ovs-vsctl", "set-controller", f"s{n}", self.target, "--", "set", "Controller", f"s{n}", *(
            "max_backoff=1000", "inactivity_probe=5000"
        ))  # fmt: skip

    def disconnect_switch(self, n: int) -> None:
        command("ovs-vsctl", "del-controller", f"s{n}")

    def _link(self, a: int, b: int) -> None:
        for one in (f"s{a}-s{b}", f"s{a}-s{b}x"):
            if subprocess.run(["ip", "link", "show", one], capture_output=True, check=False).returncode:
                other = f"{one}-"
                command("ip", "link", "add", one, "type", "veth", "peer", "name", other)
                for name, switch in ((one, a), (other, b)):
                    command("ip", "link", "set", name, "up")
                    command("ovs-vsctl", "add-port", f"s{switch}", name)
                return

    def _host(self, n: int) -> None:
        host = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE)
        self.hosts[n] = host
        assert host.stdout is not None
        host.stdout.readline()
        command("ip", "link", "add", f"h{n}", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        command("ip", "link", "set", f"h{n}", "up")
        command("ovs-vsctl", "add-port", f"s{n}", f"h{n}")
        self.run(n, "ip", "addr", "add", f"10.8.0.{n}/24", "dev", "eth0")
        self.run(n, "ip", "link", "set", "eth0", "up")
        # The userspace datapath passes no packet whose checksum is left to the hardware.
        self.run(n, "ethtool", "-K", "eth0", "tx", "off")

    def run(self, n: int, *words: str) -> str:
        return command("nsenter", "--target", str(self.hosts[n].pid), "--net", "--", *words)

    def ping(self, a: int, b: int) -> None:
        self.run(a, "ping", "-c", "1", "-W", "5", f"10.8.0.{b}")

    def copies(self, sender: int) -> dict[int, int]:
        """How often every other host gets each of ten broadcast datagrams."""
        listeners = {}
        for n in self.hosts:
            if n != sender:
                words = ["nsenter", "--target", str(self.hosts[n].pid), "--net", "--", sys.executable, "-c", LISTEN]
                listeners[n] = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        for listener in listeners.values():
            assert listener.stdout is not None and listener.stdout.readline() == "up\n"
        self.run(sender, sys.executable, "-c", SEND)
        return {n: int(listener.communicate(timeout=20)[0]) for n, listener in listeners.items()}

    def close(self) -> None:
        for n, host in self.hosts.items():
            command("ovs-vsctl", "del-br", f"s{n}")
            host.kill()
            host.communicate()
        for line in command("ip", "-o", "link", "show", "type", "veth").splitlines():
            name = line.split(": ")[1].partition("@")[0]
            if name.startswith("s") and not name.endswith("-"):
                command("ip", "link", "del", name)


@pytest.fixture(scope="module")
def switch_daemons() -> Iterator[None]:
    daemons = openvswitch.start()
    yield
    daemons.stop()


@pytest.fixture
def ring(switch_daemons: None, controller: Controller) -> Iterator[Ring]:
    ring = Ring(controller.port)
    try:
        await_fabric(controller, STATIONS)
        yield ring
    finally:
        ring.close()


def await_fabric(controller: Controller, switches: int) -> None:
    def complete() -> bool:
        status = controller.ask("status")
        return bool(status["fabric_ready"]) and len(status["switches"]) == switches

    wait_for(f"{switches} settled switches", complete, 20.0)


@pytest.mark.deadline(120)
def test_hosts_reach_each_other_over_redundant_links_without_loops(ring: Ring, controller: Controller) -> None:
    node = ScriptedNode(controller, 9, "dan", "10.2.1.1").connect()
    assert len(controller.ask("status")["switches"]) == STATIONS, "a node is no switch"
    links = {s["datapath_id"]: len(s["links"]) for s in controller.ask("switches")["switches"]}
    assert sorted(links.values()) == [2, 3, 3, 4]
    for a, b in itertools.permutations(range(1, STATIONS + 1), 2):
        ring.ping(a, b)
    assert ring.copies(1) == {2: 10, 3: 10, 4: 10}
    assert node.changes == []
    node.disconnect()
    assert "answers with error" not in controller.log.read_text()


@pytest.mark.deadline(120)
def test_a_switch_and_the_controller_may_come_back(ring: Ring, controller: Controller) -> None:
    ring.ping(1, 3)
    ring.ping(2, 4)
    ring.disconnect_switch(1)
    wait_for("the loss of a switch", lambda: len(controller.ask("status")["switches"]) == STATIONS - 1)
    # Without a controller in its configuration, Open vSwitch empties the switch: nothing passes it from here on.
    wait_for_ping(ring, 2, 4)
    ring.connect_switch(1)
    await_fabric(controller, STATIONS)
    wait_for_ping(ring, 1, 3)
    wait_for_ping(ring, 4, 1)

    assert controller.stop() == 0
    ring.ping(1, 3)
    controller.start()
    ring.ping(2, 4)
    await_fabric(controller, STATIONS)
    for a, b in itertools.combinations(range(1, STATIONS + 1), 2):
        ring.ping(a, b)
    assert ring.copies(2) == {1: 10, 3: 10, 4: 10}
    for n in range(1, STATIONS + 1):
        flows = command("ovs-ofctl", "-O", "OpenFlow13", "dump-flows", f"s{n}", "table=0").split("\n")
        cookies = {line.split(",")[0] for line in flows if "cookie=" in line}
        assert len(cookies) == 1, "sources known to the former controller were learned anew"
    assert "answers with error" not in controller.log.read_text()


@pytest.mark.deadline(120)
def test_a_link_that_goes_down_is_gone_around(ring: Ring) -> None:
    ring.ping(1, 3)
    for name in ("s1-s3", "s1-s2"):
        command("ip", "link", "set", name, "down")
    for a, b in itertools.combinations(range(1, STATIONS + 1), 2):
        wait_for_ping(ring, a, b)
    assert ring.copies(1) == {2: 10, 3: 10, 4: 10}


def wait_for_ping(ring: Ring, a: int, b: int) -> None:
    """For changes that a switch tells, or its datapath follows, in its own time."""
    wait_for(f"a way from {a} to {b}", lambda: _pings(ring, a, b), 10.0)


def _pings(ring: Ring, a: int, b: int) -> bool:
    words = ["nsenter", "--target", str(ring.hosts[a].pid), "--net", "--", "ping", "-c", "1", "-W", "1", f"10.8.0.{b}"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0
