"""Reading and merging captures; scapy is the judge of the merged file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from scapy.utils import PcapNgReader

from testbed.capture import Capture, merge, read
from testbed.errors import TestbedError

HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
ETHERNET = bytes(12) + b"\x08\x00"


def write(path: Path, records: list[tuple[int, bytes]], *, cut: int = 0) -> Path:
    """A capture of (nanoseconds, frame), without its last `cut` bytes."""
    body = b"".join(
        struct.pack("=IIII", time // 10**9, time % 10**9, len(data), len(data) + 100) + data for time, data in records
    )
    path.write_bytes((HEADER + body)[: len(HEADER + body) - cut])
    return path


def test_frames_are_merged_by_time_and_keep_their_interface(tmp_path: Path) -> None:
    base = 1_700_000_000 * 10**9
    ann = write(tmp_path / "ann.pcap", [(base + 10, ETHERNET + b"a1"), (base + 30, ETHERNET + b"a2!")])
    dan = write(tmp_path / "dan.pcap", [(base + 5, ETHERNET + b"d1"), (base + 20, ETHERNET + b"d2")])
    merged = tmp_path / "all.pcapng"
    merged.write_bytes(b"".join(merge([("ann-eth0", ann), ("dan-eth0", dan)])))
    with PcapNgReader(str(merged)) as reader:
        packets = reader.read_all()
    assert [bytes(packet)[14:] for packet in packets] == [b"d1", b"a1", b"d2", b"a2!"]
    assert [packet.sniffed_on for packet in packets] == ["dan-eth0", "ann-eth0", "dan-eth0", "ann-eth0"]
    assert [int(packet.time * 10**9) - base for packet in packets] == [5, 10, 20, 30]
    assert packets[0].wirelen == len(ETHERNET) + 2 + 100


def test_a_record_cut_off_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.pcap", [(1, b"whole"), (2, b"cut off")], cut=3)
    assert [frame.data for frame in read(path)] == [b"whole"]


@pytest.mark.parametrize("content", [b"", b"short", bytes(24)])
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.pcap"
    path.write_bytes(content)
    with pytest.raises(TestbedError, match="is no capture"):
        list(read(path))


@pytest.mark.parametrize("below", ["", "captures"])
def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TestbedError, match="cannot make .*file"):
        Capture([], tmp_path / "file" / below)


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    capture = Capture([], tmp_path)
    (tmp_path / "all.pcapng").symlink_to("/dev/full")
    with pytest.raises(TestbedError, match="cannot write .*all.pcapng: No space left"):
        capture.stop()
