"""Runs the controllers: `python -m controllers.run`. Prints one line when ready; ends in order on Ctrl-C or SIGTERM.

With --app, Ryu apps of others run beside the service controller, on the same OpenFlow port; the switches are theirs
then, unless they handle nothing but events of controllers.api (docs/ryu-apps.md). Words after `--` are options of the
framework and of those apps, as ryu-manager takes them.

Exit status: 0 ended as asked, 1 could not start or did not end in time, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from typing import Any

from controllers import framework, others
from controllers.hand import HandError, HandServer
from controllers.policies import PolicyError
from controllers.relearn import GRACE_SECONDS
from controllers.service_controller import ServiceController
from serval_node.wire.naming import ServiceNameError

APPS = {"fabric": "controllers.switch_fabric", "service": "controllers.service_controller"}
SOCKET = "/run/testbed/controller.sock"
READY = "controller ready"
CLOSE_SECONDS = 3.0
EXPECTED = (framework.StartError, HandError, PolicyError, ServiceNameError)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m controllers.run",
        description="Switch fabric and service controller, or the service controller beside Ryu apps of others.",
        epilog="Words after -- are options of those apps and of the framework, as ryu-manager takes them: "
        "-- --observe-links",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=6653, help="OpenFlow port (%(default)s)")
    parser.add_argument("--socket", default=SOCKET, help="hand-control socket (%(default)s)")
    parser.add_argument(
        "--apps",
        help=f"which of ours, with commas ({','.join(APPS)}; service alone when an --app handles events of switches)",
    )
    parser.add_argument(
        "--app", action="append", default=[], metavar="APP", help="a Ryu app: module name or *.py file; repeatable"
    )
    parser.add_argument(
        "--show-nodes", action="store_true", help="let those apps see the Serval nodes, as datapaths without ports"
    )
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="LABEL=BLOCK",
        help="a declared provider and its 24-bit block (0x... or decimal); repeatable",
    )
    parser.add_argument("--policies", metavar="FILE", help="where to keep policies across restarts")
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="after a start, how long nodes named in found rules may take to report (%(default)s)",
    )
    parser.add_argument(
        "--echo-interval", type=float, default=1.0, metavar="SECONDS", help="keep-alive interval (%(default)s)"
    )
    parser.add_argument(
        "--echo-lost", type=int, default=5, metavar="N", help="unanswered keep-alives that mean death (%(default)s)"
    )
    parser.add_argument("--log", metavar="FILE", help="log there and not to standard error")
    words = list(sys.argv[1:] if arguments is None else arguments)
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    options.framework_arguments = words[at + 1 :]
    if options.apps is not None:
        options.apps = [name for name in options.apps.split(",") if name]
        if not options.apps or not set(options.apps) <= APPS.keys():
            parser.error(f"--apps: choose from {', '.join(APPS)}")
    ours = [name for name in options.app if name in APPS.values()]
    if ours:
        parser.error(f"--app {ours[0]}: this is one of ours, choose it with --apps")
    options.provider = dict(_provider(parser, text) for text in options.provider)
    return options


def _provider(parser: argparse.ArgumentParser, text: str) -> tuple[str, int]:
    label, _, block = text.partition("=")
    try:
        return label, int(block, 0)
    except ValueError:
        parser.error(f"--provider {text}: write LABEL=BLOCK, for example example=0x9c1185")


def serve(options: argparse.Namespace) -> int:
    """Run until a signal; returns the exit status."""
    ServiceController.providers = options.provider
    ServiceController.policy_file = options.policies
    ServiceController.grace = options.grace
    ServiceController.show_nodes = options.show_nodes
    found = others.load(options.app)
    chosen = options.apps or [name for name in APPS if name != "fabric" or others.leave_switches(found)]
    others.check_owners(found, fabric="fabric" in chosen)
    runner = framework.Runner(
        [APPS[name] for name in chosen],
        host=options.host,
        port=options.port,
        echo_interval=options.echo_interval,
        echo_lost=options.echo_lost,
        others=list(found),
        arguments=options.framework_arguments,
    )
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopping.append(received))
    apps = _start(runner, found)
    hand = HandServer(options.socket, [app for app in apps.values() if hasattr(app, "hand_operations")])
    hand.start()
    beside = f", beside {', '.join(cls.__name__ for cls in found.values())}" if found else ""
    where = f"OpenFlow on {options.host}:{options.port}, control on {options.socket}"
    print(f"{READY}: {framework.VERSION}, {where}{beside}", flush=True)
    while not stopping:
        # A signal handler may not wake a green thread by itself, in neither framework.
        framework.hub.sleep(0.1)
    hand.close()
    if not runner.close(CLOSE_SECONDS):
        print(f"controller: not closed within {CLOSE_SECONDS:g} s, given up", file=sys.stderr)
        return 1
    return 0


def _start(runner: framework.Runner, found: dict[str, type]) -> dict[str, Any]:
    """The apps by name; an error of an app of others becomes one line too."""
    try:
        return runner.start()
    except EXPECTED:
        raise
    except Exception as error:  # an app that somebody else wrote may raise anything; ours go on as they are
        if not found:
            raise
        logging.getLogger("controllers").exception("starting %s", ", ".join(found))
        raise framework.StartError(
            f"one of {', '.join(found)} does not start: {type(error).__name__}: {error}; the log has more"
        ) from None


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    logging.basicConfig(
        filename=options.log,
        level=logging.INFO,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
    )
    # The frameworks tell of every instantiation at INFO.
    for name in ("os_ken", "ryu", "OFPHandler"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return serve(options)
    except EXPECTED as error:
        print(f"controller: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    sys.stdout.flush()
    # Green threads of connections that are still open would keep the interpreter waiting.
    os._exit(status)
