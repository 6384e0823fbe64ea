"""Parts of real virtual machines that need neither QEMU nor root: what a guest is made of, what is seen of a move."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from serval_node.capture.pcap import CapturedPacket
from serval_node.wire.encapsulation import TO_SERVER, encapsulate
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, address, build_ipv4
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, encode
from testbed import vm_requirements
from testbed.errors import TestbedError
from testbed.vm import image, kernel, tree, witness
from testbed.vm.bundle import bundle, files
from testbed.vm.guest.network import announces
from testbed.vm.guest.ports import Loop, messages

GUEST, PEER, ELSEWHERE = "10.2.0.10", "10.0.0.1", "10.9.9.9"

# -- the kernel's modules

DEPENDENCIES = """\
kernel/virtio/virtio_pci.ko.xz: kernel/virtio/virtio.ko.xz kernel/virtio/virtio-ring.ko.xz
kernel/virtio/virtio.ko.xz: kernel/virtio/virtio-ring.ko.xz
kernel/virtio/virtio-ring.ko.xz:
kernel/net/virtio_net.ko.xz: kernel/virtio/virtio.ko.xz kernel/virtio/virtio-ring.ko.xz
"""


def test_modules_come_after_what_they_need_and_once() -> None:
    order = kernel.load_order(["virtio_pci", "virtio_net"], kernel.parse_dependencies(DEPENDENCIES), set())
    assert [path.rpartition("/")[2] for path in order] == [
        "virtio-ring.ko.xz",
        "virtio.ko.xz",
        "virtio_pci.ko.xz",
        "virtio_net.ko.xz",
    ]


def test_what_is_built_in_is_not_loaded() -> None:
    assert kernel.load_order(["tun", "squashfs"], {}, {"tun", "squashfs"}) == ()


def test_a_kernel_that_is_not_whole_is_told(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="not whole") as caught:
        kernel.find(tmp_path)
    assert "make setup-vm" in str(caught.value)


# -- what is missing


def test_each_missing_part_is_named(tmp_path: Path) -> None:
    there = {"sh": "dash"}
    assert vm_requirements.missing(machine="riscv64") == "guests are built for x86_64, and this machine is riscv64"
    assert vm_requirements.missing(programs={**there, "no-such-qemu": "qemu-system-x86"}) == (
        "no qemu-system-x86 on this machine"
    )
    assert "no guest's kernel" in str(vm_requirements.missing(machine="x86_64", programs=there, kernel=tmp_path))
    (tmp_path / "version").write_text("6.1\n")
    assert vm_requirements.missing(machine="x86_64", programs=there, kernel=tmp_path) is None


# -- the image's key


def test_the_key_changes_with_every_file_and_fact(tmp_path: Path) -> None:
    one = tmp_path / "one.py"
    one.write_text("a = 1\n")
    first = image.key([one], ["6.1"], tmp_path)
    assert image.key([one], ["6.1"], tmp_path) == first
    assert image.key([one], ["6.2"], tmp_path) != first
    one.write_text("a = 2\n")
    changed = image.key([one], ["6.1"], tmp_path)
    one.rename(tmp_path / "two.py")
    assert first != changed != image.key([tmp_path / "two.py"], ["6.1"], tmp_path)


def test_a_guest_is_made_of_servald_the_agent_and_its_init() -> None:
    names = {os.path.relpath(path, tree.sandbox.ROOT) for path in tree.sources()}
    assert {"serval_node/daemon/servald.py", "testbed/vm/guest/agent.py", "testbed/vm/guest/init"} <= names
    assert not any(name.startswith("tests/") for name in names)


def test_one_builds_while_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "LOCK_SECONDS", 0.1)
    said: list[str] = []

    def another() -> None:
        with pytest.raises(TestbedError) as caught, image.lock(tmp_path):
            pass
        said.append(str(caught.value))

    with image.lock(tmp_path):
        waiting = threading.Thread(target=another)
        waiting.start()
        waiting.join(10)
    assert "another run has been building" in said[0]
    with image.lock(tmp_path):
        pass


# -- programs for a guest


def test_a_module_comes_with_what_it_imports_of_ours() -> None:
    found = files(["testbed.traffic.far"])
    assert {"testbed/__init__.py", "testbed/traffic/far.py", "testbed/traffic/flow.py"} <= set(found)
    assert not [name for name in found if name.startswith("serval_node")]
    with zipfile.ZipFile(BytesIO(bundle(["testbed.traffic.far"]))) as archive:
        assert archive.read("testbed/traffic/far.py") == found["testbed/traffic/far.py"].read_bytes()


@pytest.mark.parametrize("module", ["testbed.no_such", "no_such_package.x", "math"])
def test_what_is_no_module_of_ours_is_refused(module: str) -> None:
    with pytest.raises(TestbedError, match=module):
        files([module])


# -- the guest's notice of a move


def link_message(index: int, event: int | None, kind: int = 16) -> bytes:
    body = struct.pack("=BxHiII", 0, 1, index, 0, 0) + struct.pack("=HH8s", 12, 3, b"eth0")
    body += b"" if event is None else struct.pack("=HHI", 8, 44, event)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_only_the_announcement_of_its_own_link_is_a_move() -> None:
    assert announces(link_message(2, None) + link_message(2, 4), 2)
    for other in (link_message(2, None), link_message(2, 1), link_message(3, 4), link_message(2, 4, kind=17), b""):
        assert not announces(other, 2)


def test_what_has_ended_in_a_round_of_the_loop_is_not_called_in_it() -> None:
    """A port's news may end a connection that has something to read at the same time."""
    loop, heard = Loop(), []
    ends = [os.pipe() for _ in range(2)]
    for reader, writer in ends:
        os.write(writer, b"x")

        def readable(reader: int = reader) -> None:
            heard.append(reader)
            for other, _ in ends:
                loop.forget(other)

        loop.watch(reader, readable)
    loop.step(1.0)
    loop.close()
    assert len(heard) == 1
    for reader, writer in ends:
        os.close(reader)
        os.close(writer)


