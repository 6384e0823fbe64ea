"""sal0: the TUN device through which the kernel's transport meets the SAL.

Every packet is preceded by a 10-byte virtio-net header (the kernel's `struct virtio_net_hdr`, native byte order). With
offloads on, the kernel hands over TCP segments of up to 64 KB together with the size they are to be cut to, and takes
such segments back; their checksum is then partial (the pseudo header's sum only).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from serval_node.wire.ipv4 import Address

VNET_HEADER = struct.Struct("=BBHHHH")  # flags, gso type, header length, gso size, checksum start, checksum offset
VNET_HEADER_LENGTH = VNET_HEADER.size
NEEDS_CHECKSUM = 1
GSO_NONE = 0
GSO_TCPV4 = 1
PLAIN_VNET_HEADER = bytes(VNET_HEADER_LENGTH)

MAX_PACKET = 65535
DEFAULT_QUEUE_LENGTH = 500

_IFF_UP = 0x1
_IFF_RUNNING = 0x40
_IFF_TUN = 0x1
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUN_F_CSUM = 0x1
_TUN_F_TSO4 = 0x2
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_SIOCSIFMTU = 0x8922
_SIOCSIFTXQLEN = 0x8943


class TunError(RuntimeError):
    """The device could not be made; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class TunConfig:
    """What sal0 is to look like. `mtu` is the links' MTU minus the SAL header's 12 bytes; `queue_length` counts
    packets (each up to 64 KB with offloads) that wait between kernel and daemon."""

    address: Address
    prefix_length: int
    mtu: int
    name: str = "sal0"
    offload: bool = False
    queue_length: int = DEFAULT_QUEUE_LENGTH


class Tun:
    """An open, configured TUN device. It disappears when the last descriptor of it is closed."""

    def __init__(self, config: TunConfig) -> None:
        """Makes the device and brings it up. Raises TunError."""
        self.name = config.name
        self.offload = config.offload
        try:
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise TunError(f"cannot open /dev/net/tun: {error.strerror} (it needs root or a user namespace)") from error
        try:
            self._attach()
            self._configure(config)
        except OSError as error:
            os.close(self._fd)
            raise TunError(f"cannot set up {config.name}: {error.strerror}") from error

    def _attach(self) -> None:
        request = struct.pack("16sH22x", self.name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(self._fd, _TUNSETIFF, request)
        fcntl.ioctl(self._fd, _TUNSETOFFLOAD, _TUN_F_CSUM | _TUN_F_TSO4 if self.offload else 0)

    def _configure(self, config: TunConfig) -> None:
        name = config.name.encode()
        mask = (0xFFFFFFFF << (32 - config.prefix_length)) & 0xFFFFFFFF
        requests = [
            (_SIOCSIFADDR, _socket_address(config.address)),
            (_SIOCSIFNETMASK, _socket_address(mask.to_bytes(4, "big"))),
            (_SIOCSIFMTU, struct.pack("=i12x", config.mtu)),
        ]
        if config.queue_length != DEFAULT_QUEUE_LENGTH:
            # Needs root of the machine; in a user namespace the kernel's own length has to do: the default here.
            requests.append((_SIOCSIFTXQLEN, struct.pack("=i12x", config.queue_length)))
        requests.append((_SIOCSIFFLAGS, struct.pack("=H14x", _IFF_UP | _IFF_RUNNING)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, value in requests:
                fcntl.ioctl(control, request, struct.pack("16s16s8x", name, value))

    def fileno(self) -> int:
        return self._fd

    def write(self, packet: bytes | bytearray | memoryview) -> None:
        """Hands the kernel a complete IPv4 packet (checksums filled in). Raises OSError."""
        os.writev(self._fd, (PLAIN_VNET_HEADER, packet))

    def set_mtu(self, mtu: int) -> None:
        """Raises OSError."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", self.name.encode(), mtu))

    def kernel_drops(self) -> int:
        """Packets that the kernel threw away because the daemon did not fetch them in time (queue_length was full)."""
        try:
            with open("/proc/self/net/dev", encoding="ascii") as table:
                for line in table:
                    name, colon, figures = line.partition(":")
                    if colon and name.strip() == self.name:
                        return int(figures.split()[11])
        except OSError as error:
            if error.errno != errno.ENOENT:  # a host without /proc has no such figure
                raise
        return 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _socket_address(address: Address) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, address)
