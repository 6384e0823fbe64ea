"""Captures: a tcpdump per interface of hosts and routers, and afterwards one file with all frames in order of time.

The merged file is pcapng, which keeps interfaces apart and names them: Wireshark shows "dan-eth0" at each frame. All
stamps come from the one clock of this machine, so the order across hosts is the true one.
"""

from __future__ import annotations

import heapq
import os
import re
import select
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mininet.node import Node

from testbed import hosts, processes, sniffer, symptoms
from testbed.errors import TestbedError
from testbed.isolation import in_user_namespace
from testbed.ownership import make_directory, owned_by_caller

SNAP_BYTES = 256
"""Headers and the beginning of the payload; a whole bulk transfer on fifteen interfaces would fill the disk."""

MERGED = "all.pcapng"
READY_SECONDS = 10.0
LOOK_SECONDS = 0.25
_NANOSECOND_MAGIC = 0xA1B23C4D
_FILE_HEADER, _RECORD_HEADER = struct.Struct("=IHHiIII"), struct.Struct("=IIII")
_SECTION, _INTERFACE, _ENHANCED = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_OPTION_NAME, _OPTION_RESOLUTION = 2, 9
_NANOSECONDS = 9  # 10 to the power of minus nine
_DROPPED = re.compile(r"(\d+) packets? dropped by kernel")


@dataclass(frozen=True)
class Frame:
    """One captured frame: nanoseconds since 1970, its length on the wire, and what was kept of it."""

    time: int
    length: int
    data: bytes


