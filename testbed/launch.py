"""`testbed run NAME`, inside the sandbox: builds the network, then a prompt at a terminal or a tour without one."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from types import FrameType
from typing import NoReturn

import topologies
from testbed import calibration, failures, openvswitch, requirements, symptoms, topology_options
from testbed.adhoc_tour import AdHocTour
from testbed.calibration import Calibration
from testbed.capture import SNAP_BYTES, Capture
from testbed.controller_process import RUN_DIRECTORY
from testbed.errors import TestbedError, report
from testbed.failures import RESULTS, keep_logs
from testbed.isolation import in_user_namespace
from testbed.link.emulated import netem_available
from testbed.link.planned import check_links
from testbed.moving_tours import TOURS
from testbed.network import LOG_DIRECTORY, ServalNetwork
from testbed.ownership import make_directory
from testbed.prompt import Prompt
from testbed.tour import Tour
from topologies import TopologyError
from topologies.declarations import Declared

__all__ = ["keep_logs", "run"]

INTERRUPTED = 128 + signal.SIGINT


class Ended(Exception):
    """A signal asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run(topology: str, arguments: Sequence[str]) -> int:
    """Run a topology by name with its command-line options; returns the exit status."""
    try:
        kind = topologies.find(topology)
        options = _parser(topology, kind).parse_args(topology_options.joined(arguments, kind))
        topo = kind(**topology_options.parameters(kind, options))
        check_links(topo)
        apps = getattr(options, "app", [])  # a network without a controller has no such option
        _check_apps(apps)
    except (TopologyError, ValueError) as error:
        report(TestbedError(f"{topology}: {error}"))
        return 2
    except TestbedError as error:
        report(TestbedError(f"{topology}: {error.message}", error.hint))
        return 2
    _prepare_process()
    net = ServalNetwork(
        topo, say=say, seed=options.seed, controller_options=_apps(apps, fabric=getattr(options, "fabric", False))
    )
    status, why = 1, ""
    try:
        status = _Run(topology, net, options).go()
    except (TestbedError, OSError, MemoryError) as error:
        failures.tell(topology, error)
    except TopologyError as error:
        report(TestbedError(str(error)))
    except KeyboardInterrupt:
        status, why = INTERRUPTED, "\ninterrupted; "
    except Ended as ended:
        status, why = 128 + ended.number, f"\nended by {ended}; "
    finally:
        # Whoever is impatient now would leave the rest to be killed.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        begun = time.monotonic()
        if not net.stop():
            status = status or 1
        _say_last(f"{why}stopped in order in {time.monotonic() - begun:.1f} s")
    return status


def _check_apps(names: Sequence[str]) -> None:
    """Raises TestbedError for a Ryu app whose file cannot be read, or is no Python, before anything is started."""
    for name in names:
        if not name.endswith(".py"):
            continue  # a module: which there are, only the controller's Python knows
        try:
            compile(Path(name).read_bytes(), name, "exec", dont_inherit=True)
        except OSError as error:
            hint = "--app takes a Python file, or the name of a module"
            raise TestbedError(f"--app {name}: {error.strerror}", hint) from None
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise TestbedError(f"--app {name} is no Python: {getattr(error, 'msg', error)}{line}") from None


def say(line: str) -> None:
    """A line for the user, at once."""
    print(line, flush=True)


def _say_last(line: str) -> None:
    try:
        say(line)
    except OSError:
        pass  # the terminal was closed, which is why the run ends, or the disk under the output is full


def say_warning(line: str) -> None:
    """A line about something that happened meanwhile, perhaps while the user types."""
    say(f"\n*** {line}")


