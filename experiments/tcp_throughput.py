"""E4: one connection as fast as it goes, kernel TCP beside Serval (slide 48): python -m experiments.tcp_throughput."""

from __future__ import annotations

from collections.abc import Mapping

from testbed.experiment.command import main
from testbed.experiment.record import RunRecord
from testbed.experiment.specification import (
    EVERY,
    HIGHER,
    LOWER,
    MPTCP,
    SERVAL,
    SERVAL_UDP,
    TCP,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Reference,
    Scene,
)
from testbed.experiment.traffic import UP, Stream
from testbed.report.plots import Bars, TimeSeries

SETTLE = 1.0
MTU, ETHERNET = 1500, 14
HEADERS = {TCP: 20 + 20 + 12, SERVAL: 20 + 12 + 20 + 12, SERVAL_UDP: 20 + 8 + 12 + 20 + 12}
"""Of a full packet, in bytes: IPv4, UDP, SAL, TCP, TCP's time stamps."""
SHAPED, SLOW, UNSHAPED = 1000.0, 200.0, 10000.0


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    return Scene(
        topology="two-hosts",
        options={"rate": values["rate"]},
        traffic=(Stream(name="bulk", source="ann", target="dan", service="bulk-stream.example", direction=UP),),
        seconds=values["seconds"],
        calibrate=(("ann", "dan"),),
    )


def goodput(run: RunRecord) -> float:
    """bit/s that the receiver got once the stream has settled."""
    return run.bits_per_second("bulk", SETTLE, run.seconds)


def share(run: RunRecord) -> float | None:
    """Goodput as part of what the link leaves to this transport: its rate x payload / frame of a full packet.

    None for MPTCP, whose options differ in length from packet to packet.
    """
    transport = {"tcp": TCP, "serval": SERVAL, "serval-udp": SERVAL_UDP}.get(run.contender)
    if transport is None:
        return None
    return goodput(run) / (run.point["rate"] * 1e6 * (MTU - HEADERS[transport]) / (MTU + ETHERNET))


def busiest(run: RunRecord) -> float | None:
    """Share of the run in which the busiest core was busy."""
    return max(run.data["fidelity"].get("cores") or [], default=None)


def whole(run: RunRecord) -> float:
    """1 when every byte was the one that was sent and the stream lived to its end."""
    flow = run.traffic("bulk")
    return float(flow["intact"] and flow["broken"] is None)


EXPERIMENT = Experiment(
    name="tcp_throughput",
    title="Goodput of one connection",
    description="""
One connection sends as fast as it goes for some seconds over one link, and every byte is compared. On a link that is
slower than the machine all come near to what the link leaves them: Serval's header takes 12 bytes of each packet, UDP
another 8, so their bound is 0.8 and 1.4 % below TCP's. The slide's two rows differ by 0.07 %. At 10 Gbit/s no link
stands in the way but the processor does: that is the CPU-bound ratio, and the busiest core says so.
""".strip(),
    source="slide 48",
    statements=("E4",),
    contenders=(
        Contender(name="tcp", label="kernel TCP", transport=TCP),
        Contender(name="serval-udp", label="Serval inside UDP", transport=SERVAL_UDP),
        Contender(name="serval", label="Serval", transport=SERVAL),
        Contender(name="mptcp", label="MPTCP, one path", transport=MPTCP),
    ),
    scene=scene,
    parameters={
        "rate": Parameter(SHAPED, "Mbit/s", "rate of the link", low=1, high=40000),
        "seconds": Parameter(6.0, "s", "how long data flows", low=SETTLE + 0.5, high=600, quick=2.0),
    },
    points=({"rate": SHAPED}, {"rate": SLOW}, {"rate": UNSHAPED}),
    quick_points=({"rate": SLOW},),
    against="tcp",
    metrics=(
        Metric(name="goodput", label="goodput", compute=goodput, unit="Mbit/s", scale=1e-6, better=HIGHER, matters=5.0),
        Metric(name="share", label="part of what the link leaves", compute=share, unit="%", scale=100, matters=1.0),
        Metric(name="busiest", label="busiest core", compute=busiest, unit="%", scale=100, better=LOWER, matters=5.0),
        Metric(name="whole", label="every byte right", compute=whole),
    ),
    acceptance=(
        Acceptance(
            text="inside UDP, on a link slower than the machine: TCP's goodput less the headers and 1 %",
            metric="goodput",
            contender="serval-udp",
            at_least=0.976,
            times_of="tcp",
            point={"rate": SLOW},
        ),
        Acceptance(
            text="raw, on a link slower than the machine: TCP's goodput less the header and 1 %",
            metric="goodput",
            contender="serval",
            at_least=0.982,
            times_of="tcp",
            point={"rate": SLOW},
        ),
        Acceptance(text="no byte is wrong", metric="whole", contender="serval", at_least=1, over=EVERY),
        Acceptance(text="no byte is wrong", metric="whole", contender="serval-udp", at_least=1, over=EVERY),
    ),
    plots=(
        Bars(
            name="goodput",
            title="Goodput at 1 Gbit/s",
            caption="What the receiver got from the second second on. The slide's bars are of its authors' machines.",
            metric="goodput",
            point={"rate": SHAPED},
            references={"tcp": Reference(934.5, "slide 48"), "serval": Reference(933.8, "slide 48")},
        ),
        Bars(
            name="share",
            title="Goodput as part of what the link leaves",
            caption="100 % is the rate of the link x payload / frame of a full packet, for each transport its own."
            " At 10 Gbit/s the processor is the limit.",
            metric="share",
        ),
        Bars(
            name="busiest", title="The busiest core", caption="Near 100 % the link is not the limit.", metric="busiest"
        ),
        TimeSeries(name="over-time", title="Goodput over time at 1 Gbit/s", point={"rate": SHAPED}, every=True),
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