def test_half_a_line_is_passed_over() -> None:
    assert list(messages([b'"x": 1}', b'{"id": 1}', b"[1]", b"", b'{"id": 2}'])) == [{"id": 1}, {"id": 2}]


# -- what the host sees of a move


def packet(when: float, source: str, destination: str, flags: int, *, udp: bool = False) -> CapturedPacket:
    control = (Control(flags, 1, 1, bytes(8)),) if flags else ()
    sal = encode(SalPacket(7, 9, PROTOCOL_TCP, control, bytes(1000)))
    ends = address(source), address(destination)
    whole = encapsulate(*ends, TO_SERVER, sal) if udp else build_ipv4(*ends, PROTOCOL_SERVAL, sal)
    return CapturedPacket(when, whole[: witness.SNAP - 14])  # as the capture cuts it


RSYN, ANSWER = ControlFlag.RSYN, ControlFlag.RSYN | ControlFlag.ACK


@pytest.mark.parametrize("udp", [False, True])
def test_a_move_is_seen_from_rsyn_to_data(udp: bool) -> None:
    seen = witness.look(
        [
            packet(1.0, "10.1.0.10", PEER, 0),  # from the old address, before it takes the new one
            packet(1.5, GUEST, ELSEWHERE, ControlFlag.SYN, udp=udp),  # another flow
            packet(2.0, GUEST, PEER, RSYN, udp=udp),
            packet(2.5, PEER, GUEST, 0, udp=udp),
            packet(3.0, PEER, GUEST, ANSWER, udp=udp),
            packet(3.5, GUEST, PEER, ControlFlag.ACK, udp=udp),
            packet(3.7, PEER, ELSEWHERE, 0),
            packet(4.0, GUEST, PEER, 0, udp=udp),
        ],
        GUEST,
        100.0,
    )
    assert seen == witness.Sighting(102.0, 103.0, 104.0)


def test_what_did_not_come_is_not_made_up() -> None:
    assert witness.look([], GUEST, 0.0) == witness.Sighting()
    assert witness.look([packet(2.0, GUEST, PEER, RSYN), CapturedPacket(3.0, b"\x45")], GUEST, 0.0).answered is None
