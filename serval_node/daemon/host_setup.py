"""Settings of the host's network namespace, and sal0. Nothing outside the namespace is touched."""

from __future__ import annotations

import os

from serval_node.daemon.namespace import set_sysctl
from serval_node.daemon.routes import pin_congestion_control, raise_loopback
from serval_node.daemon.virtual_addresses import NAME_NETWORK, SAL0_ADDRESS, SAL0_PREFIX_BITS
from serval_node.io.tun import Tun, TunConfig
from serval_node.wire.sal_header import BARE_LENGTH

# Packets of one flow may come in over another link than the one that the route back takes, and reverse path
# filters would drop them. The kernel takes the larger of "all" and the interface's own value.
_SETTINGS = (("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0"))
_SAL0_SETTINGS = (
    ("net/ipv4/conf/sal0/rp_filter", "0"),
    # SYNs for listeners on 127.0.0.1 go there through sal0.
    ("net/ipv4/conf/sal0/route_localnet", "1"),
)
_NO_IPV6 = "net/ipv6/conf/sal0/disable_ipv6"


def prepare_host() -> None:
    """Set what must hold before any packet comes; raises NamespaceError or OSError."""
    raise_loopback()
    for name, value in _SETTINGS:
        set_sysctl(name, value)
    for interface in os.listdir("/proc/sys/net/ipv4/conf"):
        set_sysctl(f"net/ipv4/conf/{interface}/rp_filter", "0")


def open_sal0(link_mtu: int, offload: bool, congestion: str | None, warnings: list[str]) -> Tun:
    """Make sal0 and its settings. What is missing but can be done without is added to `warnings`.

    Raises TunError, NamespaceError.
    """
    tun = Tun(
        TunConfig(address=SAL0_ADDRESS, prefix_length=SAL0_PREFIX_BITS, mtu=link_mtu - BARE_LENGTH, offload=offload)
    )
    try:
        for name, value in _SAL0_SETTINGS:
            set_sysctl(name, value)
        if os.path.exists(f"/proc/sys/{_NO_IPV6}"):
            set_sysctl(_NO_IPV6, "1")  # no neighbour discovery into a device that carries IPv4 only
        if congestion is not None:
            _pin(congestion, warnings)
    except BaseException:
        tun.close()
        raise
    return tun


def _pin(congestion: str, warnings: list[str]) -> None:
    try:
        pin_congestion_control("sal0", NAME_NETWORK + bytes(2), SAL0_PREFIX_BITS, SAL0_ADDRESS, congestion)
    except OSError as error:
        warnings.append(f"congestion control {congestion} cannot be pinned on sal0: {error.strerror}")
