"""Virtual addresses: chosen from the name alone, never given out twice, kept across a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from serval_node.daemon import virtual_addresses
from serval_node.daemon.virtual_addresses import AddressesExhausted, VirtualAddresses, first_slot, slot_address


def test_an_address_depends_on_the_name_alone() -> None:
    one, other = VirtualAddresses(), VirtualAddresses()
    for name in ("a.example", "b.example", "web.example"):
        one.address(name)
    assert other.address("web.example") == one.address("web.example") == slot_address(first_slot("web.example"))
    assert one.key(one.address("web.example")) == "web.example"
    assert one.key(bytes((198, 18, 0, 1))) is None


def test_slots_cover_the_network_but_its_first_256_addresses() -> None:
    assert slot_address(0) == bytes((198, 18, 1, 0))
    assert slot_address(virtual_addresses.SLOTS - 1) == bytes((198, 18, 255, 255))


def test_a_collision_takes_the_next_free_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_addresses, "SLOTS", 3)
    table = VirtualAddresses()
    addresses = {table.address(f"s{number}.example") for number in range(3)}
    assert addresses == {slot_address(slot) for slot in range(3)}
    with pytest.raises(AddressesExhausted):
        table.address("one.too.many")


def test_the_table_survives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_addresses, "first_slot", lambda key: 7)
    path = tmp_path / "names.jsonl"
    before = VirtualAddresses(path)
    first, second = before.address("first.example"), before.address("second.example")
    after = VirtualAddresses(path)
    assert (after.address("second.example"), after.address("first.example")) == (second, first)
    assert after.address("third.example") not in (first, second)


def test_a_row_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "names.jsonl"
    VirtualAddresses(path).address("whole.example")
    path.write_text(path.read_text() + '{"name": "half.exa')
    table = VirtualAddresses(path)
    assert [name for name, _ in table.items()] == ["whole.example"]
    later = table.address("later.example")
    assert VirtualAddresses(path).key(later) == "later.example"
