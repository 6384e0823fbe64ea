"""The event loop: readers, writers, timers, signals, and the hook that runs once per batch."""

from __future__ import annotations

import os
import signal
import socket
import time

from serval_node.daemon.loop import EventLoop


def test_timers_run_in_order_and_cancelled_ones_do_not() -> None:
    loop, seen = EventLoop(), []
    loop.call_later(0.02, lambda: seen.append("second"))
    loop.call_later(0.01, lambda: seen.append("first"))
    dead = loop.call_later(0.015, lambda: seen.append("cancelled"))
    dead.cancel()
    last = loop.call_later(0.03, loop.stop)
    start = time.monotonic()
    loop.run()
    loop.close()
    assert seen == ["first", "second"]
    assert 0.03 <= time.monotonic() - start < 1
    assert not last.pending
    last.cancel()


def test_a_reader_that_removes_another_one_of_its_batch() -> None:
    loop, seen = EventLoop(), []
    pairs = [socket.socketpair() for _ in range(2)]

    def readable(own: int) -> None:
        seen.append(own)
        loop.remove_reader(pairs[1 - own][0].fileno())
        loop.stop()

    for index, (reader, writer) in enumerate(pairs):
        writer.send(b"x")
        loop.add_reader(reader.fileno(), lambda index=index: readable(index))
    loop.run()
    loop.close()
    assert len(seen) == 1
    for pair in pairs:
        for end in pair:
            end.close()


def test_the_hook_decides_when_it_runs_again() -> None:
    loop, times = EventLoop(), []

    def settle() -> float | None:
        times.append(time.monotonic())
        if len(times) == 3:
            loop.stop()
        return times[-1] + 0.01

    loop.settle = settle
    loop.run()
    loop.close()
    assert len(times) == 3
    assert times[2] - times[0] >= 0.02


def test_a_writer_is_called_until_it_is_removed() -> None:
    loop = EventLoop()
    one, other = socket.socketpair()
    calls = []

    def writable() -> None:
        calls.append(1)
        if len(calls) == 2:
            loop.remove_writer(one.fileno())
            loop.call_later(0.01, loop.stop)

    loop.add_writer(one.fileno(), writable)
    loop.run()
    loop.close()
    assert len(calls) == 2
    one.close()
    other.close()


def test_a_closed_descriptor_can_still_be_removed() -> None:
    loop = EventLoop()
    one, other = socket.socketpair()
    fd = one.fileno()
    loop.add_reader(fd, loop.stop)
    one.close()
    other.close()
    loop.remove_reader(fd)
    loop.close()


def test_signals_are_events() -> None:
    loop, seen = EventLoop(), []
    before = signal.getsignal(signal.SIGUSR1)

    def signalled(number: int) -> None:
        seen.append(number)
        loop.stop()

    loop.on_signal(signalled, signal.SIGUSR1)
    loop.call_later(0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.run()
    loop.close()
    signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]