@dataclass
class _Run:
    """One run from the first step to the end of the prompt or the tour."""

    topology: str
    net: ServalNetwork
    options: argparse.Namespace

    def go(self) -> int:
        say(f"{self.topology}: {self.net.topo.summary}")
        captures = None if self.options.capture is None else self._capture_directory()
        self._check_machine()
        self.net.start()
        for warning in self.net.warnings:
            say(f"  warning: {warning}")
        measured = None if self.options.no_calibration else self._calibrate()
        if captures is not None:
            self._capture(captures)
        self.net.start_services()
        for line in banner(self.net, measured):
            say(line)
        if sys.stdin.isatty() and not self.options.tour:
            Prompt(self.net)
            return 0
        if self.topology in TOURS:
            return TOURS[self.topology](self.net, say).run()
        if not self.net.has_controller:
            return AdHocTour(self.net, say).run()
        rate = calibration.payload_rate(calibration.asked([link.shape for link in self.net.links]))
        return Tour(self.net, say, rate_asked=rate).run()

    def _calibrate(self) -> Calibration:
        begun = time.monotonic()
        first = self.net.serval_hosts[0].name
        last = self.net.topo.services[0].hosts[0]
        try:
            (measured,) = calibration.calibrate(self.net, [(first, last)])
        except TestbedError as error:
            hint = "is the loss too high? --no-calibration builds the network without measuring it"
            raise TestbedError(f"cannot measure the way from {first} to {last}: {error.message}", hint) from None
        say(f"  rate, delay and loss measured: {time.monotonic() - begun:.1f} s")
        return measured

    def _check_machine(self) -> None:
        """Raises TestbedError that names what this machine lacks."""
        topo, asked = self.net.topo, self.options
        wanted = [] if asked.no_calibration else [requirements.MEASURING]
        wanted += [requirements.CAPTURING] if asked.capture is not None and not in_user_namespace() else []
        wanted += [] if sys.stdin.isatty() and not asked.tour else [requirements.TOUR]
        requirements.check(
            programs=wanted,
            services=[service.command for service in topo.services],
            members=len(topo.nodes()) + len(topo.links()),
        )

    def _capture_directory(self) -> Path:
        """Makes it before anything is started; raises TestbedError when nothing can be written there."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        asked = self.options.capture
        chosen = (Path(asked) if asked else RESULTS / f"{self.topology}-{stamp}" / "capture").absolute()
        made = [path for path in (chosen, *chosen.parents) if not path.exists()]
        # What is registered first is undone last: an interrupted start leaves no directory without captures.
        self.net.undo_at_stop("the captures' directory", partial(_remove_empty, made))
        try:
            make_directory(chosen)
            requirements.check_writable(chosen)
            if symptoms.room(chosen) < symptoms.FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            message = f"cannot write captures to {chosen}: {error.strerror}"
            raise TestbedError(message, "make that possible, or name another directory: --capture DIR") from None
        return chosen

    def _capture(self, directory: Path) -> None:
        capture = Capture(self.net.hosts, directory, snap=self.options.snap, told=say_warning)
        say(f"  capturing on {len(capture.interfaces)} interfaces")

        def finish() -> None:
            merged = capture.stop()
            lost = f"; the kernel dropped {capture.dropped()} frames" if capture.dropped() else ""
            say(f"capture: one file per interface beside {merged}{lost}")
            say(f"  look at it with Wireshark, or: {Path(sys.executable)} -m serval_node.capture {merged}")

        self.net.undo_at_stop("the capture", finish)


def _remove_empty(directories: Sequence[Path]) -> None:
    """Remove these, the innermost first, up to one that is not empty."""
    for directory in directories:
        try:
            directory.rmdir()
        except OSError:  # it has captures in it, or was never made
            return


def banner(net: ServalNetwork, measured: Calibration | None) -> list[str]:
    """What was built, by which means, how well it does what was asked, and what to type next."""
    topo = net.topo
    clients = [host for host in net.serval_hosts if not _serves(topo, host.name) and host not in net.routers]
    # Mininet's order is that of names; a person's is that of addresses, as in the topology's file.
    clients.sort(key=lambda host: IPv4Address(host.addresses()[0]))
    plain = [host.name for host in net.hosts if host not in net.serval_hosts]
    lines = [
        "",
        f"network built in {net.start_seconds:.1f} s: {len(net.serval_hosts)} Serval nodes, {len(net.links)} links",
        f"  clients          {_named(clients)}",
        f"  other nodes      {', '.join(plain) or 'none'} (no Serval)",
        f"  service router   {_named(net.routers)}{' for *.' + ', *.'.join(topo.providers) if net.routers else ''}",
        *(f"  {service.name:16} on {', '.join(service.hosts)}" for service in topo.services),
        f"  switches         {_switches(net)}",
        f"  delay and loss   {_impairments(net)}",
        f"  controller       {_controller(net)}",
    ]
    if measured is not None:
        first, *more = measured.lines()
        way = f"{measured.source} - {measured.target}"
        lines += [f"  {way:16} {first}", *(f"  {'':16} {line}" for line in more), *_warnings(measured)]
    lines += [f"  logs             {LOG_DIRECTORY} and {RUN_DIRECTORY}/hosts/NAME, inside the sandbox (testbed attach)"]
    client, service = clients[0].name if clients else net.serval_hosts[0].name, topo.services[0].name
    lines += ["try:", f"  {client} curl http://{service}/"]
    lines += [f"  {client} serval trace {service}", "  tables", "(help lists more)"]
    return lines


def _switches(net: ServalNetwork) -> str:
    """What joins links: OpenFlow switches, Linux bridges, or nothing."""
    bridges = [switch.name for switch in net.switches if switch not in net.fabric]
    parts = [f"{', '.join(bridges)}; Linux bridges, in the kernel"] if bridges else []
    if net.fabric:
        datapath = openvswitch.datapath_type()
        how = "OpenFlow 1.3" if net.has_controller else "learning by themselves"
        where = "kernel" if datapath.name == "system" else "user space"
        names = ", ".join(switch.name for switch in net.fabric)
        parts.insert(0, f"{names}; {how}, Open vSwitch's datapath in {where} ({datapath.reason})")
    return "; ".join(parts) or "none"


def _controller(net: ServalNetwork) -> str:
    if not net.has_controller:
        return "none: services are found by broadcast (NAME serval adhoc), or by a service router (NAME serval router)"
    return (
        f"{net.controller_framework}; in the sandbox, out of band: no host has an interface for it, and it uses no link"
    )


def _warnings(measured: Calibration) -> list[str]:
    return [] if measured.good else ["  WARNING: this is less than was asked; the machine may be busy"]


def _serves(topo: Declared, name: str) -> bool:
    return any(name in service.hosts for service in topo.services)


def _named(members: Sequence[object]) -> str:
    return ", ".join(" ".join([member.name, *member.addresses()]) for member in members) or "none"  # type: ignore[attr-defined]


def _impairments(net: ServalNetwork) -> str:
    impaired = [link for link in net.links if link.mechanism is not None]
    if not impaired:
        return "none asked"
    netem = "this kernel has netem" if netem_available() else "this kernel has no netem"
    return "; ".join(f"{link.name} {link.described} by {link.mechanism}" for link in impaired) + f" ({netem})"


def _apps(names: Sequence[str], *, fabric: bool = False) -> list[str]:
    """The controller's options for these apps; it runs in another directory."""
    words = [word for name in names for word in ("--app", str(Path(name).resolve()) if name.endswith(".py") else name)]
    return [*words, "--apps", "fabric,service"] if fabric else words


