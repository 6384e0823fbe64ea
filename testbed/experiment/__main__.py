"""python -m testbed.experiment: what can be done with a result that is there. No root."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import TestbedError, report
from testbed.experiment import export, result, summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        document = result.load(options.run)
        if options.command == "show":
            print(summary.text(document))
            return 0
        home = options.run if options.run.is_dir() else options.run.parent
        directory = options.directory or home / "export"
        if options.csv or not options.json:
            for path in export.write_csv(document, directory):
                print(path)
        if options.json:
            print(export.write_json(document, directory))
    except TestbedError as error:
        report(error)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m testbed.experiment", description="Shows and exports results of experiments."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, text in (("show", "print the summary again"), ("export", "write tables as CSV, or all of it as JSON")):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument("run", type=Path, metavar="RUN", help="a result's directory, or its result.json")
    command.add_argument("--csv", action="store_true", help="runs, bins, samples, events, blackouts (the default)")
    command.add_argument("--json", action="store_true", help="everything, indented")
    command.add_argument("--directory", type=Path, metavar="DIR", help="where to (default: RUN/export)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
