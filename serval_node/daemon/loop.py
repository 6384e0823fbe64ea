"""The daemon's event loop: epoll, timers and one hook, nothing else.

Connection set-up is bound by Python, so every call between a readable socket and the stack counts; an asyncio
loop costs a handle, a context and a deque per event. What is rarely used (control connections, DNS, the
controller channel) is written as callbacks on the same loop.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import socket
import time
from collections.abc import Callable

Callback = Callable[[], None]

_READ = select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP
_WRITE = select.EPOLLOUT
_EVENTS_PER_CALL = 64  # without it Python makes room for 1023 each time


class Timer:
    """One call in the future; `cancel()` may be called at any time, also after it ran."""

    __slots__ = ("when", "_callback")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        self._callback = None

    @property
    def pending(self) -> bool:
        """Whether the call is still to come."""
        return self._callback is not None

    def _fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class EventLoop:
    """Readers, writers and timers of one thread.

    `settle` runs after every batch of events and timers; it returns the monotonic time at which it wants to run
    again, or None. The daemon's stack and data path hang on it, so their outputs are taken once per batch and
    not once per packet.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = False
        self.woken = 0.0
        """When there was something to do last: the earliest time that an event being handled can be given."""
        self.settle: Callable[[], float | None] | None = None

    def add_reader(self, fd: int, callback: Callback) -> None:
        self._readers[fd] = callback
        self._update(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        self._writers[fd] = callback
        self._update(fd)

    def remove_reader(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._update(fd)

    def remove_writer(self, fd: int) -> None:
        if self._writers.pop(fd, None) is not None:
            self._update(fd)

    def _update(self, fd: int) -> None:
        mask = (_READ if fd in self._readers else 0) | (_WRITE if fd in self._writers else 0)
        if not mask:
            try:
                self._epoll.unregister(fd)
            except (FileNotFoundError, OSError):  # closed already: the kernel forgot it by itself
                pass
            return
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Run `callback` once, `delay` seconds from now."""
        timer = Timer(time.monotonic() + delay, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def on_signal(self, callback: Callable[[int], None], *signals: int) -> None:
        """Call `callback(number)` from the loop, between events, when one of `signals` arrives (main thread
        only).
        """
        receiver, sender = socket.socketpair()
        receiver.setblocking(False)
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)

        def readable() -> None:
            for number in receiver.recv(64):
                if number in signals:
                    callback(number)

        self._signal_pair = (receiver, sender)
        self.add_reader(receiver.fileno(), readable)

    def stop(self) -> None:
        """Let `run` return after the current batch."""
        self._running = False

    def run(self) -> None:
        """Serve events until `stop`."""
        self._running = True
        poll = self._epoll.poll
        readers, writers = self._readers, self._writers
        wanted = self.settle() if self.settle else None
        while self._running:
            ready = poll(self._timeout(wanted), _EVENTS_PER_CALL)
            self.woken = time.monotonic()
            for fd, mask in ready:
                if mask & _READ:
                    reader = readers.get(fd)
                    if reader is not None:
                        reader()
                    elif fd not in writers:
                        continue
                if mask & (_WRITE | select.EPOLLERR | select.EPOLLHUP):
                    writer = writers.get(fd)
                    if writer is not None:
                        writer()
            if self._timers:
                self._run_timers()
            if self.settle is not None:
                wanted = self.settle()

    def _timeout(self, wanted: float | None) -> float:
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        if self._timers:
            first = self._timers[0][0]
            wanted = first if wanted is None or first < wanted else wanted
        if wanted is None:
            return -1
        return max(0.0, wanted - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]._fire()

    def close(self) -> None:
        self._epoll.close()
        pair = getattr(self, "_signal_pair", None)
        if pair:
            signal.set_wakeup_fd(-1)
            for end in pair:
                end.close()


def set_nonblocking(fd: int) -> None:
    os.set_blocking(fd, False)
