"""Ryu's stock apps for tests, and an app that tells what they and it have seen."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest

from testbed import frameworks

PACKAGES = {"osken": ("os_ken", "OSKenApp"), "ryu": ("ryu", "RyuApp")}

OBSERVER = """
from PACKAGE.base import app_manager
from PACKAGE.controller import ofp_event
from PACKAGE.controller.handler import MAIN_DISPATCHER, set_ev_cls
from PACKAGE.topology import api, event

from controllers.hand import EventHandRequest


class Observer(app_manager.BASE):
    hand_operations = frozenset({"observed", "poke"})

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = {}
        self.datapaths = {}
        self.answers = {}

    def count(self, ev):
        name = type(ev).__name__
        self.counts[name] = self.counts.get(name, 0) + 1

    @set_ev_cls(event.EventSwitchEnter)
    def on_enter(self, ev):
        self.count(ev)
        self.datapaths[ev.switch.dp.id] = ev.switch.dp

    @set_ev_cls([event.EventSwitchLeave, event.EventSwitchReconnected, event.EventLinkDelete])
    def on_topology(self, ev):
        self.count(ev)

    @set_ev_cls(ofp_event.EventOFPExperimenter, MAIN_DISPATCHER)
    def on_experimenter(self, ev):
        self.count(ev)

    @set_ev_cls(
        [
            ofp_event.EventOFPErrorMsg,
            ofp_event.EventOFPBarrierReply,
            ofp_event.EventOFPFlowStatsReply,
            ofp_event.EventOFPPortDescStatsReply,
        ],
        MAIN_DISPATCHER,
    )
    def on_answer(self, ev):
        what = type(ev).__name__[len("EventOFP"):]
        if what == "ErrorMsg":
            what = "%d/%d" % (ev.msg.type, ev.msg.code)
        self.answers.setdefault("%016x" % ev.msg.datapath.id, []).append(what)

    @set_ev_cls(EventHandRequest)
    def on_request(self, ev):
        getattr(self, ev.request["op"])(ev)

    def poke(self, ev):
        '''What stock apps send to switches, to one datapath.'''
        dp = self.datapaths[int(ev.request["datapath_id"], 16)]
        ofp, parser = dp.ofproto, dp.ofproto_parser
        flood = [parser.OFPActionOutput(ofp.OFPP_FLOOD)]
        for message in (
            parser.OFPPacketOut(dp, ofp.OFP_NO_BUFFER, ofp.OFPP_CONTROLLER, flood, b"0" * 60),
            parser.OFPFlowMod(dp, match=parser.OFPMatch(), instructions=[]),
            parser.OFPFlowStatsRequest(dp),
            parser.OFPPortDescStatsRequest(dp, 0),
            parser.OFPBarrierRequest(dp),
        ):
            dp.send_msg(message)
        ev.answer({"ok": True})

    def observed(self, ev):
        learned = app_manager.lookup_service_brick("SimpleSwitch13").mac_to_port
        ev.answer(
            {
                "ok": True,
                "switches": {"%016x" % s.dp.id: len(s.ports) for s in api.get_switch(self)},
                "links": [[l.src.dpid, l.src.port_no, l.dst.dpid, l.dst.port_no] for l in api.get_link(self)],
                "learned": {"%016x" % dpid: ports for dpid, ports in learned.items()},
                "counts": self.counts,
                "answers": self.answers,
            }
        )
"""


def for_framework(choice: str, text: str) -> str:
    """An app's source, written with PACKAGE and BASE, for "osken" or "ryu"."""
    package, base = PACKAGES[choice]
    return text.replace("PACKAGE", package).replace("BASE", base)


def ryu_file(module: str) -> Path:
    """The source of one of Ryu's own modules, in Ryu's environment; skips where that cannot be made."""
    obstacle = frameworks.ryu_obstacle()
    if obstacle is not None:
        pytest.skip(f"Python without Ryu: {obstacle}")
    scheme = {"base": str(frameworks.RYU_PYTHON.parents[1]), "platbase": str(frameworks.RYU_PYTHON.parents[1])}
    path = Path(sysconfig.get_path("purelib", "venv", scheme), *module.split(".")).with_suffix(".py")
    assert path.exists(), f"{path}: make it with scripts/setup-ryu"
    return path


def os_ken_import_lines(source: str) -> str:
    """A Ryu app as one writes it for os-ken, which keeps all names but these two; what docs/ryu-apps.md says."""
    return re.sub(r"\bryu(?=[. ])", "os_ken", source).replace("RyuApp", "OSKenApp")


def simple_switch(choice: str, directory: Path) -> str:
    """What --app takes for the stock learning switch: Ryu's module, or under os-ken, which has none, a file of it."""
    if choice == "ryu":
        return "ryu.app.simple_switch_13"
    path = directory / "simple_switch_13.py"
    path.write_text(os_ken_import_lines(ryu_file("ryu.app.simple_switch_13").read_text()))
    return str(path)


def beside(choice: str, directory: Path) -> list[str]:
    """Options of controllers.run for the stock apps with link discovery, and the observer."""
    observer = directory / "observer.py"
    observer.write_text(for_framework(choice, OBSERVER))
    modules = [simple_switch(choice, directory), f"{PACKAGES[choice][0]}.topology.switches", str(observer)]
    return [word for module in modules for word in ("--app", module)]


def guide_app(choice: str) -> str:
    """The app of docs/ryu-apps.md, with the import lines of the framework."""
    text = (frameworks.RYU_PYTHON.parents[2] / "docs" / "ryu-apps.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (source,) = (block for block in blocks if "class Closed" in block)
    if choice == "ryu":
        source = source.replace("os_ken", "ryu").replace("OSKenApp", "RyuApp")
    return source


LISTENER = """
from controllers import api
from PACKAGE.base import app_manager
from PACKAGE.controller import ofp_event
from PACKAGE.controller.handler import MAIN_DISPATCHER, set_ev_cls


class Listener(app_manager.BASE):
    serval_nodes = True

    @set_ev_cls(api.EVENTS)
    def on_news(self, ev):
        self.logger.info("%s %s %s", type(ev).__name__, ev.node, getattr(ev, "service", ev.__dict__.get("addresses")))

    @set_ev_cls(ofp_event.EventOFPExperimenter, MAIN_DISPATCHER)
    def on_experimenter(self, ev):
        self.logger.info("experimenter of %016x", ev.msg.datapath.id)
"""
"""Logs all events of controllers.api, and those of the nodes' channels that it asks for."""
