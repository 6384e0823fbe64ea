"""How long a receiver waits when its stream's path goes: Serval beside the kernel's MPTCP, each beside itself with
nothing happening.

A variant is "CONTESTANT:EVENT". Each run is one connection, one stream in pieces of a millisecond, and one
event in its middle, at a moment of its own; what is measured is `gaps.largest` at the receiver.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from experiments.benchmarks import gaps
from experiments.benchmarks.stream import DOWN, UP
from testbed.errors import TestbedError
from testbed.measure.plan import DIFFERENCE, LOWER, Benchmark, Comparison, Figure, Reading, Settings
from testbed.traffic.mptcp import missing as mptcp_missing

SERVAL, MPTCP, TUNED = "serval", "mptcp", "mptcp-tuned"
NONE, TOLD, LINK_DOWN, CARRIER, HOLE = "none", "told", "down", "carrier", "hole"
CONTESTANTS = {SERVAL: "Serval", MPTCP: "MPTCP", TUNED: "MPTCP tuned"}
EVENTS = {TOLD: "told handover", LINK_DOWN: "interface down", CARRIER: "carrier lost", HOLE: "silent black hole"}
ROUND_TRIPS_MS = (0, 20, 100)

_WARM_SECONDS, _WARM_ROUND_TRIPS = 0.25, 9
_SPREAD_SECONDS = 0.05
_TAIL_SECONDS = 0.05
LIMIT = 3.0
"""So many seconds after an event nobody waits for a contestant any more: the path is mended; the gap counts as this."""
_ATTEMPTS = 3
_PHASES = ("detect", "decide", "signal", "recover")


class EventTooLate(TestbedError):
    """The stream was over before the event could have its effect: this program was not scheduled in time."""


class Handover:
    """The bed: a client with two interfaces."""

    def __init__(self, network: Any, parameters: Mapping[str, Any], seed: int) -> None:
        from experiments.benchmarks import multihomed as place
        from testbed import nodes

        self._network, self._place = network, place
        self._direction, self._rate = parameters["direction"], parameters["rate"] * 1e6
        self._round_trip = parameters["rtt_ms"] / 1e3
        self._window = gaps.window(self._round_trip)
        self._chance = random.Random(f"{seed} moments")
        self._client = nodes.client(network.client)
        answer = self._client.request("address", name=place.SERVICE, port=place.PORT)
        self._virtual = [answer["address"], answer["port"]]

    def facts(self) -> Mapping[str, Any]:
        return {**self._network.facts(), "window_ms": self._window * 1e3, "limit_ms": LIMIT * 1e3}

    def close(self) -> None:
        self._client.close()

    def measure(self, variant: str) -> Reading:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._measure(variant)
            except EventTooLate:
                continue  # it says nothing about anybody, and the next one has its chance
        return self._measure(variant)

    def _measure(self, variant: str) -> Reading:
        contestant, _, event = variant.partition(":")
        if contestant != SERVAL:
            self._network.set_mptcp(contestant == TUNED)
        warm = _WARM_SECONDS + _WARM_ROUND_TRIPS * self._round_trip + self._chance.uniform(0, _SPREAD_SECONDS)
        since = time.monotonic()
        self._order(contestant, warm + self._window + _TAIL_SECONDS + self._round_trip)
        started = self._network.streams.answer()["started"]
        flow = self._flow() if contestant == SERVAL else {}
        time.sleep(max(0.0, started + warm - time.monotonic()))
        at = self._trigger(contestant, event, flow)
        told = self._result(variant, at, mended=event in (NONE, TOLD))
        return self._reading(contestant, event, at, told, since)

    def _order(self, contestant: str, seconds: float) -> None:
        serval = contestant == SERVAL
        target = self._virtual if serval else [self._place.SERVER, self._place.MPTCP_PORT]
        wanted = {"direction": self._direction, "rate": self._rate, "seconds": seconds}
        self._network.streams.give("stream", target=target, mptcp=not serval, **wanted)

    def _flow(self) -> dict[str, Any]:
        return self._place.check_first_path(self._network, self._client.request("flows")["flows"])

    def _trigger(self, contestant: str, event: str, flow: Mapping[str, Any]) -> float:
        """Let it happen; the moment before it did."""
        network = self._network
        if event == LINK_DOWN:
            answer = network.client_trigger.order("link", interface=network.first_interface, up=False)
        elif event == CARRIER:
            answer = network.router_trigger.order("link", interface=network.first_interface_of_router, up=False)
        elif event == HOLE:
            answer = network.router_trigger.order("hole", table=self._place.HOLE_TABLE)
        elif event == TOLD and contestant != SERVAL:
            answer = network.client_trigger.order("backup", ids=[1, 2])
        else:
            at = time.monotonic()
            if event == TOLD:
                (row,) = self._client.request("migrate", flow_id=flow["flow_id"], to=self._place.SECOND)["flows"]
                if row["refusal"]:
                    raise TestbedError(f"the planned move was refused: {row['refusal']}")
            return at
        return float(answer["at"])

    def _result(self, variant: str, at: float, *, mended: bool) -> dict[str, Any]:
        """What the receiver says, and the network as it was before. A path that nobody has left is mended at LIMIT."""
        streams = self._network.streams
        in_time = streams.answered(at + LIMIT - time.monotonic())
        if not in_time and mended:
            raise TestbedError(f"{variant}: the stream did not end within {LIMIT:g} s", f"its log is {streams.log}")
        if not in_time:
            self._network.restore()
        told = streams.answer()
        if in_time and not mended:
            self._network.restore()
        if told["congestion"] != self._place.CONGESTION_CONTROL:
            raise TestbedError(f"{variant} ran with congestion control {told['congestion']}")
        return told

    def _reading(self, contestant: str, event: str, at: float, told: Mapping[str, Any], since: float) -> Reading:
        try:
            gap = gaps.largest(told["times"], at, self._window)
        except ValueError as error:
            raise EventTooLate(f"{contestant}:{event}: {error}") from None
        seconds = min(gap.bins * gaps.BIN, LIMIT)
        metrics = {"gap": seconds, "begin": gap.begin * gaps.BIN}
        facts: dict[str, Any] = {"over": seconds < LIMIT}
        if contestant == SERVAL:
            # Without an event too: a move then would be a false alarm.
            moves = self._client.request("events", since=since, kinds=["Blackout"])["events"]
            facts["blackouts"] = moves
            metrics["moves"] = float(len(moves))
            metrics.update({phase: moves[0][phase] for phase in _PHASES if moves and moves[0][phase] is not None})
        largest = gaps.gaps(told["times"], at, self._window)[:5]
        samples = {"gaps": [float(one.bins) for one in largest], "begin": [float(one.begin) for one in largest]}
        return Reading(metrics, samples, facts)


@contextmanager
def bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[Handover]:
    # Mininet is needed only here: the list of benchmarks loads without it.
    from experiments.benchmarks.multihomed import multihomed

    with multihomed(settings.logs, delay=parameters["rtt_ms"] / 2e3) as network:
        handover = Handover(network, parameters, settings.seed)
        try:
            for contestant in contestants():  # once unmeasured: first use of code, of paths, of the router's caches
                handover.measure(f"{contestant}:{NONE}")
            yield handover
        finally:
            handover.close()


def contestants() -> list[str]:
    """Those that this kernel has."""
    return [name for name in CONTESTANTS if name == SERVAL or mptcp_missing() is None]


def _figures(contestant: str, direction: str, round_trip_ms: float) -> Iterator[Figure]:
    name, control = CONTESTANTS[contestant], f"{contestant}:{NONE}"
    shown: dict[str, Any] = {"unit": "ms", "scale": 1e3, "better": LOWER, "noise": control, "noise_absolute": True}
    yield Figure(f"{name}, nothing happens", "gap", control, **shown)
    for event, text in EVENTS.items():
        variant = f"{contestant}:{event}"
        limit = gaps.limit_ms(event, direction, round_trip_ms) if contestant == SERVAL else None
        aim, formula = (None, "") if limit is None else (limit[0], f" ({limit[1]})")
        yield Figure(f"{name}, {text}{formula}", "gap", variant, aim=aim, **shown)
        told = contestant == SERVAL and event == TOLD
        label, most = (" (1 bin)", gaps.BIN * 1e3) if told else ("", None)
        yield Figure(f"{name}, {text} adds{label}", "gap", variant, control, DIFFERENCE, aim=most, **shown)


def _benchmark(round_trip_ms: int, direction: str) -> Benchmark:
    there = contestants()
    missing = "" if len(there) > 1 else f"; no MPTCP: {mptcp_missing()}"
    towards = {DOWN: "towards the mover", UP: "from the mover"}[direction]
    comparisons = [
        Comparison(f"{contestant}:{event}", f"{contestant}:{NONE}") for contestant in there for event in (*EVENTS, NONE)
    ]
    return Benchmark(
        name=f"handover-{round_trip_ms}ms-{direction}",
        title="Largest receiver gap at a handover, {rate:g} Mbit/s " + f"{towards}, RTT {round_trip_ms} ms{missing}",
        comparisons=tuple(comparisons),
        figures=tuple(figure for contestant in there for figure in _figures(contestant, direction, round_trip_ms)),
        bed=bed,
        parameters={"rtt_ms": round_trip_ms, "direction": direction, "rate": 50.0},
        quick={"rate": 10.0},
        run_seconds=0.6 + 0.022 * round_trip_ms,
        setup_seconds=6.0,
        by_name=True,
    )


BENCHMARKS = tuple(_benchmark(rtt, direction) for rtt in ROUND_TRIPS_MS for direction in (DOWN, UP))
