"""`serval standby --service NAME -- COMMAND`: a program that is started when the controller asks for it.

Offered is this one command and nothing else; it is run here, by this process, as `serval run` runs it. When it ends it
is offered again. The offer ends with this process.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Collection, Sequence

from serval_node.cli.errors import CommandError
from serval_node.cli.run import NOT_FOUND, ServiceRun, run
from serval_node.control.local import Client, ControlError, ControlUnreachable

RETRY_SECONDS = 0.2


class _Signals:
    """Remembers whether this process was asked to end while its program ran: then it must not wait again."""

    def __init__(self) -> None:
        self.number: int | None = None

    def note(self, number: int) -> None:
        self.number = number


def standby(
    client: Client, service: str, main: int | None, command: Sequence[str], *, udp: Collection[int] = ()
) -> int:
    """Offer the command until a signal comes; raises CommandError for what can never work."""
    if shutil.which(command[0]) is None:
        raise CommandError(f"{command[0]}: no such program", NOT_FOUND)
    ServiceRun(client, service, main, udp)  # refuses what is no service's name
    while True:
        _wait_for_start(client.path, service)
        signals = _Signals()
        status = run(client, service, main, command, udp=udp, on_signal=signals.note)
        if signals.number is not None:
            return status
        # While nothing runs here, a signal ends the waiting.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _say(f"{command[0]} has ended with status {status}")


def _wait_for_start(path: str, service: str) -> None:
    """Offer, and come back when the program shall start; a node that goes away is waited for."""
    lost = False
    while True:
        try:
            with Client(path) as offer:
                reports = offer.stream("standby", service=service)
                _say(f"{service} waits to be started")
                lost = False
                order = next(reports, None)
                if order is not None:
                    _say(f"{service} is started {order.get('by', '')}".rstrip())
                    return
        except ControlUnreachable as error:
            if not lost:
                _say(f"{error}; waits for it")
            lost = True
        except ControlError as error:
            raise CommandError(str(error)) from None
        time.sleep(RETRY_SECONDS)


def _say(text: str) -> None:
    print(f"serval: {text}", file=sys.stderr, flush=True)
