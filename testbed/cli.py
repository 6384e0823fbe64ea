"""The command `testbed`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed import attach, interrupts, sandbox, symptoms
from testbed.errors import TestbedError, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["mn"] and words[1:2] not in ([], ["--"], ["-h"], ["--help"]):
            words.insert(1, "--")  # it has no options of its own
        # argparse would take the dashes and then the command's first word for a sandbox's name.
        dashes = "--" in words and words[0] in ("exec", "attach", "mn", "launch-mn")
        at = words.index("--") if dashes else len(words)
        options = _parser().parse_args(words[:at])
        options.after_dashes = words[at + 1 :]
        return options.action(options)
    except TestbedError as error:
        report(error)
        return 1
    except (OSError, MemoryError) as error:
        report(symptoms.explained(error))
        return 1
    except KeyboardInterrupt:  # before there is anything to clean up
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed", description="Runs emulated networks, each in its own sandbox.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="build a topology, then a prompt (without a terminal: a short tour)")
    command.add_argument("topology", metavar="TOPOLOGY", help="its name, for example datacenter")
    command.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="OPTIONS", help="the topology's own; --help shows them"
    )
    command.set_defaults(action=_run)

    command = commands.add_parser(
        "topologies",
        help="list the topologies with a picture each, or show one of them",
        description="List the topologies, or show one as its options make it: picture, nodes, links, services.",
    )
    command.add_argument("topology", nargs="?", metavar="NAME", help="show this one (default: list all)")
    command.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="OPTIONS", help="--svg FILE draws it; and the topology's own"
    )
    command.set_defaults(action=_topologies)

    command = commands.add_parser(
        "mn",
        help="run Mininet's own mn, with Serval hosts by --host serval",
        description="Run Mininet's own mn in a new sandbox. Its switches are those of a private Open vSwitch, its"
        " default controller is the testbed's, and --host serval puts a Serval node in each host."
        " `testbed mn -- --help` lists mn's options; --nat, --cluster and --clean do not work here.",
    )
    command.add_argument("options", nargs=argparse.REMAINDER, metavar="-- OPTIONS", help="mn's own")
    command.set_defaults(action=_mn)

    command = commands.add_parser("exec", help="run a command in a new sandbox")
    command.add_argument("--name", help="what `testbed list` shows (default: the command's name)")
    command.add_argument("--private-tmp", action="store_true", help="give it an empty /tmp that goes with the sandbox")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="default: a shell")
    command.set_defaults(action=_exec)

    command = commands.add_parser(
        "attach", help="run a command (default: a shell) in a sandbox that is running, or in a host of its network"
    )
    command.add_argument("--host", metavar="NAME", help="in this host: its interfaces, its Serval node, its files")
    command.add_argument("sandbox", nargs="?", metavar="SANDBOX", help="name or process id (default: the only one)")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="default: a shell")
    command.set_defaults(action=_attach)

    command = commands.add_parser(
        "list", help="list the sandboxes that are running, with when and where they were started"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(action=_list)

    command = commands.add_parser(
        "check",
        help="what this machine offers, with what to do where something is missing",
        description="Look at system, programs, packages and kernel, and really start two Serval hosts in a sandbox."
        " Each line is ok, substitute (something else does it), absent (only what asks for it does without) or"
        " MISSING. The exit status is 0 when the testbed runs here.",
    )
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(action=_check)

    command = commands.add_parser(
        "experiments",
        help="list the experiments, with what each takes and where it comes from",
        description="List the experiments. Each is run by `make experiment-NAME`, all of them by `make experiments`.",
    )
    command.set_defaults(action=_experiments)

    runs = "directories of runs, or result files (default: the newest run of each experiment below results/)"
    command = commands.add_parser(
        "report",
        help="summary and HTML page of experiments, from their results",
        description="Print the summary of each run and write report.html into its directory: one file, with nothing"
        " outside it. Of several runs also an index.html above them. All of it is made from result.json alone.",
    )
    command.add_argument("runs", nargs="*", type=Path, metavar="RUN", help=runs)
    command.set_defaults(action=_report)

    command = commands.add_parser(
        "plots",
        help="draw the pictures of experiments, from their results",
        description="Draw the pictures of each run into the directory plots beside its result.json, from that alone.",
    )
    command.add_argument("runs", nargs="*", type=Path, metavar="RUN", help=runs)
    command.add_argument("--formats", default="svg,png,pdf", metavar="LIST", help="which (default: svg,png,pdf)")
    command.set_defaults(action=_plots)

    command = commands.add_parser(
        "reproduce",
        help="run the experiment of a slide; say how near it comes",
        description="Run the experiment that a slide's figure is of, draw the figure, and say in words how far it is"
        " from the slide. The exit status is 0 when all that was asked for held, 1 when something did not, 2 when it"
        " cannot be told. Without a slide: list them.",
    )
    command.add_argument("slide", nargs="?", metavar="SLIDE", help="slide46, for example")
    command.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="OPTIONS", help="the experiment's own; --help shows them"
    )
    command.set_defaults(action=_reproduce)

    command = commands.add_parser("launch")  # without help: the inner half of `run`
    command.add_argument("topology")
    command.add_argument("options", nargs=argparse.REMAINDER)
    command.set_defaults(action=_launch)
    command = commands.add_parser("launch-check")  # the same for `check`
    command.add_argument("--json", action="store_true")
    command.set_defaults(action=_launch_check)
    command = commands.add_parser("launch-mn")  # the same for `mn`
    command.add_argument("options", nargs="*")
    command.set_defaults(action=_launch_mn)
    return parser


def _command(options: argparse.Namespace) -> list[str]:
    return options.command + options.after_dashes or [os.environ.get("SHELL", "/bin/sh")]


def _quietly() -> list[str]:
    """What stands before a Python inside, so that a Ctrl-C while it starts waits until __main__ can end without a stack
    trace. Not every `env` can do that (coreutils 8.31 or newer); without, Python's own words may show then.
    """
    words = ["env", "--block-signal=INT"]
    try:
        able = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        able = False
    return words if able else []


def _run(options: argparse.Namespace) -> int:
    inner = [*_quietly(), sys.executable, "-m", "testbed", "launch", options.topology, *options.options]
    return sandbox.run(inner, name=options.topology)


def _topologies(options: argparse.Namespace) -> int:
    return _inner("testbed.topology_command").main(options.topology, options.options)


def _launch(options: argparse.Namespace) -> int:
    if not sandbox.inside():
        raise TestbedError("`testbed launch` works only inside a sandbox", f"use: testbed run {options.topology}")
    return _inner("testbed.launch").run(options.topology, options.options)


def _inner(name: str) -> Any:
    """A module that only its own command needs, loaded by name: what runs inside brings Mininet along, pages and
    pictures bring their libraries. Raises TestbedError where one is not there.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise TestbedError(
            f"{sys.executable} has no module {error.name}",
            "install what is missing: make setup; if that finds nothing to do: make clean setup",
        ) from None
    interrupts.hear()  # until here Ctrl-C just ends it
    return module


