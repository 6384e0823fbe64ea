"""The kernel's shaper and netem: the commands that tc is told, and how what it shows is read. Pure.

    5: htb, one class 5:1 with the rate, and below it     the queue, 6: bfifo, in bytes
                                                       or 7: netem, where the kernel delays and loses
    7: netem alone on a link without a rate

Offloaded segments make packets a bad measure of a queue, so it is counted in bytes; netem counts packets only, those
that are under way and those that wait together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from testbed.errors import TestbedError
from testbed.link.shape import FRAME_BYTES, Shape

QUANTUM_BYTES = 10 * FRAME_BYTES
TOLERANCE = 0.001
"""Share by which a rate that is shown may differ from the one that was asked for: tc rounds."""
LIMIT_TOLERANCE = 1 << 10  # bytes: tc shows whole kilobytes
TIME_TOLERANCE = 2e-6
LOSS_TOLERANCE = 0.01
UNSHAPED_MBIT = 1000.0  # what netem's memory is made for where no rate is asked for
NETEM_PACKETS = 1000
_RATE = re.compile(r"\brate (\d+(?:\.\d+)?)([KMGT]?)bit\b.* burst (\d+)([KM]?)b\b")
_BFIFO = re.compile(r"qdisc bfifo 6: .*\blimit (\d+)([KM]?)b\b")
_NETEM = re.compile(r"qdisc netem 7: .*\blimit (\d+)\b(.*)")
_NETEM_DELAY = re.compile(r"\bdelay (\d+(?:\.\d+)?)(us|ms|s)\b(?:\s+(\d+(?:\.\d+)?)(us|ms|s)\b)?")
_NETEM_LOSS = re.compile(r"\bloss (\d+(?:\.\d+)?)%")
_SCALE = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class Achieved:
    """What tc says that an interface has: rate in bit/s, burst in bytes."""

    rate: float
    burst: int


def parse_class(text: str) -> Achieved:
    """Read `tc class show` of an interface with one HTB class; raises TestbedError."""
    match = _RATE.search(text)
    if match is None or "htb" not in text:
        raise TestbedError(f"no HTB class in what tc shows: {text.strip() or 'nothing'}")
    return Achieved(float(match[1]) * _SCALE[match[2]], int(match[3]) * _BINARY[match[4]])


def rate_lines(interface: str, shape: Shape, *, netem: bool = False) -> list[str]:
    """The tc commands that give an interface without a shaper its rate and its queue, or netem below it."""
    return [f"tc qdisc replace dev {interface} root handle 5: htb default 1", *_class_lines(interface, shape, netem)]


def lines(interface: str, shape: Shape, *, netem: bool) -> list[str]:
    """The commands for an interface without a shaper; `netem`: the kernel delays and loses too."""
    if shape.rate is not None:
        return rate_lines(interface, shape, netem=netem)
    if netem and shape.impaired:
        return [f"tc qdisc replace dev {interface} root handle 7: {_netem(shape)}"]
    return []


def change_lines(interface: str, before: Shape, after: Shape, *, netem: bool) -> list[str]:
    """The commands that make one shape of another. What waits or is under way stays, unless the rate comes or goes."""
    if before.rate is not None and after.rate is not None:
        return _class_lines(interface, after, netem)
    there = before.rate is not None or (netem and before.impaired)
    stays = before.rate is None and after.rate is None and after.impaired
    removal = [f"tc qdisc del dev {interface} root"] if there and not stays else []
    return [*removal, *lines(interface, after, netem=netem)]


def show_lines(interface: str) -> list[str]:
    """The commands whose output `check` reads."""
    return [f"tc class show dev {interface}", f"tc qdisc show dev {interface}"]


def check(shown: str, shape: Shape, *, netem: bool) -> None:
    """Compare what tc shows with what was asked for; raises TestbedError that says what differs."""
    if shape.rate is None:
        if "htb" in shown:
            raise TestbedError("asked for no rate, tc shows a shaper")
    else:
        achieved = parse_class(shown)
        if abs(achieved.rate / (shape.rate * 1e6) - 1) > TOLERANCE:
            raise TestbedError(f"asked for {shape.rate:g} Mbit/s, tc shows {achieved.rate / 1e6:g} Mbit/s")
    if netem and shape.impaired:
        _check_netem(shown, shape)
    elif shape.rate is not None:
        match = _BFIFO.search(shown)
        limit = 0 if match is None else int(match[1]) * _BINARY[match[2]]
        if abs(limit - shape.queue_bytes) > LIMIT_TOLERANCE:
            raise TestbedError(f"asked for a queue of {shape.queue_bytes} bytes, tc shows {limit or 'none'}")


def _check_netem(shown: str, shape: Shape) -> None:
    match = _NETEM.search(shown)
    if match is None:
        raise TestbedError(f"no netem in what tc shows: {shown.strip() or 'nothing'}")
    times, loss = _NETEM_DELAY.search(match[2]), _NETEM_LOSS.search(match[2])
    delay = 0.0 if times is None else float(times[1]) * _TIMES[times[2]]
    jitter = 0.0 if times is None or times[3] is None else float(times[3]) * _TIMES[times[4]]
    shown_loss = 0.0 if loss is None else float(loss[1])
    for what, asked, got, slack in (
        ("delay", shape.delay, delay, TIME_TOLERANCE + TOLERANCE * shape.delay),
        ("jitter", shape.jitter, jitter, TIME_TOLERANCE + TOLERANCE * shape.jitter),
        ("loss", 100.0 if shape.hole else shape.loss, shown_loss, LOSS_TOLERANCE),
    ):
        if abs(asked - got) > slack:
            raise TestbedError(f"asked netem for a {what} of {asked:g}, tc shows {got:g}")


def _class_lines(interface: str, shape: Shape, netem: bool) -> list[str]:
    # Another kind of queue has another handle: with the same one the kernel refuses to put it in place of the first.
    leaf = f"7: {_netem(shape)}" if netem and shape.impaired else f"6: bfifo limit {shape.queue_bytes}"
    return [
        f"tc class replace dev {interface} parent 5: classid 5:1 htb rate {round((shape.rate or 0) * 1e6)}bit"
        f" burst {shape.burst} cburst {shape.burst} quantum {QUANTUM_BYTES}",
        f"tc qdisc replace dev {interface} parent 5:1 handle {leaf}",
    ]


def _netem(shape: Shape) -> str:
    under_way = (shape.rate or UNSHAPED_MBIT) * 1e6 / 8 * (shape.delay + shape.jitter) / FRAME_BYTES
    waiting = NETEM_PACKETS if shape.rate is None else max(1, round(shape.queue_bytes / FRAME_BYTES))
    delay = f" delay {shape.delay * 1e6:.0f}us" if shape.delay else ""
    jitter = f" {shape.jitter * 1e6:.0f}us" if shape.jitter else ""
    loss = 100.0 if shape.hole else shape.loss
    return f"netem limit {round(under_way) + waiting}{delay}{jitter}" + (f" loss {loss:g}%" if loss else "")
