"""`make model-check`: explores within the given bounds and says how far it went; status 1 when something is stuck."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from tests.model_check.checker import Bounds, Checker, Verdict
from tests.model_check.old_rule import bare_ack_for_a_repeated_rsyn, no_switch_when_crossing

DEFAULT = (
    Bounds(moves=1, losses=1, copies=0, timeouts=2),
    Bounds(moves=1, losses=1, copies=1, timeouts=1),
    Bounds(moves=2, losses=0, copies=0, timeouts=1),
)
"""Explored one after the other: what all of them at once would reach takes hours."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make model-check", description=__doc__)
    for name, text in (
        ("moves", "moves of each end"),
        ("losses", "packets lost on one way"),
        ("copies", "packets doubled on one way"),
        ("timeouts", "time-outs on one way"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{text}, in place of the default bounds")
    parser.add_argument(
        "--states", type=int, default=200_000, metavar="N", help="states at most in each run (default %(default)s)"
    )
    options = parser.parse_args()
    given = {
        name: value
        for name in ("moves", "losses", "copies", "timeouts")
        if (value := getattr(options, name)) is not None
    }
    good = True
    for bounds in [Bounds(**given)] if given else DEFAULT:
        for lost in (False, True):
            for original in (False, True):
                good = _explore(replace(bounds, old_places_lost=lost), original, options.states) and good
    for name, rule in (("bare ACK", bare_ack_for_a_repeated_rsyn), ("crossing", no_switch_when_crossing)):
        verdict = Checker(Bounds(), original=True, old_rule=rule).run(options.states)
        print(f"the original's rule, {name}: {'stuck, as it must be found' if verdict.stuck else 'NOT FOUND'}")
        for step in verdict.stuck.steps if verdict.stuck else ():
            print(f"    {step}")
        good = good and verdict.stuck is not None
    return 0 if good else 1


def _explore(bounds: Bounds, original: bool, most_states: int) -> bool:
    rule = "towards an original" if original else "towards a peer of this project"
    print(f"{rule}: {bounds.text()}", flush=True)
    started = time.monotonic()
    verdict = Checker(bounds, original=original).run(most_states)
    _tell(verdict, time.monotonic() - started)
    return verdict.stuck is None


def _tell(verdict: Verdict, seconds: float) -> None:
    extent = "all of them" if verdict.complete else "not all"
    print(f"  {verdict.states} states ({extent}), {verdict.steps} steps, up to {verdict.depth} deep, {seconds:.1f} s")
    if verdict.stuck is not None:
        print(f"  STUCK: {verdict.stuck.end}, after")
        for step in verdict.stuck.steps:
            print(f"    {step}")


if __name__ == "__main__":
    sys.exit(main())
