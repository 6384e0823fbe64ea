"""Apps of users beside the service controller: the one of docs/ryu-apps.md, and what is said when one cannot run."""

from __future__ import annotations

import itertools
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from serval_node.control import messages
from serval_node.control.experimenter import node_datapath_id
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix
from testbed import frameworks
from testbed.errors import TestbedError
from testbed.network import ServalNetwork
from tests.emulation import stock_apps
from tests.emulation.controller_peers import ROOT, Controller, ScriptedNode, wait_for
from topologies.datacenter import Datacenter

NAMING = Naming({"example": 0x9C1185})
WEB = NAMING.bind_prefix("web.example")
NEWS = 200
"""An app's queue takes 128 events."""
PORTS = itertools.count(18653)

APP = """
from PACKAGE.base import app_manager
from PACKAGE.controller import ofp_event
from PACKAGE.controller.handler import MAIN_DISPATCHER, set_ev_cls

class NAME(app_manager.BASE):
    OFP_VERSIONS = [NUMBER]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        DOES

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def on_packet(self, ev):
        pass
"""


class ChosenController(Controller):
    """A controller on the framework that CONTROLLER names."""

    def command(self, *options: str) -> list[str]:
        return [frameworks.interpreter(frameworks.chosen()), *super().command(*options)[1:]]


@pytest.fixture(params=["osken", "ryu"])
def choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    obstacle = frameworks.ryu_obstacle() if request.param == "ryu" else None
    if obstacle is not None:
        pytest.skip(f"Python without Ryu: {obstacle}")
    monkeypatch.setenv("CONTROLLER", request.param)
    return request.param


@pytest.fixture
def controller(choice: str, tmp_path: Path) -> Iterator[Controller]:
    path = tmp_path / "closed.py"
    path.write_text(stock_apps.guide_app(choice))
    controller = ChosenController(tmp_path, next(PORTS), "--app", str(path))
    yield controller
    controller.stop()


def test_the_app_of_the_guide_reacts_to_a_registration_with_a_rule(controller: Controller) -> None:
    assert "beside Closed" in controller.start()
    ben = ScriptedNode(controller, 1, "ben", "10.1.0.2").connect()
    dan = ScriptedNode(controller, 2, "dan", "10.2.1.1").connect()
    eve = ScriptedNode(controller, 3, "eve", "10.2.1.2").connect()
    dan.bind(WEB, name="web.example")
    rule = wait_for("the app's rule at ben", lambda: ben.rules.get(WEB))
    assert [target.action for target in rule.targets] == ["drop"] and rule.origin == "hand"

    eve.bind(WEB, name="web.example")
    wait_for(
        "the second registration", lambda: "add web.example: ben has a hand-made rule" in controller.log.read_text()
    )
    dan.unbind(WEB)
    eve.disconnect()
    wait_for("the end of the rule with the last instance", lambda: WEB not in ben.rules)
    assert "Traceback" not in controller.log.read_text()
    assert controller.stop() == 0
    ben.disconnect()
    dan.disconnect()


def test_an_app_hears_of_nodes_services_and_delays_and_of_channels_if_it_asks(choice: str, tmp_path: Path) -> None:
    path = tmp_path / "listener.py"
    path.write_text(stock_apps.for_framework(choice, stock_apps.LISTENER))
    controller = ChosenController(tmp_path, next(PORTS), "--app", str(path))
    controller.start()

    def heard() -> list[str]:
        lines = controller.log.read_text().splitlines()
        return [line.partition("INFO ")[2] for line in lines if " Listener INFO " in line]

    def news() -> list[str]:
        return [line for line in heard() if line.startswith("Event")]

    try:
        dan = ScriptedNode(controller, 2, "dan", "10.2.1.1").connect()
        wait_for("the node", lambda: news() == ["EventNodeUp dan ('10.2.1.1',)"])
        dan.bind(WEB, name="web.example")
        wait_for("the service", lambda: news()[1:] == ["EventServiceRegistered dan web.example"])
        service = NAMING.service_id("web.example")
        dan._send(messages.DelayNotify(Prefix.of(service), NAMING.block("example")))
        wait_for("the delay", lambda: news()[2:] == ["EventServiceDelayed dan web.example"])
        dan.disconnect()
        wait_for("the end", lambda: len(news()) == 5)
        assert news()[3:] == ["EventServiceUnregistered dan web.example", "EventNodeDown dan ('10.2.1.1',)"]
        assert f"experimenter of {node_datapath_id(2):016x}" in heard()
    finally:
        assert controller.stop() == 0


def test_an_app_that_waits_for_an_answer_does_not_hold_up_the_controller(choice: str, tmp_path: Path) -> None:
    """Meanwhile there is more news for it than its queue takes."""
    path = tmp_path / "closed.py"
    path.write_text(stock_apps.guide_app(choice))
    controller = ChosenController(tmp_path, next(PORTS), "--app", str(path))
    controller.start()
    try:
        ben = ScriptedNode(controller, 1, "ben", "10.1.0.2").connect()
        dan = ScriptedNode(controller, 2, "dan", "10.2.1.1").connect()
        wait_for("both nodes", lambda: len(controller.ask("status")["nodes"]) == 2)
        ben.freeze()
        for number in range(NEWS):
            dan.bind(NAMING.bind_prefix(f"s{number}.example"), name=f"s{number}.example")
        wait_for("the directory", lambda: len(controller.ask("services")["services"]) == NEWS)
        assert "did not answer" not in controller.log.read_text(), "the app still waits for ben"
        ben.thaw()
        wait_for("the app's rules at ben", lambda: len(ben.rules) == NEWS)
        ben.disconnect()
        dan.disconnect()
    finally:
        controller.stop()