def _mn(options: argparse.Namespace) -> int:
    words = options.after_dashes
    if words in (["-h"], ["--help"], ["--version"]):
        return _launch_mn(options)  # these build nothing, so they need neither root nor a sandbox
    return sandbox.run([*_quietly(), sys.executable, "-m", "testbed", "launch-mn", "--", *words], name="mn")


def _launch_mn(options: argparse.Namespace) -> int:
    return _inner("testbed.mn").run(options.after_dashes)


def _check(options: argparse.Namespace) -> int:
    words = ["--json"] if options.json else []
    try:
        return sandbox.run([*_quietly(), sys.executable, "-m", "testbed", "launch-check", *words], name="check")
    except TestbedError as error:
        from testbed.check import command  # only here: it looks at every package that is installed

        return command.without_sandbox(error, as_json=options.json)


def _launch_check(options: argparse.Namespace) -> int:
    if not sandbox.inside():
        raise TestbedError("`testbed launch-check` works only inside a sandbox", "use: testbed check")
    return int(_inner("testbed.check.command").run_inside(as_json=options.json))


def _exec(options: argparse.Namespace) -> int:
    command = _command(options)
    return sandbox.run(command, name=options.name or os.path.basename(command[0]), private_tmp=options.private_tmp)


def _attach(options: argparse.Namespace) -> int:
    if options.command[:1] == ["--host"] and len(options.command) > 1:
        # argparse takes all that follows the sandbox's name for the command.
        options.host, options.command = options.command[1], options.command[2:]
    target, command = attach.choose(options.sandbox), _command(options)
    return attach.attach(target, command if options.host is None else attach.in_host(target, options.host, command))


def _experiments(options: argparse.Namespace) -> int:
    return int(_inner("testbed.experiment.describe").show())


def _report(options: argparse.Namespace) -> int:
    return _inner("testbed.report.command").reports(options.runs)


def _plots(options: argparse.Namespace) -> int:
    return _inner("testbed.report.command").plots(options.runs, options.formats.split(","))


def _reproduce(options: argparse.Namespace) -> int:
    return _inner("testbed.report.reproduce").run(options.slide, options.options)


def _list(options: argparse.Namespace) -> int:
    found = attach.find()
    if options.json:
        print(json.dumps([entry.as_json() for entry in found]))
        return 0
    if not found:
        print("no sandbox is running")
    for entry in found:
        where = f"since {entry.clock} in {entry.directory}"
        print(f"{entry.pid:>8}  {entry.user:<12} {entry.name:<20} {where}  {entry.command}")
    return 0
