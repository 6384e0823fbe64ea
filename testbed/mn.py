"""`testbed mn`, inside the sandbox: Mininet's own `mn`, with parts that work here and Serval hosts to choose.

The distribution's program itself is run, not a copy of it: its options, tests and prompt are mn's. It is loaded as a
module, so that its tables of switches, hosts, controllers and links can be extended; and what it does after an error,
killing by name whatever looks like Mininet, is left out: the sandbox goes as a whole.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

import mininet
import mininet.net
from mininet.log import debug, output

from testbed import failures, openvswitch, requirements, sandbox
from testbed.errors import TestbedError, report
from testbed.mn_network import MnControlNetwork, MnNetwork, wait_for_iperf
from testbed.mn_parts import CheckedLink, MnServalHost, SandboxBridge, SandboxSwitch, ServalController, ShapedLink
from testbed.mn_prompt import MnPrompt
from testbed.network import LOG_DIRECTORY
from testbed.words import did_you_mean

PROGRAM = Path("/usr/bin/mn")
INTERRUPTED = 128 + signal.SIGINT


def run(arguments: Sequence[str]) -> int:
    """Run mn with these arguments; returns the exit status: mn's, 1 also after an error or when a --test lost pings."""
    mn = _load()
    _extend(mn)
    sys.argv = ["mn", *arguments]
    return _Run(mn).go()


class _Run:
    def __init__(self, mn: ModuleType) -> None:
        self.mn = mn
        self.net: MnNetwork | None = None
        self.switch: openvswitch.OpenVSwitch | None = None
        mn.Mininet = self._build  # type: ignore[attr-defined]
        mn.MininetWithControlNet = self._build_with_control_network  # type: ignore[attr-defined]

    def go(self) -> int:
        runner = self.mn.MininetRunner.__new__(self.mn.MininetRunner)
        runner.options = runner.args = runner.validate = None
        status = 1
        try:
            status = self._parsed(runner) or self._begun(runner)
        except TestbedError as error:
            if self.net is not None and self.net.built:
                failures.tell("mn", error)
            else:
                report(error)
        except SystemExit as ended:
            status = _status(ended)
        except KeyboardInterrupt:
            output("\ninterrupted\n")
            status = INTERRUPTED
        except Exception as error:  # noqa: BLE001 - mn's own way: whatever a topology or a test raises is shown
            debug(traceback.format_exc())
            # Mininet's own are plain Exceptions.
            kind = "" if type(error) is Exception else f"{type(error).__name__}: "
            report(TestbedError(f"mn: {kind}{str(error).strip()}{_where(error)}", "-v debug shows all of it"))
        finally:
            # Whoever is impatient now would leave the rest to be killed.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self._clear()
        return status

    def _parsed(self, runner: Any) -> int:
        try:
            runner.parseArgs()
        except SystemExit:
            if not runner.args:
                raise  # --help, --version, or an unknown option
            # mn has printed its help, and would leave it at that.
            report(TestbedError(f"mn takes options only, not {runner.args[0]!r}"))
            return 2
        refuse(runner.options)
        check_choices(self.mn, runner.options)
        return 0

    def _begun(self, runner: Any) -> int:
        if not sandbox.inside():
            raise TestbedError("mn builds networks in a sandbox only", "use: testbed mn -- OPTIONS OF MN")
        _prepare_process()
        if runner.options.host.partition(",")[0] == "serval":
            requirements.check()
        else:
            requirements.missing_programs()
        runner.setup()
        self.switch = openvswitch.start(LOG_DIRECTORY)
        runner.begin()
        net, self.net = self.net, None  # mn has stopped it
        lost = 0.0 if net is None or not runner.options.test else net.lost
        if lost:
            report(TestbedError(f"the test lost pings: {lost:.0f} % in the worst round"))
        return 1 if lost else 0

    def _build(self, **params: Any) -> MnNetwork:
        return self._built(MnNetwork(build=False, **params))

    def _build_with_control_network(self, **params: Any) -> MnNetwork:
        return self._built(MnControlNetwork(build=False, **params))

    def _built(self, net: MnNetwork) -> MnNetwork:
        self.net = net  # before it is built: what fails half way is cleared too
        net.build()
        return net

    def _clear(self) -> None:
        if self.net is not None:
            self.net.abandon()
        if self.switch is not None:
            self.switch.stop()


