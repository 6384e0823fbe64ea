"""What this host sends inside UDP: from its configuration and by `serval encapsulation`, and the sockets for it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

from serval_node.io.raw_ip import RawIp
from serval_node.io.udp_encap import UdpEncapsulation
from serval_node.sal.encapsulation import Choices, Encapsulation, Network
from serval_node.wire.encapsulation import PORTS
from serval_node.wire.ipv4 import address_text

MODES = tuple(mode.value for mode in Encapsulation)
DEFAULT = "default"
"""In place of a mode for a network: what is chosen for everybody holds there again."""


def network(text: str) -> Network:
    """An address or a network, "10.0.1.1" or "10.0.0.0/8". Raises ValueError."""
    try:
        found = IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no IPv4 address or network: {error}") from None
    return Network(found.network_address.packed, found.prefixlen)


def choices(default: str, networks: Mapping[str, str]) -> Choices:
    """Raises ValueError."""
    return Choices(mode(default), {network(text): mode(chosen) for text, chosen in networks.items()})


def mode(text: str) -> Encapsulation:
    """Raises ValueError."""
    if text not in MODES:
        raise ValueError(f"encapsulation is one of {', '.join(MODES)}, not {text!r}")
    return Encapsulation(text)


def choose(made: Choices, text: str, peer: str | None) -> None:
    """Change what is chosen, for everybody or for a network of peers. Raises ValueError."""
    if peer is None:
        made.default = mode(text)
    elif text == DEFAULT:
        if made.networks.pop(network(peer), None) is None:
            raise ValueError(f"nothing is chosen for {peer}")
    else:
        made.networks[network(peer)] = mode(text)
    made.forget()


def view(made: Choices, now: float) -> dict[str, Any]:
    """For `serval encapsulation`."""
    return {
        "mode": made.default.value,
        "peers": {f"{address_text(net.address)}/{net.bits}": chosen.value for net, chosen in made.networks.items()},
        "learned": [address_text(peer) for peer in made.learned(now)],
    }


def open_sockets(raw: RawIp, made: Choices, *, join: bool, warnings: list[str]) -> UdpEncapsulation | None:
    """The sockets; None, with a warning, when a port is another program's: then nothing goes inside UDP."""
    try:
        return UdpEncapsulation(raw, join=join)
    except OSError as error:
        ports = " and ".join(map(str, PORTS))
        warnings.append(f"UDP ports {ports} cannot be opened, so there is no encapsulation: {error.strerror}")
        made.default = Encapsulation.RAW
        made.networks.clear()
        return None
