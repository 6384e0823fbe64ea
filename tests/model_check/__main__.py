"""`make model-check`: explores within the given bounds and says how far it went; status 1 when something is stuck."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model_check.checker import Bounds, Checker, Verdict
from tests.model_check.old_rule import bare_ack_for_a_repeated_rsyn, no_switch_when_crossing


def main() -> int:
    parser = argparse.ArgumentParser(prog="make model-check", description=__doc__)
    parser.add_argument("--moves", type=int, default=2, help="moves of each end (default %(default)s)")
    parser.add_argument("--losses", type=int, default=1, help="packets lost on one way (default %(default)s)")
    parser.add_argument("--copies", type=int, default=1, help="packets doubled on one way (default %(default)s)")
    parser.add_argument("--timeouts", type=int, default=2, help="time-outs on one way (default %(default)s)")
    parser.add_argument("--states", type=int, default=400_000, help="states at most in each run (default %(default)s)")
    options = parser.parse_args()
    bounds = Bounds(options.moves, options.losses, options.copies, options.timeouts)
    good = True
    for lost in (False, True):
        for original in (False, True):
            these = Bounds(bounds.moves, bounds.losses, bounds.copies, bounds.timeouts, lost)
            started = time.monotonic()
            verdict = Checker(these, original=original).run(options.states)
            rule = "towards an original" if original else "towards a peer of this project"
            print(f"{rule}: {these.text()}")
            _tell(verdict, time.monotonic() - started)
            good = good and verdict.stuck is None
    for name, rule_change in (("bare ACK", bare_ack_for_a_repeated_rsyn), ("crossing", no_switch_when_crossing)):
        verdict = Checker(Bounds(), original=True, old_rule=rule_change).run(options.states)
        print(f"the original's rule, {name}: {'stuck, as it must be found' if verdict.stuck else 'NOT FOUND'}")
        for step in verdict.stuck.steps if verdict.stuck else ():
            print(f"    {step}")
        good = good and verdict.stuck is not None
    return 0 if good else 1


def _tell(verdict: Verdict, seconds: float) -> None:
    extent = "all of them" if verdict.complete else "not all"
    print(f"  {verdict.states} states ({extent}), {verdict.steps} steps, up to {verdict.depth} deep, {seconds:.1f} s")
    if verdict.stuck is not None:
        print(f"  STUCK: {verdict.stuck.end}, after")
        for step in verdict.stuck.steps:
            print(f"    {step}")


if __name__ == "__main__":
    sys.exit(main())
