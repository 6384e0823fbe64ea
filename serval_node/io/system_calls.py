"""sendmmsg, recvmmsg and writev by address: many packets in one system call, which Python's own modules do not offer.

The callers pass addresses of memory that they hold themselves for as long as they use it (numpy arrays laid out as
`struct mmsghdr` and `struct iovec` of 64-bit Linux); nothing here keeps a reference.
"""

from __future__ import annotations

import ctypes

MSG_DONTWAIT = 0x40
MSG_TRUNC = 0x20

MMSGHDR_WORDS = 8  # 64 bytes: the fields below are 8-byte words of struct mmsghdr
MSG_NAME, MSG_NAMELEN, MSG_IOV, MSG_IOVLEN, MSG_LEN = 0, 1, 2, 3, 7
IOVEC_WORDS = 2  # address, length

_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_writev = _libc.writev
_writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
_writev.restype = ctypes.c_ssize_t


def sendmmsg(fd: int, messages: int, count: int) -> int:
    """Sends `count` messages of the array at address `messages` without waiting: the number sent, or minus errno."""
    sent: int = _sendmmsg(fd, messages, count, MSG_DONTWAIT)
    return sent if sent >= 0 else -ctypes.get_errno()


def recvmmsg(fd: int, messages: int, count: int) -> int:
    """Receives up to `count` messages without waiting: the number received, or minus errno. MSG_LEN is each
    packet's own length, also where the buffer was shorter."""
    received: int = _recvmmsg(fd, messages, count, MSG_DONTWAIT | MSG_TRUNC, None)
    return received if received >= 0 else -ctypes.get_errno()


def writev(fd: int, vectors: int, count: int) -> int:
    """Writes `count` vectors of the array at address `vectors`: the number of bytes, or minus errno."""
    written: int = _writev(fd, vectors, count)
    return written if written >= 0 else -ctypes.get_errno()
