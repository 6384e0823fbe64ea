"""System calls that Python's own modules do not offer: sendmmsg, recvmmsg and writev by address (many packets in one
call), and timers that are descriptors (os.timerfd_create only came with Python 3.13).

The callers pass addresses of memory that they hold themselves for as long as they use it (numpy arrays laid out as
`struct mmsghdr` and `struct iovec` of 64-bit Linux); nothing here keeps a reference.
"""

from __future__ import annotations

import ctypes
import os
import time

MSG_DONTWAIT = 0x40
MSG_TRUNC = 0x20

MMSGHDR_WORDS = 8  # 64 bytes: the fields below are 8-byte words of struct mmsghdr
MSG_NAME, MSG_NAMELEN, MSG_IOV, MSG_IOVLEN, MSG_CONTROL, MSG_CONTROLLEN, MSG_LEN = 0, 1, 2, 3, 4, 5, 7
IOVEC_WORDS = 2  # address, length

_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg = _libc.sendmmsg
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
_recvmmsg = _libc.recvmmsg
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
_writev = _libc.writev
_writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
_writev.restype = ctypes.c_ssize_t
_timerfd_create = _libc.timerfd_create
_timerfd_create.argtypes = [ctypes.c_int, ctypes.c_int]
_timerfd_settime = _libc.timerfd_settime
_timerfd_settime.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_TFD_TIMER_ABSTIME = 1


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


class TimerDescriptor:
    """A one-shot timer on the monotonic clock: its descriptor is readable from the time on that was set."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._fd = _timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._value = (ctypes.c_int64 * 4)()  # struct itimerspec: interval, first; seconds and nanoseconds each
        self._address = ctypes.addressof(self._value)

    def fileno(self) -> int:
        return self._fd

    def set(self, when: float) -> None:
        """Replaces the time that was set; one that is over makes the descriptor readable at once."""
        nanoseconds = max(1, int(when * 1e9))  # 0 would stop the timer
        self._value[2], self._value[3] = divmod(nanoseconds, 1_000_000_000)
        _timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._address, None)

    def acknowledge(self) -> None:
        """The descriptor is not readable any more."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            pass  # it was set again in the meantime

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
