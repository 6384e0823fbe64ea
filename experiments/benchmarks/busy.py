"""A processor with other work: `python -m experiments.benchmarks.busy PATH` takes orders there.

spin     processes, seconds      so many processes compute for so long, and end; the answer comes when they have
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import Any

from testbed.traffic.orders import serve_orders


def compute(until: float) -> None:
    """Nothing but work for a processor, until a monotonic time."""
    while time.monotonic() < until:
        sum(range(1000))


def spin(order: dict[str, Any], _tell: Any) -> dict[str, Any]:
    until = time.monotonic() + order["seconds"]
    # Forked, so that they are there at once; this program has no threads.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=compute, args=(until,), daemon=True) for _ in range(order["processes"])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return {}


def main() -> None:
    (path,) = sys.argv[1:]
    serve_orders(path, {"spin": spin})


if __name__ == "__main__":
    main()
