"""The command `testbed`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence

from testbed import attach, sandbox
from testbed.errors import TestbedError, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # argparse would take the dashes and then the command's first word for a sandbox's name.
        at = words.index("--") if words[:1] in (["exec"], ["attach"]) and "--" in words else len(words)
        options = _parser().parse_args(words[:at])
        options.after_dashes = words[at + 1 :]
        return options.action(options)
    except TestbedError as error:
        report(error)
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

    command = commands.add_parser("exec", help="run a command in a new sandbox")
    command.add_argument("--name", help="what `testbed list` shows (default: the command's name)")
    command.add_argument("--private-tmp", action="store_true", help="give it an empty /tmp that goes with the sandbox")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="default: a shell")
    command.set_defaults(action=_exec)

    command = commands.add_parser("attach", help="run a command (default: a shell) in a sandbox that is running")
    command.add_argument("sandbox", nargs="?", metavar="SANDBOX", help="name or process id (default: the only one)")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="default: a shell")
    command.set_defaults(action=_attach)

    command = commands.add_parser("list", help="list the sandboxes that are running")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(action=_list)

    command = commands.add_parser("launch")  # without help: the inner half of `run`
    command.add_argument("topology")
    command.add_argument("options", nargs=argparse.REMAINDER)
    command.set_defaults(action=_launch)
    return parser


def _command(options: argparse.Namespace) -> list[str]:
    return options.command + options.after_dashes or [os.environ.get("SHELL", "/bin/sh")]


def _run(options: argparse.Namespace) -> int:
    inner = [sys.executable, "-m", "testbed", "launch", options.topology, *options.options]
    return sandbox.run(inner, name=options.topology)


def _launch(options: argparse.Namespace) -> int:
    if not sandbox.inside():
        raise TestbedError("`testbed launch` works only inside a sandbox", f"use: testbed run {options.topology}")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Loaded by name, and only here: it brings Mininet along, which nothing outside the sandbox needs.
    return importlib.import_module("testbed.launch").run(options.topology, options.options)


def _exec(options: argparse.Namespace) -> int:
    command = _command(options)
    return sandbox.run(command, name=options.name or os.path.basename(command[0]), private_tmp=options.private_tmp)


def _attach(options: argparse.Namespace) -> int:
    return attach.attach(attach.choose(options.sandbox), _command(options))


def _list(options: argparse.Namespace) -> int:
    found = attach.find()
    if options.json:
        print(json.dumps([entry.as_json() for entry in found]))
        return 0
    if not found:
        print("no sandbox is running")
    for entry in found:
        print(f"{entry.pid:>8}  {entry.user:<12} {entry.name:<20} {entry.command}")
    return 0
