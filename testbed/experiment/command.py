"""The command line of one experiment: check everything, run it in a sandbox, say what came out, keep it.

if __name__ == "__main__":
    main(EXPERIMENT)
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from testbed import requirements, sandbox
from testbed.errors import TestbedError, report
from testbed.experiment import build, describe, live, plan, result, summary
from testbed.experiment.calibrate import calibrate
from testbed.experiment.plan import ALL, DEFAULT_RUNS, ENDS, QUICK_RUNS, Plan, Settings, Turn
from testbed.experiment.progress import RunProgress
from testbed.experiment.runner import Runner
from testbed.experiment.specification import Experiment
from testbed.experiment.traffic import Bulk
from testbed.measure import environment, files
from testbed.measure.ending import Ended, end_in_order
from testbed.measure.statistics import ENOUGH

MANIFEST = "manifest.json"
RUN_BYTES = 1 << 20
"""About what a run leaves; asked for before anything is started."""


Finish = Callable[[dict[str, Any], Path], None]
"""Takes the result and its directory."""


def main(experiment: Experiment, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the program: with 0, with 1 when something failed, with 2 for a wrong option, with 130
    after Ctrl-C.
    """
    sys.exit(run(experiment, arguments))


def run(experiment: Experiment, arguments: Sequence[str] | None = None, *, finish: Finish | None = None) -> int:
    """The command; returns its exit status. `finish` is called when all is over, kept and said."""
    options = _parser(experiment).parse_args(arguments)
    try:
        if options.list:
            print(describe.experiment(experiment))
            return 0
        settings = _settings(options)
        laid = plan.make(experiment, settings, build.topology)
        if options.plan:
            print(describe.plan(laid))
            return 0
        parent = (options.results or sandbox.ROOT / "results" / experiment.name).absolute()
        return _measure(laid, parent, [] if finish is None else [finish], with_page=not options.no_report)
    except TestbedError as error:
        report(error)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser(experiment: Experiment) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"{experiment.title} ({experiment.source}).",
        epilog="docs/experiments.md says what the verdicts mean and what the result holds.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--runs",
        type=count_of_runs,
        help=f"repetitions (default: {DEFAULT_RUNS}, quick: {QUICK_RUNS}); below {ENOUGH} there is no verdict",
    )
    parser.add_argument(
        "--seed", type=int, help="of the order of runs and of all chance (default: drawn, and recorded)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="as short as it goes, two contenders, the ends of a sweep: does it work?"
    )
    parser.add_argument(
        "--set",
        dest="given",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter, as --list shows them; repeatable",
    )
    parser.add_argument("--contenders", type=_names, default=(), metavar="A,B", help="only these, as --list shows them")
    parser.add_argument(
        "--points", metavar="WHICH", help=f"of a sweep: {ALL}, {ENDS}, or numbers as --list shows them (1,3)"
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help=f"default: results/{experiment.name}")
    parser.add_argument("--list", action="store_true", help="show what the experiment consists of; no root")
    parser.add_argument("--plan", action="store_true", help="show the runs, in their order, and the time; no root")
    parser.add_argument("--capture", action="store_true", help="write a pcap per interface for each run")
    parser.add_argument(
        "--no-report", action="store_true", help="do not make report.html; `make report` makes it later"
    )
    parser.add_argument("--no-calibration", action="store_true", help="do not measure the links first")
    return parser


def count_of_runs(text: str) -> int:
    """From the command line; raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"a number of runs is from 1 to 1000, not {text!r}")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"names are wanted, separated by commas, not {text!r}")
    return found


def _assignment(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        wanted = f"{value!r} is no number" if equals else "it has no ="
        raise argparse.ArgumentTypeError(f"NAME=VALUE is wanted, not {text!r}: {wanted}") from None


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        runs=options.runs or (QUICK_RUNS if options.quick else DEFAULT_RUNS),
        seed=secrets.randbelow(1 << 31) if options.seed is None else options.seed,
        quick=options.quick,
        given=dict(options.given),
        contenders=options.contenders,
        points=options.points,
        calibrate=not (options.quick or options.no_calibration),
        capture=options.capture,
    )


def _measure(laid: Plan, parent: Path, finish: list[Finish], *, with_page: bool) -> int:
    sandbox.enter(name=laid.experiment.name)
    _check_machine(laid)
    needed = files.NEEDED_BYTES + RUN_BYTES * len(laid.turns)
    directory = files.prepare(parent, time.strftime("%Y%m%d-%H%M%S"), needed=needed)
    files.point_latest_to(directory)
    document = result.new(laid, environment.describe(), [sys.executable, *sys.orig_argv[1:]])
    print(describe.beginning(laid, directory), flush=True)
    end_in_order()
    status = 0
    try:
        status = 0 if _run(laid, document, directory) else 1
    except TestbedError as error:  # it cannot be saved any more; what is in memory is still shown
        report(error)
        status = 1
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        print("\ninterrupted: what was measured is kept")
    except Ended:
        status = 128 + signal.SIGTERM
        print("\nended: what was measured is kept")
    print(f"\n{summary.text(document)}\n\nresult: {_kept(directory / files.FILE_NAME)}")
    if status > 1:  # whoever ends it does not want to wait for pictures
        return status
    if with_page:
        from testbed.report.command import write  # only here: drawing is loaded when all measuring is over

        print(f"report: {write(document, directory)}")
    for action in finish:
        action(document, directory)
    return status


def _run(laid: Plan, document: dict[str, Any], directory: Path) -> bool:
    from testbed import calibration, traffic
    from testbed.hosts import HOSTS_DIRECTORY

    tools = live.Tools(
        build=build.topology,
        network=build.network,
        start=traffic.start,
        collect=lambda target: live.collect_logs(HOSTS_DIRECTORY, target / "hosts"),
    )
    progress = RunProgress(laid)

    def save() -> None:
        files.save(document, directory / files.FILE_NAME, indent=None)

    def carry_out(turn: Turn, attempt: int) -> dict[str, Any]:
        return live.carry_out(laid, turn, attempt, directory, tools)

    document["ended"] = "while the links were measured"
    try:
        document["calibration"] += calibrate(laid, directory, tools, calibration.calibrate, progress)
        document["ended"] = None
    finally:
        save()
    files.save({name: value for name, value in document.items() if name != "runs"}, directory / MANIFEST)
    return Runner(laid, document, carry_out, progress, save).run()


def _kept(path: Path) -> str:
    """Where the result is, if it is anywhere: on a disk that became full it need not be."""
    return str(path) if path.exists() else "none; it could not be written"


def _check_machine(laid: Plan) -> None:
    """Raises TestbedError that names what this machine lacks for the largest of the networks."""
    scenes = [laid.scene(turn.setting, turn.contender) for turn in laid.turns if not turn.repetition]
    wanted: list[Mapping[str, str]] = []
    if any(isinstance(item, Bulk) for scene in scenes for item in scene.traffic) or laid.calibrations():
        wanted.append(requirements.MEASURING)
    if laid.settings.capture:
        wanted.append(requirements.CAPTURING)
    topos = [build.topology(scene.topology, scene.options) for scene in scenes]
    requirements.check(
        programs=wanted,
        services=[
            service.command
            for scene, topo in zip(scenes, topos, strict=True)
            if scene.services
            for service in getattr(topo, "services", ())
        ],
        members=max(len(topo.nodes()) + len(topo.links()) for topo in topos),
    )
