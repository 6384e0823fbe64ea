"""Kernel MPTCP: whether it is there, and when a connection has its second path (linux/mptcp.h)."""

from __future__ import annotations

import errno
import socket
import sys
import time

IPPROTO_MPTCP = 262
SUBFLOW_SECONDS = 5.0
POLL_SECONDS = 0.002
_SOL_MPTCP, _MPTCP_INFO = 284, 1
_WHY = {
    errno.EPROTONOSUPPORT: "kernel without MPTCP",
    errno.ENOPROTOOPT: "MPTCP is switched off: sysctl -w net.mptcp.enabled=1",
}
"""What socket() fails with where it is not there, and where it is switched off in this namespace."""
_FLAGS_AT, _FALLBACK = 8, 1  # in struct mptcp_info: mptcpi_flags, after eight single bytes


def missing() -> str | None:
    """Why there is no MPTCP here; None where there is."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError as error:
        return _WHY.get(error.errno or 0, f"MPTCP: {error.strerror}")
    return None


def await_subflow(connection: socket.socket) -> None:
    """Wait until MPTCP has its second path. Raises OSError when it fell back to TCP, or nothing joins."""
    deadline = time.monotonic() + SUBFLOW_SECONDS
    while True:
        info = connection.getsockopt(_SOL_MPTCP, _MPTCP_INFO, 64)
        if int.from_bytes(info[_FLAGS_AT : _FLAGS_AT + 4], sys.byteorder) & _FALLBACK:
            raise OSError("MPTCP fell back to TCP")
        if info[0] >= 1:  # mptcpi_subflows: those beside the first
            return
        if time.monotonic() > deadline:
            raise OSError(f"MPTCP had no second subflow within {SUBFLOW_SECONDS:g} s")
        time.sleep(POLL_SECONDS)
