"""All benchmarks by name."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.benchmarks import connecting, crowd, false_alarms, goodput, handover, relay, routing
from testbed.errors import TestbedError
from testbed.measure.plan import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = (
    *goodput.BENCHMARKS,
    *connecting.BENCHMARKS,
    *crowd.BENCHMARKS,
    *routing.BENCHMARKS,
    *handover.BENCHMARKS,
    *false_alarms.BENCHMARKS,
    *relay.BENCHMARKS,
)


def choose(names: Sequence[str], only: Sequence[str] = ()) -> list[Benchmark]:
    """The benchmarks of these names; "connect", which is none itself, stands for all that begin so.

    Without any name all, but for those that take too long to be measured unasked. `only`: these variants of them, and
    what they are compared with. Raises TestbedError.
    """
    chosen: list[Benchmark] = []
    for name in names:
        exact = [one for one in BENCHMARKS if one.name == name]
        found = exact or [one for one in BENCHMARKS if one.name.startswith(f"{name}-")]
        if not found:
            known = ", ".join(one.name for one in BENCHMARKS)
            raise TestbedError(f"no benchmark {name!r}", f"there are: {known}")
        chosen += [one for one in found if one not in chosen]
    chosen = chosen or [one for one in BENCHMARKS if not one.by_name]
    return [_restricted(one, only) for one in chosen] if only else chosen


def _restricted(benchmark: Benchmark, only: Sequence[str]) -> Benchmark:
    found = benchmark.only(only)
    if found is None:
        known = ", ".join(dict.fromkeys(pair.subject for pair in benchmark.comparisons if not pair.equal))
        raise TestbedError(f"{benchmark.name} has no variant {' or '.join(only)}", f"there are: {known}")
    return found
