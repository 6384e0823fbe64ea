"""What happens to a host's network in a benchmark: `python -m experiments.benchmarks.trigger PATH` takes orders there.

It runs inside the host, has its sockets open and its messages made before anything happens, and then does one system
call: no program's start lies between the time that it tells and the event. Answers: {"at": monotonic seconds of the
moment before that call}.

    link     interface, up          an interface up or down; the carrier of its other end follows
    hole     table                  its default route swallows everything, silently
    backup   ids                    MPTCP: the endpoint of the first id becomes a backup, that of the second none
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic.mptcp import MPTCP_GENL_NAME, MPTCP_PM_CMD_SET_FLAGS, mptcp_msg

from testbed.traffic.orders import serve_orders

_SUBFLOW, _BACKUP, _NESTED = 0x2, 0x4, 0x8000  # linux/mptcp.h, linux/netlink.h
_VERSION = 1


class Trigger:
    """The operations, with everything open that they need."""

    def __init__(self) -> None:
        self._route = IPRoute()
        self._indexes = {link.get_attr("IFLA_IFNAME"): link["index"] for link in self._route.get_links()}
        self._mptcp: Any = None

    def link(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        index, state = self._indexes[order["interface"]], "up" if order["up"] else "down"
        return _timed(lambda: self._route.link("set", index=index, state=state))

    def hole(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        table = order["table"]
        return _timed(lambda: self._route.route("replace", dst="0.0.0.0/0", type="blackhole", table=table))

    def backup(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        if self._mptcp is None:
            self._mptcp = GenericNetlinkSocket()
            self._mptcp.bind(MPTCP_GENL_NAME, mptcp_msg)
        used, backup = order["ids"][1], order["ids"][0]
        requests = [self._flags(used, _SUBFLOW), self._flags(backup, _SUBFLOW | _BACKUP)]

        def change() -> None:
            for request in requests:
                self._mptcp.nlm_request(request, msg_type=self._mptcp.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)

        return _timed(change)

    def ready(self, _order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        return _timed(lambda: None)

    @staticmethod
    def _flags(number: int, flags: int) -> Any:
        message = mptcp_msg()
        message["cmd"], message["version"] = MPTCP_PM_CMD_SET_FLAGS, _VERSION
        # Without a family the endpoint is looked up by its id.
        address = {"attrs": [("MPTCP_PM_ADDR_ATTR_ID", number), ("MPTCP_PM_ADDR_ATTR_FLAGS", flags)]}
        message["attrs"] = [("MPTCP_PM_ATTR_ADDR", address, _NESTED)]
        return message


def _timed(call: Callable[[], Any]) -> dict[str, Any]:
    at = time.monotonic()
    try:
        call()
    except Exception as error:  # pyroute2 has a family of its own; the other end wants one line
        raise OSError(str(error)) from error
    return {"at": at, "seconds": time.monotonic() - at}


def main() -> None:
    (path,) = sys.argv[1:]
    trigger = Trigger()
    serve_orders(path, {name: getattr(trigger, name) for name in ("link", "hole", "backup", "ready")})


if __name__ == "__main__":
    main()