def test_ryus_rest_apps_have_their_web_server_and_see_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obstacle = frameworks.ryu_obstacle()
    if obstacle is not None:
        pytest.skip(f"Python without Ryu: {obstacle}")
    monkeypatch.setenv("CONTROLLER", "ryu")
    web = next(PORTS)
    options = ["--", "--observe-links", "--wsapi-host", "127.0.0.1", "--wsapi-port", str(web)]
    controller = ChosenController(tmp_path, next(PORTS), "--app", "ryu.app.rest_topology", *options)
    controller.start()
    try:
        node = ScriptedNode(controller, 1, "dan", "10.2.1.1").connect()
        wait_for("the node", lambda: controller.ask("status")["nodes"] == ["dan"])
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/v1.0/topology/switches", timeout=10) as answer:
            assert answer.read() == b"[]"
        node.disconnect()
    finally:
        assert controller.stop() == 0


def app(choice: str, name: str, version: int = 4, does: str = "pass") -> str:
    text = APP.replace("NAME", name).replace("NUMBER", str(version)).replace("DOES", does)
    return stock_apps.for_framework(choice, text)


@pytest.mark.parametrize(
    ("files", "options", "status", "said"),
    [
        ({}, ["--app", "nosuch.app"], 1, "there is no app 'nosuch.app'"),
        ({}, ["--app", "./nosuch.py"], 1, "no such file"),
        ({}, ["--app", "os_ken.app.simple_switch_13"], 1, "os-ken brings no sample apps (see docs/ryu-apps.md)"),
        ({}, ["--app", "ryu.app.simple_switch_13"], 1, "Ryu's own modules need CONTROLLER=ryu"),
        ({}, ["--app", "json"], 1, "json is no app: it has no class of its own made from os_ken.base.app_manager"),
        ({"a": "import nosuch.thing"}, ["--app", "a.py"], 1, "a.py needs the module 'nosuch'"),
        ({"a": "def f("}, ["--app", "a.py"], 1, "a.py cannot be imported: SyntaxError"),
        ({"apps/json": ""}, ["--app", "apps/json.py"], 1, "give the file another name"),
        ({"a": app("osken", "A", version=1)}, ["--app", "a.py"], 1, "a.py does not speak OpenFlow 1.3"),
        ({"a": app("osken", "A", does="1 / 0")}, ["--app", "a.py"], 1, "a does not start: ZeroDivisionError"),
        (
            {"a": app("osken", "A"), "b": app("osken", "A")},
            ["--app", "a.py", "--app", "b.py"],
            1,
            "a and b are both called A",
        ),
        (
            {"a": app("osken", "A")},
            ["--app", "a.py", "--apps", "fabric,service"],
            1,
            "the switch fabric and a would both rule the switches",
        ),
        ({}, ["--app", "controllers.switch_fabric"], 2, "choose it with --apps"),
        ({}, ["--app", "os_ken.topology.switches", "--", "--no-such-option"], 2, "--no-such-option"),
    ],
)  # fmt: skip
def test_an_app_that_cannot_run_is_refused_by_name(
    files: dict[str, str], options: list[str], status: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "apps").mkdir()
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = Controller(tmp_path, next(PORTS)).command(*options)
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=20, check=False, env=_with_path(str(ROOT))
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stderr
    assert status == 2 or (done.stderr.startswith("controller: ") and done.stderr.count("\n") == 1)


def _with_path(path: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": path, "CONTROLLER": "osken"}


def test_two_apps_that_take_packets_are_run_and_named_in_the_log(tmp_path: Path) -> None:
    words = []
    for name in ("A", "B"):
        path = tmp_path / f"app_{name.lower()}.py"
        path.write_text(app("osken", name))
        words += ["--app", str(path)]
    controller = Controller(tmp_path, next(PORTS), *words)
    assert "beside A, B" in controller.start()
    try:
        assert "app_a, app_b all take the switches' packets" in controller.log.read_text()
        assert controller.ctl("status").stdout.endswith("switches  0, ruled by other apps than the switch fabric\n")
    finally:
        assert controller.stop() == 0


SMALL = {"racks": 1, "hosts": 1, "delay": "0"}


def test_the_app_of_the_guide_beside_a_real_network_whose_fabric_it_keeps(tmp_path: Path) -> None:
    path = tmp_path / "guide_closed.py"
    path.write_text(stock_apps.guide_app("osken"))
    with ServalNetwork(Datacenter(**SMALL), logs=tmp_path, controller_options=["--app", str(path)]) as net:
        assert "This is" in net.run_in("ann", ["curl", "-s", "--max-time", "5", "http://web.example/"])
        wait_for("the app's rule at ben", lambda: net.targets(net.serval_host("ben"), "web.example") == set())
        with pytest.raises(TestbedError, match="curl"):
            net.run_in("ben", ["curl", "-s", "--max-time", "2", "http://web.example/"])


def test_switches_that_no_app_rules_are_noticed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "idle_app.py"
    path.write_text(app("osken", "Idle"))
    net = ServalNetwork(Datacenter(**SMALL), logs=tmp_path, controller_options=["--app", str(path)])
    with pytest.raises(TestbedError, match=r"no answer from its gateway .* left to the apps of --app.*\n.*--fabric"):
        net.start()
