"""The command line of the benchmarks: choose, say how long, measure in a sandbox, show, keep."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.catalogue import BENCHMARKS, choose
from testbed import sandbox
from testbed.errors import TestbedError, report
from testbed.measure import analysis, document, environment, files, machine, plot, table
from testbed.measure.ending import Ended, end_in_order
from testbed.measure.engine import Engine
from testbed.measure.plan import DEFAULT_PAIRS, Settings
from testbed.measure.progress import Progress, duration
from testbed.measure.statistics import CLAIM, ENOUGH

RESULTS = sandbox.ROOT / "results" / "bench"
EXAMPLES = f"""\
below {ENOUGH} pairs there is no interval ("too few"); what the documentation claims has at least {CLAIM} pairs.
examples:
  python -m experiments.benchmarks connect --pairs 6         the benchmarks whose names begin so
  python -m experiments.benchmarks --plot results/bench/latest/result.json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 1 when something failed, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.list:
            return _list(options)
        if options.plot is not None:
            return _show(document.load(options.plot), options.plot.parent, markdown=options.markdown)
        return _measure(options)
    except TestbedError as error:
        report(error)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks",
        description="Measures the testbed's speed in interleaved pairs. docs/benchmarks.md says how to read it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="benchmarks, named by --list (default: all that say nothing else there)",
    )
    parser.add_argument("--pairs", type=_count, default=None, help=f"pairs of each kind (default: {DEFAULT_PAIRS})")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="VARIANT",
        help="these variants and what they are compared with, for example serval or serval:hole (may be repeated)",
    )
    parser.add_argument("--seed", type=int, help="of the order of the pairs (default: drawn, and recorded)")
    parser.add_argument("--quick", action="store_true", help="very short runs and 2 pairs: does it work at all?")
    parser.add_argument("--list", action="store_true", help="list the benchmarks, or those named, and their times")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where the result goes (default: results/bench)")
    parser.add_argument("--plot", type=Path, metavar="RESULT.json", help="table and plots again from a result; no root")
    parser.add_argument("--markdown", action="store_true", help="the table in Markdown")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"a number of pairs is from 1 to 1000, not {text!r}")
    return int(text)


def _settings(options: argparse.Namespace) -> Settings:
    pairs = options.pairs or (2 if options.quick else DEFAULT_PAIRS)
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    return Settings(pairs=pairs, seed=seed, quick=options.quick)


def _list(options: argparse.Namespace) -> int:
    settings = _settings(options)
    for benchmark in choose(options.names, options.only) if options.names else BENCHMARKS:
        seconds = benchmark.seconds(settings, machine.GAP_SECONDS)
        title = benchmark.titled(settings) + (analysis.QUICK if settings.quick else "")
        print(f"{benchmark.name:<20} {duration(seconds):>12}  {title}{' (only by name)' if benchmark.by_name else ''}")
    return 0


def _measure(options: argparse.Namespace) -> int:
    benchmarks = choose(options.names, options.only)
    sandbox.enter(name="bench")
    settings = _settings(options)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    directory = files.prepare((options.results or RESULTS).absolute(), stamp)
    path = directory / files.FILE_NAME
    files.point_latest_to(directory)
    expected = {one.name: one.seconds(settings, machine.GAP_SECONDS) for one in benchmarks}
    result = document.new(
        {"pairs": settings.pairs, "seed": settings.seed, "quick": settings.quick},
        environment.describe(),
        [sys.executable, *sys.orig_argv[1:]],
    )
    print(f"{len(benchmarks)} benchmarks, about {duration(sum(expected.values()))}; seed {settings.seed}; to {path}")
    if settings.pairs < ENOUGH:
        print(f"with fewer than {ENOUGH} pairs there is no interval and no verdict")
    engine = Engine(result, settings, Progress(expected), lambda: files.save(result, path))
    end_in_order()
    status = 0
    try:
        status = 0 if engine.run(benchmarks) else 1
    except TestbedError as error:  # it cannot be saved any more; what is in memory is still shown
        report(error)
        status = 1
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        print("\ninterrupted: what was measured is kept")
    except Ended:
        status = 128 + signal.SIGTERM
        print("\nended: what was measured is kept")
    print()
    shown = _show(result, directory, markdown=options.markdown)
    print(f"result: {path}")
    return status or shown


def _show(result: dict[str, Any], directory: Path, *, markdown: bool) -> int:
    print(table.markdown(result) if markdown else table.text(result))
    for path in plot.draw(result, directory):
        print(f"plot: {path}")
    return 0
