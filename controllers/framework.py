"""The one module that imports os-ken or Ryu; apps take everything of the framework from here.

The environment variable CONTROLLER chooses: "osken" (the default, Ryu's maintained continuation) or "ryu". Both run on
eventlet here, os-ken too: its own hub of plain threads cannot end the sending thread of a connection that is gone, so
that the loss of a datapath would be noticed late or never.

Importing this module makes the process a green one (its sockets and sleeps are eventlet's from then on). Only the
runner's process does that; the logic beside the apps does without and is tested without.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

from serval_node.control.experimenter import is_serval_datapath

CHOICE = os.environ.get("CONTROLLER", "osken")

if CHOICE not in ("osken", "ryu"):
    raise SystemExit(f"CONTROLLER={CHOICE}: choose osken or ryu")

# eventlet imports pyOpenSSL when there is one. The distribution's, which the virtual environment can see, fails in its
# middle with the environment's newer cryptography; None in its place says "not installed", and nothing here needs it.
sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]

with warnings.catch_warnings():
    # eventlet says at every import that it is in maintenance; the version is pinned and the choice explained above.
    warnings.simplefilter("ignore")
    if CHOICE == "osken":
        os.environ["OSKEN_HUB_TYPE"] = "eventlet"
        from os_ken import cfg
        from os_ken.base import app_manager
        from os_ken.controller import event, ofp_event
        from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, register_service, set_ev_cls
        from os_ken.lib import hub
        from os_ken.ofproto import ofproto_v1_3

        NAME, DISTRIBUTION = "os-ken", "os-ken"
        App: Any = app_manager.OSKenApp
        OFP_HANDLER = "os_ken.controller.ofp_handler"
    else:
        import eventlet.wsgi

        if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
            # Ryu 4.34 imports this name, which newer eventlet keeps elsewhere; only web sockets would use it.
            eventlet.wsgi.ALREADY_HANDLED = object()
        from ryu import cfg
        from ryu.app import wsgi
        from ryu.base import app_manager
        from ryu.controller import event, ofp_event
        from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, register_service, set_ev_cls
        from ryu.lib import hub
        from ryu.ofproto import ofproto_v1_3

        NAME, DISTRIBUTION = "Ryu", "ryu"
        App = app_manager.RyuApp
        OFP_HANDLER = "ryu.controller.ofp_handler"
    # As ryu-manager does: everything but threads. (Without the argument it would be threads and nothing else.)
    hub.patch(thread=False)

VERSION = f"{NAME} {metadata.version(DISTRIBUTION)}"
EventBase: Any = event.EventBase
MAIN = MAIN_DISPATCHER
DEAD = DEAD_DISPATCHER
OPENFLOW_13 = ofproto_v1_3.OFP_VERSION

__all__ = [
    "CHOICE",
    "DEAD",
    "MAIN",
    "OPENFLOW_13",
    "VERSION",
    "App",
    "EventBase",
    "Runner",
    "StartError",
    "hub",
    "is_about_node",
    "ofp_event",
    "register_service",
    "running_apps",
    "set_ev_cls",
]

STARTUP_SECONDS = 10.0
OTHERS_CLOSE_SECONDS = 1.0
"""How long apps of others may take to end; topology discovery, for one, sleeps for up to 5 s."""

LOG = logging.getLogger("controllers")


def running_apps() -> dict[str, Any]:
    """The apps of this process by name."""
    return dict(app_manager.SERVICE_BRICKS)


class StartError(Exception):
    """The controller cannot start; one line."""


class Runner:
    """Loads and runs apps, which Ryu's `ryu-manager` does and os-ken no longer brings a program for.

    apps           module names
    others         module names of apps that are not ours, imported already
    arguments      the frameworks' own options, and those that apps of others registered, as words of a command line
    echo_interval  seconds between echo requests to every datapath
    echo_lost      unanswered ones after which a datapath counts as dead
    """

    def __init__(
        self,
        apps: Iterable[str],
        *,
        host: str,
        port: int,
        echo_interval: float,
        echo_lost: int,
        others: Iterable[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        self._ours = [OFP_HANDLER, *apps]
        # An app of others may itself have started one of ours (as a context), which is then not started twice.
        self._apps = [OFP_HANDLER, *others, *apps]
        self._address = (host, port)
        self._arguments = list(arguments)
        self._settings = {
            "ofp_listen_host": host,
            "ofp_tcp_listen_port": port,
            "echo_request_interval": echo_interval,
            "maximum_unreplied_echo_requests": echo_lost,
        }
        self._manager: Any = None

    def start(self) -> dict[str, Any]:
        """Returns the app instances by name once the OpenFlow port is open; raises StartError."""
        self._check_port()
        self._manager = app_manager.AppManager.get_instance()
        self._manager.load_apps(self._apps)
        # All modules are imported now, those that apps need too: with that they have registered their options.
        cfg.CONF(args=self._arguments, project="controllers", prog="controllers.run --", default_config_files=[])
        for name, value in self._settings.items():
            cfg.CONF.set_override(name, value)
        contexts = self._manager.create_contexts()
        self._manager.instantiate_apps(**contexts)
        if CHOICE == "ryu" and (web := wsgi.start_service(self._manager)):
            # As ryu-manager does, for apps with a REST interface; os-ken has none.
            hub.spawn(web)
        self._await_port()
        return dict(self._manager.applications)

    def _check_port(self) -> None:
        # The framework would open it in a green thread, where a failure is only logged; and with SO_REUSEPORT, so that
        # two controllers would share the port and each get half of the nodes.
        try:
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(self._address)
                trial.listen()
        except OSError as error:
            host, port = self._address
            raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None

    def _await_port(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while True:
            try:
                hub.connect(self._address).close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise StartError(f"{self._address[0]}:{self._address[1]} does not open: {error}") from None
                hub.sleep(0.02)

    def close(self, limit: float) -> bool:
        """Close all apps; False when ours took more than `limit` seconds and were given up."""
        if self._manager is None:
            return True
        apps = self._manager.applications
        ours = [name for name, app in apps.items() if type(app).__module__ in self._ours]
        # They may be in the middle of a request to ours.
        others = [name for name in apps if name not in ours]
        if not self._end(others, OTHERS_CLOSE_SECONDS):
            LOG.info("%s not ended within %g s: to end with the process", ", ".join(others), OTHERS_CLOSE_SECONDS)
        return self._end(ours, limit)

    def _end(self, names: Iterable[str], limit: float) -> bool:
        threads = [hub.spawn(self._manager.uninstantiate, name) for name in names]
        deadline = time.monotonic() + limit
        while not all(getattr(thread, "dead", False) for thread in threads):
            if time.monotonic() > deadline:
                return False
            hub.sleep(0.02)
        return True


def is_about_node(event: Any) -> bool:
    """Whether an OpenFlow event comes from a Serval node, as far as its datapath is known yet."""
    message = getattr(event, "msg", None)
    datapath_id = getattr(getattr(event if message is None else message, "datapath", None), "id", None)
    if datapath_id is None:
        # Of the features reply the datapath itself learns only after the apps have been told.
        datapath_id = getattr(message, "datapath_id", None)
    return datapath_id is not None and is_serval_datapath(datapath_id)
