"""python -m experiments: all experiments one after the other, as much of each as fits into the time."""

from __future__ import annotations

import argparse
import math
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence

from experiments import _short
from testbed import sandbox
from testbed.errors import TestbedError, report
from testbed.experiment import build, catalogue
from testbed.experiment.command import count_of_runs
from testbed.experiment.plan import Settings
from testbed.measure.progress import duration
from testbed.measure.statistics import ENOUGH

MINUTES = 19.8


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the worst of their statuses; 130 after Ctrl-C, which ends the whole row."""
    options = _parser().parse_args(arguments)
    try:
        chosen = [catalogue.load(name) for name in options.names or catalogue.names()]
        seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
        settings = Settings(runs=options.runs, seed=seed)
        row, left_out = _short.fit(chosen, 60 * options.minutes, settings, build.topology)
        for one in row:
            print(f"{one.name:<24} {duration(one.seconds):>12}  {' '.join(one.words())}")
        for one in left_out:
            print(f"{one.name:<24} {duration(one.seconds):>12}  left out: it does not fit into {options.minutes:g} min")
        if not row:
            raise TestbedError("there is not enough time for any of them", "give them more: --minutes, or fewer --runs")
        print(f"together about {duration(sum(one.seconds for one in row))}", flush=True)
        return 0 if options.plan else max((_run(one) for one in row), default=0)
    except TestbedError as error:
        report(error)
        return 1
    except KeyboardInterrupt:  # the one that ran has kept what it measured, and has said so
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Runs experiments one after the other: of each as many points and contenders as fit into the time."
        " docs/experiments.md has more.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="as `testbed experiments` lists them (default: all)")
    parser.add_argument(
        "--runs", type=count_of_runs, default=ENOUGH, help="repetitions (default: %(default)s, the least for a verdict)"
    )
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, help="for all of them (default: %(default)g)")
    parser.add_argument("--seed", type=int, help="of all of them (default: drawn, and recorded)")
    parser.add_argument("--plan", action="store_true", help="show what would run, and how long it takes; no root")
    return parser


def _minutes(text: str) -> float:
    """From the command line; raises argparse.ArgumentTypeError."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"a number of minutes is wanted, not {text!r}")
    return minutes


def _run(one: _short.Short) -> int:
    """In a process and a sandbox of its own."""
    print(f"\n== {one.name}", flush=True)
    command = [sys.executable, "-m", f"experiments.{one.name}", *one.words()]
    status = subprocess.run(command, cwd=sandbox.ROOT, check=False).returncode
    if status in (128 + signal.SIGINT, -signal.SIGINT):
        raise KeyboardInterrupt
    return status


if __name__ == "__main__":
    sys.exit(main())
