"""Start what a scene says that flows: the runner's way into this package."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from testbed.errors import TestbedError
from testbed.experiment.run import Run, Running
from testbed.experiment.traffic import Requests, Stream, Traffic
from testbed.traffic import transports
from testbed.traffic.bulk import FlowingBulk
from testbed.traffic.requests import FlowingRequests
from testbed.traffic.streams import FlowingStream

FIRST_PORT = 5101


def start(run: Run, item: Traffic) -> Running:
    """Start both ends of an item of the run's scene, and make the hosts ready for its transport if that is still to do.

    Returns before they are ready. Raises TestbedError.
    """
    items = run.scene.traffic
    check_services(items, [service.name for service in run.network.services] if run.scene.services else ())
    transports.set_up(run, items)
    port = FIRST_PORT + [one.name for one in items].index(item.name)
    if isinstance(item, Stream):
        return FlowingStream(run, item, port)
    if isinstance(item, Requests):
        return FlowingRequests(run, item, port)
    return FlowingBulk(run, item, port)


def check_services(items: Sequence[Traffic], declared: Collection[str]) -> None:
    """Raises TestbedError when two items would serve the same service; `declared` ones have servers of their own."""
    owners: dict[str, str] = {}
    for item in items:
        if isinstance(item, Requests) and item.service in declared:
            continue
        other = owners.setdefault(item.service, item.name)
        if other != item.name:
            raise TestbedError(
                f"{other} and {item.name} have the same service {item.service}",
                "each needs one of its own: a connection to a service goes to any of its servers",
            )
