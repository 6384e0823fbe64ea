"""Carries out what `testbed.experiment.traffic` describes, in the hosts of a running network.

start             one item of traffic over the transport of a contender: what the runner of experiments uses
carry             the same, by kind: streams, requests, bulk
transports        what each transport needs of hosts and kernel
near, far, ends   a stream's two ends, as programs in hosts; requester, responder: those of requests
flow              sending and receiving: numbered blocks (pattern), noted as they go (samples)
bins              from such notes to bins and silences
programs, orders  helper programs in hosts that take orders, from both sides
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.traffic.carry import start

__all__ = ["start"]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the programs in hosts import this package too, without Mininet and in milliseconds."""
    if name != "start":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from testbed.traffic.carry import start

    return start
