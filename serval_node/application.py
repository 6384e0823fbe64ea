"""What the sockets of `serval_node.socket` ask of the host's node, and how they write services and errors."""

from __future__ import annotations

import errno
import ipaddress
import os
import threading
from typing import Any

from serval_node.control.local import CONTROL_PATH, Client, ControlError, ControlUnreachable
from serval_node.wire.serviceid import Prefix, ServiceID

Service = str | tuple[str, int] | ServiceID | Prefix

SAL0_ADDRESS = "198.18.0.1"
_VIRTUAL = ipaddress.IPv4Network("198.18.0.0/16")
_REASONS = {
    errno.ENETUNREACH: "no rule of this host leads to {0}, or no route to where it leads (serval explain {0})",
    errno.EHOSTUNREACH: "this host refuses {}: a DROP rule, or a wait under DELAY that ended without another rule",
    errno.ECONNREFUSED: "nobody serves {}",
    errno.ETIMEDOUT: "no answer from {}",
}


class Node:
    """This process's connection to servald, made anew after fork and after a restart of the daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._pid = 0

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request. Raises OSError: refused (EINVAL, with the daemon's reason), or no daemon (ENOTCONN)."""
        with self._lock:
            known = self._usable()
            try:
                try:
                    return self._connected().request(op, **fields)
                except ControlUnreachable:
                    if not known:
                        raise
                    return self._connected().request(op, **fields)  # the daemon may have been restarted
            except ControlUnreachable as error:
                raise OSError(errno.ENOTCONN, str(error)) from None
            except ControlError as error:
                raise OSError(errno.EINVAL, str(error)) from None

    def _connected(self) -> Client:
        if self._client is None or not self._usable():
            self._client = Client(_control_path())
            self._pid = os.getpid()
        return self._client

    def _usable(self) -> bool:
        return self._client is not None and self._pid == os.getpid() and self._client.path == _control_path()


def _control_path() -> str:
    return os.environ.get("SERVAL_CONTROL", CONTROL_PATH)


node = Node()


def by_name(error: OSError, service: Any) -> OSError:
    """An error of connect() that speaks of the service and not of a virtual address."""
    reason = _REASONS.get(error.errno or 0)
    return error if reason is None else OSError(error.errno, reason.format(service_text(service)))


def service_text(service: Any) -> str:
    """A service as the control socket spells it. Raises OSError (EINVAL)."""
    if isinstance(service, ServiceID):
        return "0x" + service.hex()
    if isinstance(service, (str, Prefix)):
        return str(service)
    if isinstance(service, tuple) and len(service) == 2 and isinstance(service[0], str) and isinstance(service[1], int):
        return f"{service[0]}:{service[1]}" if service[1] else service[0]
    raise OSError(errno.EINVAL, f"a service is a name, (name, port), a ServiceID or a Prefix, not {service!r}")


def is_virtual(address: Any) -> bool:
    if not isinstance(address, tuple) or not isinstance(address[0], str):
        return False
    try:
        return ipaddress.IPv4Address(address[0]) in _VIRTUAL
    except ipaddress.AddressValueError:
        return False


def pair(service: Any) -> tuple[str, int]:
    if service is None:
        return "", 0
    if isinstance(service, tuple):
        return service
    if isinstance(service, str):
        name, colon, port = service.rpartition(":")
        return (name, int(port)) if colon and port.isdigit() else (service, 0)
    return (str(service), 0)
