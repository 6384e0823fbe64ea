"""What the kernel must be told about sal0 beyond its address: congestion control by route attribute, and
loopback up.

In a network namespace the sysctl refuses congestion controls that the first namespace does not allow to
everyone; the route attribute takes any that the kernel has (docs/architecture.md). It holds for connections of
both directions over the route.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_RTM_NEWROUTE = 24
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400
_RT_TABLE_MAIN, _RTPROT_KERNEL, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 2, 253, 1
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_METRICS = 1, 4, 7, 8
_RTAX_CC_ALGO = 16
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_RTMSG = struct.Struct("=BBBBBBBBI")
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1


def pin_congestion_control(device: str, network: bytes, bits: int, source: bytes, algorithm: str) -> None:
    """Replace the connected route of `device` by one that names `algorithm`; raises OSError (ENOENT: unknown to
    the kernel).
    """
    metrics = _attribute(_RTAX_CC_ALGO, algorithm.encode() + b"\0")
    body = _RTMSG.pack(socket.AF_INET, bits, 0, 0, _RT_TABLE_MAIN, _RTPROT_KERNEL, _RT_SCOPE_LINK, _RTN_UNICAST, 0)
    body += _attribute(_RTA_DST, network) + _attribute(_RTA_PREFSRC, source)
    body += _attribute(_RTA_OIF, struct.pack("=I", socket.if_nametoindex(device)))
    body += _attribute(_RTA_METRICS, metrics)
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_REPLACE | _NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.send(_HEADER.pack(_HEADER.size + len(body), _RTM_NEWROUTE, flags, 1, 0) + body)
        answer = netlink.recv(4096)
    kind = _HEADER.unpack_from(answer)[1]
    number = -struct.unpack_from("=i", answer, _HEADER.size)[0] if kind == _NLMSG_ERROR else 0
    if number:
        raise OSError(number, os.strerror(number))


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def raise_loopback() -> None:
    """Bring lo up: the name server's address and connections to services of the own host need it. Raises
    OSError.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
        if not flags & _IFF_UP:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