def _parser(topology: str, kind: type[Declared]) -> argparse.ArgumentParser:
    parser = topology_options.parser(f"testbed run {topology}", kind)
    parser.add_argument(
        "--capture",
        nargs="?",
        const="",
        metavar="DIR",
        help="write a pcap per interface and a merged one (default: below results/)",
    )
    parser.add_argument(
        "--snap",
        type=_snap,
        default=SNAP_BYTES,
        metavar="BYTES",
        help="bytes kept of each captured frame, 0 for all (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="where random loss begins: the same number, the same losses (default: another each time)",
    )
    if kind.has_controller:
        _add_apps(parser)
    parser.add_argument("--tour", action="store_true", help="show the tour at a terminal too, and no prompt")
    parser.add_argument("--no-calibration", action="store_true", help="do not measure rate, delay and loss first")
    return parser


def _add_apps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--app",
        action="append",
        default=[],
        metavar="APP",
        help="a Ryu app, file or module; it rules the switches in place of the switch fabric, unless all events that it"
        " handles are those of controllers.api; repeatable",
    )
    parser.add_argument("--fabric", action="store_true", help="with --app: the switch fabric rules the switches anyway")


def _snap(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes from 0 on")
    return int(text)


def _prepare_process() -> None:
    """Signals that end the run, and programs of this Python's environment on PATH."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise Ended(number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