class Capture:
    """Running tcpdumps, one per interface. `stop` ends them and merges; the constructor waits until all listen."""

    def __init__(
        self,
        nodes: Sequence[Node],
        directory: Path,
        *,
        snap: int = SNAP_BYTES,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Capture all interfaces of `nodes` into `directory`, `snap` bytes of each frame (0: all). TestbedError.

        `told` hears once, from another thread, that the captures ended early, when that happens.
        """
        try:
            self.directory = make_directory(directory)
        except OSError as error:
            raise TestbedError(
                f"cannot make {directory} for the captures: {error.strerror}", "name another directory: --capture DIR"
            ) from None
        self._dumps: list[tuple[str, Path, processes.Daemon]] = []
        try:
            for node in nodes:
                for interface in node.intfList():
                    self._start(node, interface.name, snap)
            for _, path, dump in self._dumps:
                dump.wait_ready(partial(_listening, dump.log), timeout=READY_SECONDS)
                owned_by_caller(path)
        except BaseException:  # also when Ctrl-C ends the wait: nothing is left running
            self._end()
            raise
        self._watch = _Watch([(name, dump) for name, _, dump in self._dumps], directory, told)

    @property
    def interfaces(self) -> list[str]:
        return [name for name, _, _ in self._dumps]

    def _start(self, node: Node, interface: str, snap: int) -> None:
        path = self.directory / f"{interface}.pcap"
        if in_user_namespace():
            argv = [sys.executable, "-I", sniffer.__file__, interface, str(path), str(snap)]
        else:
            # -U: each frame is in the file at once; -Z: the directory may be closed to tcpdump's own user.
            argv = ["tcpdump", "-i", interface, "-w", str(path), "-U", "-n", "-Z", "root", "-s", str(snap)]
            argv += ["-B", "8192", "--immediate-mode", "--time-stamp-precision=nano"]
        log = self.directory / f"{interface}.log"
        log.unlink(missing_ok=True)
        self._dumps.append((interface, path, processes.start("tcpdump", hosts.inside(node, argv), log=log)))

    def stop(self) -> Path:
        """End the captures and write the merged file, whose path is returned.

        Raises TestbedError, also when they had ended before, after writing what there is.
        """
        self._watch.stop()
        self._end()
        merged = self.directory / MERGED
        try:
            with merged.open("wb") as output:
                for block in merge([(name, path) for name, path, _ in self._dumps]):
                    output.write(block)
            owned_by_caller(merged)
        except OSError as error:
            full = symptoms.room(self.directory) < symptoms.FULL_BYTES
            room = symptoms.disk_hint([self.directory]) if full else "make it writable"
            merged.unlink(missing_ok=True)  # half of the frames would mislead
            whole = "" if self._watch.ended else "; the files per interface beside it are whole"
            raise TestbedError(f"cannot write {merged}: {error.strerror}{whole}", room) from None
        if self._watch.ended:
            raise TestbedError(f"{merged} is not complete: {self._watch.ended}", "make room, and run it again")
        return merged

    def dropped(self) -> int:
        """Frames that the kernel could not hand to tcpdump, after `stop`."""
        found = (_DROPPED.search(dump.log.read_text()) for _, _, dump in self._dumps)
        return sum(int(match[1]) for match in found if match)

    def _end(self) -> None:
        for _, _, dump in self._dumps:
            dump.stop()


class _Watch:
    """Looks in a thread for a full disk and for a tcpdump that ends by itself; ends all captures then, and says so."""

    def __init__(
        self, dumps: Sequence[tuple[str, processes.Daemon]], directory: Path, told: Callable[[str], None]
    ) -> None:
        self.ended = ""
        self._directory = directory
        self._told = told
        self._dumps = {os.pidfd_open(dump.pid): (name, dump) for name, dump in dumps}
        self._stopped, self._stop = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="captures", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Before the captures are ended on purpose. May be called again."""
        if self._stop < 0:
            return
        os.write(self._stop, b".")
        self._thread.join()
        for fd in (*self._dumps, self._stopped, self._stop):
            os.close(fd)
        self._stop = -1

    def _run(self) -> None:
        poll = select.poll()
        for fd in (self._stopped, *self._dumps):
            poll.register(fd, select.POLLIN)
        while not self.ended:
            ready = {fd for fd, _ in poll.poll(LOOK_SECONDS * 1000)}
            if self._stopped in ready:
                return
            # tcpdump does not look whether what it writes arrives.
            if symptoms.room(self._directory) < symptoms.FULL_BYTES:
                self._give_up(f"no room is left in {self._directory}")
            elif ready:
                name, dump = self._dumps[ready.pop()]
                said = " | ".join(dump.printed().strip().splitlines()[-1:]) or "it said nothing"
                self._give_up(f"that of {name} has ended by itself ({said})")

    def _give_up(self, why: str) -> None:
        for _, dump in self._dumps.values():
            dump.stop()
        self.ended = why
        self._told(f"the captures have ended: {why}; the network goes on without them")


def _listening(log: Path) -> bool:
    return "listening on" in log.read_text()


def read(path: Path) -> Iterator[Frame]:
    """The frames of a pcap file with nanoseconds, as tcpdump writes it here; raises TestbedError.

    A last record that was cut off by the end of tcpdump is left out.
    """
    data = path.read_bytes()
    if len(data) < _FILE_HEADER.size:
        raise TestbedError(f"{path} is no capture: it has {len(data)} bytes")
    if _FILE_HEADER.unpack_from(data)[0] != _NANOSECOND_MAGIC:
        raise TestbedError(f"{path} is no capture with nanoseconds")
    position = _FILE_HEADER.size
    while position + _RECORD_HEADER.size <= len(data):
        seconds, nanoseconds, kept, length = _RECORD_HEADER.unpack_from(data, position)
        position += _RECORD_HEADER.size
        if position + kept > len(data):
            return
        yield Frame(seconds * 1_000_000_000 + nanoseconds, length, data[position : position + kept])
        position += kept


def merge(captures: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """The blocks of a pcapng file with the frames of all captures (interface name, pcap file) in order of time."""
    yield _block(_SECTION, struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1))
    for name, path in captures:
        link_type = _FILE_HEADER.unpack(path.read_bytes()[: _FILE_HEADER.size])[6] & 0xFFFF
        options = _option(_OPTION_NAME, name.encode()) + _option(_OPTION_RESOLUTION, bytes([_NANOSECONDS]))
        yield _block(_INTERFACE, struct.pack("=HHI", link_type, 0, 0) + options + struct.pack("=HH", 0, 0))
    streams = [_numbered(number, read(path)) for number, (_, path) in enumerate(captures)]
    for time, number, frame in heapq.merge(*streams, key=lambda item: item[:2]):
        head = struct.pack("=IIIII", number, time >> 32, time & 0xFFFFFFFF, len(frame.data), frame.length)
        yield _block(_ENHANCED, head + _padded(frame.data))


def _numbered(number: int, frames: Iterable[Frame]) -> Iterator[tuple[int, int, Frame]]:
    for frame in frames:
        yield frame.time, number, frame


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("=I", 12 + len(body))
    return struct.pack("=I", kind) + length + body + length
