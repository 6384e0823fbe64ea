"""Host-local virtual addresses: what stands for a name in the kernel of one host.

A name's address in 198.18.0.0/16 is chosen from the name alone: a hash, and the next free address when two
names collide. It says nothing about where the service is, so binding stays late (S18, S19). The table only
grows: within a run no address is given to a second name, also across a restart of the daemon, because every new
row is appended to a file before it is used.

198.18.0.0/24 is kept for the host itself (198.18.0.1 is sal0).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

SAL0_ADDRESS = bytes((198, 18, 0, 1))
SAL0_PREFIX_BITS = 15
NAME_NETWORK = bytes((198, 18))
PEER_NETWORK = bytes((198, 19))

RESERVED = 256
SLOTS = 65536 - RESERVED


class AddressesExhausted(RuntimeError):
    """Every address of 198.18.0.0/16 stands for a name already."""


class VirtualAddresses:
    """The table key <-> address, persistent when a path is given.

    A key is a service's name in lower case, or the text of one whole serviceID ("0x" and 64 digits) for
    connections by number.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Read what an earlier daemon left at `path`; raises OSError when the file exists and cannot be read."""
        self._by_key: dict[str, bytes] = {}
        self._by_address: dict[bytes, str] = {}
        self._path = Path(path) if path is not None else None
        if self._path is not None and self._path.exists():
            text = self._path.read_text(encoding="utf-8")
            for key, address in _rows(text):
                self._by_key[key] = address
                self._by_address[address] = key
            if text and not text.endswith("\n"):  # a row that was cut off must not swallow the next one
                with self._path.open("a", encoding="utf-8") as file:
                    file.write("\n")

    def address(self, key: str) -> bytes:
        """The 4 bytes that stand for `key`, chosen and recorded now if they were not; raises
        AddressesExhausted.
        """
        known = self._by_key.get(key)
        if known is not None:
            return known
        address = self._free(key)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": key, "address": ".".join(map(str, address))}) + "\n")
        self._by_key[key] = address
        self._by_address[address] = key
        return address

    def key(self, address: bytes) -> str | None:
        """What `address` stands for, None when nothing ever asked for it."""
        return self._by_address.get(address)

    def items(self) -> list[tuple[str, bytes]]:
        """All rows, in the order in which they were asked for."""
        return list(self._by_key.items())

    def _free(self, key: str) -> bytes:
        start = first_slot(key)
        for step in range(SLOTS):
            address = slot_address((start + step) % SLOTS)
            if address not in self._by_address:
                return address
        raise AddressesExhausted("all addresses of 198.18.0.0/16 are in use by names")


def first_slot(key: str) -> int:
    """The slot a key hashes to: the same on every host and in every run."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") % SLOTS


def slot_address(slot: int) -> bytes:
    """The address of slot 0..SLOTS-1."""
    return NAME_NETWORK + (slot + RESERVED).to_bytes(2, "big")


def _rows(text: str) -> Iterator[tuple[str, bytes]]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
            yield str(row["name"]), bytes(int(part) for part in row["address"].split("."))
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a daemon that was killed while it wrote; its address was never given out
