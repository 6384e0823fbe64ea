"""`serval run --service NAME -- COMMAND`: an unmodified server becomes an instance of a service.

The command's process tree is followed: `serval run` is its subreaper, asks servald every POLL_SECONDS
which sockets of
this host listen, and looks in /proc for those that the tree holds. It only says what begins; that a rule ends
with its socket is servald's business, so rules stay right when `serval run` itself is killed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from serval_node.cli.errors import CommandError
from serval_node.cli.process_tree import become_subreaper, descendants, held
from serval_node.cli.run_plan import TCP, UDP, Listener, Part, Step, plan, steps
from serval_node.control.local import Client, ControlError, ControlUnreachable

# From listen() to the DEMUX rule: at most POLL_SECONDS while a command starts, SETTLED_POLL_SECONDS when
# nothing has changed for SETTLED_AFTER_SECONDS.
POLL_SECONDS = 0.05
SETTLED_POLL_SECONDS = 0.2
SETTLED_AFTER_SECONDS = 10.0
# A socket that the tree does not hold when it is first seen listening can only come into it by descriptor
# passing.
RESCAN_SECONDS = 1.0

NOT_FOUND = 127
NOT_EXECUTABLE = 126


class ServiceRun:
    """Keeps the bindings of one process tree as its listening sockets want them."""

    def __init__(self, client: Client, service: str, main: int | None, udp: Collection[int] = ()) -> None:
        """`udp` are the UDP ports that are the service's.

        Raises CommandError when servald does not answer or refuses the service's name.
        """
        self._client = client
        self._service = service
        self._main = main
        self._udp = frozenset(udp)
        self._bound: dict[Part, frozenset[int]] = {}
        self._mine: set[int] = set()
        self._foreign: set[int] = set()
        self._scanned = 0.0
        self._changed = time.monotonic()
        self._refused: set[tuple[Part, tuple[int, ...]]] = set()
        self._boot = ""
        self._lost = False
        try:
            name = client.request("resolve", service=service)
        except ControlError as error:
            raise CommandError(str(error)) from None
        if name["bits"] != name["name_bits"]:
            raise CommandError(f"{service}: --service takes a name without a port; its ports come from the command")

    @property
    def pause(self) -> float:
        """Seconds until the next poll is due."""
        settled = time.monotonic() - self._changed > SETTLED_AFTER_SECONDS
        return SETTLED_POLL_SECONDS if settled else POLL_SECONDS

    def poll(self) -> None:
        """Ask for the host's listening sockets and bind those of the tree; a lost daemon is reported once."""
        try:
            answer = self._client.request("listeners", **({"udp": True} if self._udp else {}))
            if self._lost:
                self._lost = False
                _warn("servald is back")
            self._follow(answer)
        except ControlUnreachable as error:
            if not self._lost:
                _warn(f"{error}; waiting for it")
            self._lost = True

    def _follow(self, answer: dict[str, Any]) -> None:
        if answer["boot"] != self._boot:
            self._boot = answer["boot"]
            self._bound.clear()
        ports = {
            row["inode"]: (row["protocol"], row["port"])
            for row in answer["listeners"]
            if row["protocol"] == TCP or row["port"] in self._udp
        }
        self._mine &= ports.keys()
        self._foreign &= ports.keys()
        unknown = ports.keys() - self._mine - self._foreign
        now = time.monotonic()
        if now - self._scanned > RESCAN_SECONDS:
            unknown |= self._foreign
        if unknown:
            self._scanned = now
            found = held(descendants(os.getpid()), unknown)
            self._mine |= found
            self._foreign = (self._foreign | unknown) - found
        self._bound = {part: alive for part, inodes in self._bound.items() if (alive := inodes & self._mine)}
        sockets: dict[Listener, frozenset[int]] = {}
        for inode in self._mine:
            sockets[ports[inode]] = sockets.get(ports[inode], frozenset()) | {inode}
        for step in steps(plan(sockets, self._main), sockets, self._bound):
            self._take(step)

    def _take(self, step: Step) -> None:
        self._changed = time.monotonic()
        part = step.part
        service = self._service if part.service_port is None else f"{self._service}:{part.service_port}"
        if not step.bind:
            self._client.request("unbind", service=service, port=part.kernel_port, protocol=part.protocol)
            del self._bound[part]
            return
        if (part, step.inodes) in self._refused:
            return
        try:
            where = {"port": part.kernel_port, "protocol": part.protocol, "inodes": list(step.inodes)}
            answer = self._client.request("bind", service=service, **where)
        except ControlUnreachable:
            raise
        except ControlError as error:
            self._refused.add((part, step.inodes))
            _warn(f"{service} is not served: {error}")
            return
        if part not in self._bound:
            for warning in answer["warnings"]:
                _warn(f"warning: {warning}")
            port = f"UDP port {part.kernel_port}" if part.protocol == UDP else f"port {part.kernel_port}"
            _warn(f"{answer['service']} is served by {port}")
        self._bound[part] = frozenset(step.inodes)


def run(
    client: Client,
    service: str,
    main: int | None,
    command: Sequence[str],
    *,
    udp: Collection[int] = (),
    on_signal: Callable[[int], None] = lambda number: None,
) -> int:
    """Start the command and follow it until its whole process tree has ended; its exit status is ours.

    Signals that ask this process to end go to the command, after ``on_signal`` has been told. Raises CommandError: no
    servald, no such service name, no such program.
    """
    following = ServiceRun(client, service, main, udp)
    become_subreaper()
    child = _start(command)
    _forward_signals(child, on_signal)
    pidfd = os.pidfd_open(child)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    status: int | None = None
    alone = False
    while not alone:
        following.poll()
        if status is None:
            poller.poll(following.pause * 1000)
        else:
            time.sleep(following.pause)  # the command has ended; daemons that it left behind have not
        status, alone = _reap(child, status)
    os.close(pidfd)
    return 1 if status is None else status


def _start(command: Sequence[str]) -> int:
    try:
        return os.posix_spawnp(
            command[0], list(command), os.environ, setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE]
        )
    except FileNotFoundError:
        raise CommandError(f"{command[0]}: no such program", NOT_FOUND) from None
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}", NOT_EXECUTABLE) from None


def _reap(child: int, status: int | None) -> tuple[int | None, bool]:
    """Collect what has ended: the command's exit status once it is known, and whether no process is left."""
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, True
        if pid == 0:
            return status, False
        if pid == child:
            code = os.waitstatus_to_exitcode(wait_status)
            status = code if code >= 0 else 128 - code


def _forward_signals(child: int, on_signal: Callable[[int], None]) -> None:
    """SIGTERM and SIGHUP end the command; Ctrl-C reaches it by itself, because it is in the same foreground
    group.
    """

    def forward(number: int, _frame: object) -> None:
        on_signal(number)
        if number == signal.SIGINT and _in_foreground():
            return
        for pid in [child] if _alive(child) else descendants(os.getpid()):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, forward)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _in_foreground() -> bool:
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:  # no terminal
        return False


def _warn(text: str) -> None:
    print(f"serval: {text}", file=sys.stderr, flush=True)
