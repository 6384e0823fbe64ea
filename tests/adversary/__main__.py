"""Sends one attack from the host where it runs. It needs raw sockets, and a network that may be attacked: use the
testbed's own. The target's `serval stat` counts what it refused.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import time

from serval_node.control.local import Client, ControlError
from serval_node.wire.ipv4 import address, address_text
from serval_node.wire.serviceid import ServiceID
from tests.adversary.attacks import ATTACKS, Aim


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.adversary",
        description=__doc__,
        epilog="Attacks: " + "; ".join(f"{name}: {attack.about}" for name, attack in ATTACKS.items()),
    )
    parser.add_argument("attack", choices=ATTACKS, metavar="ATTACK", help="one of those below")
    parser.add_argument("target", type=_address, metavar="ADDRESS", help="the host under attack")
    parser.add_argument(
        "--service", type=_service, metavar="NAME", help="a service's name, if this host has a node, or 0x..."
    )
    parser.add_argument(
        "--source", type=_address, metavar="ADDRESS", help="what all packets claim to come from (default: 10.66.x.y)"
    )
    parser.add_argument(
        "--flows", type=_flows, default=(0, 0), metavar="A:B", help="the imitated end's flowID and its peer's (guessed)"
    )
    parser.add_argument("--nonce", type=bytes.fromhex, default=b"", metavar="HEX", help="the imitated end's (guessed)")
    parser.add_argument("--verno", type=int, default=0, metavar="N", help="number in CONTROL, with --nonce")
    parser.add_argument("--tcp", type=_flows, default=(0, 0), metavar="SEQ:ACK", help="numbers of data's segment")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="packets (default %(default)s)")
    parser.add_argument("--rate", type=float, default=2000.0, metavar="N", help="per second (default %(default)g)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of everything that is guessed")
    options = parser.parse_args(words)
    if ATTACKS[options.attack].needs_service and options.service is None:
        parser.error(f"{options.attack} needs --service")
    if options.rate <= 0 or options.count < 0:
        parser.error("--rate and --count must be positive")
    (src_flow, dst_flow), (seq, ack) = options.flows, options.tcp
    aim = Aim(
        options.target, options.source, options.service, src_flow, dst_flow, options.nonce, options.verno, seq, ack
    )
    seconds = send(options.attack, aim, options.count, options.rate, random.Random(options.seed))
    print(f"{options.attack}: {options.count} packets to {address_text(options.target)} in {seconds:.2f} s")
    refused = ATTACKS[options.attack].refused
    print(f"serval stat there counts: {', '.join(refused)}" if refused else "they are served as any other")
    return 0


def send(name: str, aim: Aim, count: int, rate: float, rng: random.Random) -> float:
    """Send so many packets, no faster than ``rate`` per second; the seconds that it took."""
    make, target = ATTACKS[name].make, (address_text(aim.target), 0)
    start = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            ahead = start + number / rate - time.monotonic()
            if ahead > 0.001:
                time.sleep(ahead)
            raw.sendto(make(aim, rng), target)
    return time.monotonic() - start


def _address(text: str) -> bytes:
    try:
        return address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _flows(text: str) -> tuple[int, int]:
    first, _, second = text.partition(":")
    return int(first), int(second)


def _service(text: str) -> ServiceID:
    if not text.startswith("0x"):
        try:
            with Client() as client:
                text = client.request("resolve", service=text)["prefix"].partition("/")[0]
        except ControlError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    try:
        return ServiceID.from_hex(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