def refuse(options: Any) -> None:
    """Raises TestbedError for an option of mn (parsed) that cannot work in a sandbox, or must not."""
    if options.clean:
        raise TestbedError(
            "mn --clean ends processes by name, whoever's they are",
            "there is nothing to clean up: what a run makes goes with its sandbox",
        )
    if options.ensure_value("nat", False):
        raise TestbedError("--nat needs a way out, and a sandbox has no link to the outside", "leave it out")
    if options.cluster:
        raise TestbedError("--cluster needs other machines, and a sandbox has no link to the outside", "leave it out")
    if options.xterms:
        _refuse_xterms(os.environ.get("DISPLAY", ""))


def check_choices(mn: Any, options: Any) -> None:
    """Raises TestbedError, with the names to choose from, for one that none of mn's tables has.

    A file given with --custom has been read by now. Of topologies, hosts and so on mn itself would show no list, or a
    Python object.
    """
    tables = {"switch": mn.SWITCHES, "host": mn.HOSTS, "controller": mn.CONTROLLERS, "link": mn.LINKS, "topo": mn.TOPOS}
    for option, table in tables.items():
        given = getattr(options, option)
        for text in [given] if isinstance(given, str) else given or ():
            name = text.partition(",")[0]
            if name not in table:
                known = sorted(word for word in table if isinstance(word, str))
                near = did_you_mean(name, known)
                raise TestbedError(f"mn --{option}: there is no {name!r}{near}", f"there are: {', '.join(known)}")


def _refuse_xterms(display: str) -> None:
    instead = "use the prompt, or a second shell: testbed attach"
    if not display:
        raise TestbedError("--xterms needs a display, and DISPLAY is not set", instead)
    if display.partition(":")[0] not in ("", "unix"):
        raise TestbedError(f"--xterms cannot reach the display {display} over the network from a sandbox", instead)
    if shutil.which("xterm") is None:
        raise TestbedError("--xterms needs the program xterm, which is missing", "install it, or " + instead)


def _load() -> ModuleType:
    """The distribution's mn as a module, not begun; raises TestbedError. No bytecode is written beside it."""
    try:
        source = PROGRAM.read_text()
    except OSError:
        raise TestbedError(f"Mininet's {PROGRAM} is missing", "install what is missing: make setup") from None
    module = ModuleType("mininet_mn")
    module.__file__ = str(PROGRAM)
    exec(compile(source, str(PROGRAM), "exec"), module.__dict__)
    return module


def _extend(mn: Any) -> None:
    """Adds to mn's tables what works in a sandbox; a file given with --custom may still change them."""
    mn.SWITCHES.update(default=SandboxSwitch, ovs=SandboxSwitch, ovsk=SandboxSwitch, ovsbr=SandboxBridge)
    mn.HOSTS.update(serval=MnServalHost)
    mn.CONTROLLERS.update(serval=ServalController, default=ServalController)
    mn.LINKS.update(tc=ShapedLink, tcu=CheckedLink)
    mn.findController = lambda: ServalController
    mn.CLI = MnPrompt
    mininet.net.waitListening = wait_for_iperf


def _prepare_process() -> None:
    """Signals that end the run, and programs of this Python's environment on PATH."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _status(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    print(ended.code, file=sys.stderr)
    return 1


def _where(error: Exception) -> str:
    """The place in the user's own file (a topology) where it happened, as words; empty when it was in Mininet."""
    others = (Path(mininet.__file__).parent, Path(sysconfig.get_path("stdlib")), sandbox.ROOT / "testbed", PROGRAM)
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(Path(frame.filename).is_relative_to(other) for other in others)
    ]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
