"""Why there is no MPTCP, in words that say what to do."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from testbed.traffic import mptcp


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPROTONOSUPPORT, "kernel without MPTCP"),
        (errno.ENOPROTOOPT, "MPTCP is switched off: sysctl -w net.mptcp.enabled=1"),
        (errno.EPERM, "MPTCP: Operation not permitted"),
    ],
)
def test_what_is_missing_is_said(number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*wanted: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", refused)
    assert mptcp.missing() == words
